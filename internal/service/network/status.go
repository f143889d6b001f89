package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/mesh"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Status implements [control.Networks].
func (s *Service) Status(context.Context) (control.NetworkStatus, error) { return s.Known(), nil }

// Known is the status, out of memory.
func (s *Service) Known() control.NetworkStatus {
	s.mu.Lock()
	u, conf := s.up, s.saved
	s.mu.Unlock()
	st := control.NetworkStatus{State: "off", Version: s.o.Version}
	if u == nil {
		if conf.Once {
			st.State = "stopped"
		}
		if conf.Launched {
			st.Problems = append(st.Problems, control.Advice{Text: "it was launched and does not run: the daemon's log says why", Mend: `"remora network launch" tries again`})
		}
		return st
	}
	c := u.cluster.Status()
	st.State, st.Nickname, st.Peer, st.Password = "joining", conf.Nickname, c.Host.Short(), conf.Password != nil
	st.Trusted, st.Range, st.Listen = conf.Trusted, conf.Range, conf.listening(u)
	st.FailedProofs = int64(u.links.Stats().WrongProofs)
	for _, t := range c.Targets {
		st.Targets = append(st.Targets, target(t))
		if t.Err != nil && errors.Is(t.Err, errdefs.ErrDenied) { // to try again is of no use
			st.Problems = append(st.Problems, control.Advice{Text: errdefs.OneLine(t.Err.Error()), Mend: strings.Join(errdefs.Hints(t.Err), "; ")})
		}
	}
	for _, text := range c.Wrong {
		st.Problems = append(st.Problems, control.Advice{Text: text})
	}
	if err := u.problem(); err != nil {
		st.Problems = append(st.Problems, control.Advice{Text: err.Error(), Mend: `"remora network launch" tries again`})
	}
	in := u.in()
	if in == nil {
		if len(st.Targets) == 0 && u.problem() == nil {
			st.Problems = append(st.Problems, control.Advice{Text: "the launch was cut off: this host is in no cluster, and dials none", Mend: `"remora network launch" again, with its peers if it is to join some`})
		}
		return st
	}
	st.State, st.Cluster, st.RefusedRecords = "ready", c.Cluster.String(), int64(c.Store.Refused)
	in.fill(&st, c)
	return st
}

func target(t cluster.Target) control.NetworkTarget {
	out := control.NetworkTarget{Address: t.Address, State: t.State, Next: t.Next}
	if t.Err != nil {
		out.Error = errdefs.OneLine(t.Err.Error())
	}
	return out
}

// fill adds what the rooms of the cluster know.
func (in *inside) fill(st *control.NetworkStatus, c cluster.Status) {
	m := in.mesh.Status()
	st.Repairs = int64(m.Repairs)
	if m.Tunnel != "" {
		st.Tunnel = fmt.Sprintf("WireGuard (%s), UDP port %d", m.Tunnel, in.u.conf.Tunnel)
	}
	for _, text := range m.Problems {
		st.Problems = append(st.Problems, control.Advice{Text: text})
	}
	paths := map[record.Host]mesh.Peer{}
	for _, p := range m.Peers {
		paths[p.Host] = p
	}
	nick, owned := in.nicknames(), in.owned()
	for _, m := range in.u.cluster.Members() {
		st.Peers = append(st.Peers, in.peer(m, paths[m.Host], nick, c, owned))
	}
	slices.SortStableFunc(st.Peers, func(a, b control.NetworkPeer) int {
		return boolOrder(a.State == "self", b.State == "self")
	})
	for _, s := range in.alloc.Networks() {
		st.Networks = append(st.Networks, in.info(s, nick))
	}
	st.Networks = append(st.Networks, in.swarmInfo(nick)...)
	for _, n := range st.Networks {
		if n.Error != "" && n.Error != going {
			st.Problems = append(st.Problems, control.Advice{Text: fmt.Sprintf("network %q: %s", n.Name, n.Error)})
		}
	}
	st.DNS = in.dnsInfo()
	if i, err := in.u.s.installed(); err == nil && i != nil {
		st.DNS.Installed = true
	}
}

// boolOrder has what is true first.
func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (in *inside) peer(m cluster.MemberInfo, p mesh.Peer, nick nicknames, c cluster.Status, owned map[record.Host]uint64) control.NetworkPeer {
	out := control.NetworkPeer{
		Peer: m.Host.Short(), Nickname: m.Nickname, Version: m.Version, State: "unreachable", Since: m.Since, Addresses: owned[m.Host],
	}
	switch {
	case m.Self:
		out.State = "self"
		for _, l := range c.Links {
			out.Connections = append(out.Connections, control.NetworkConnection{
				Peer: l.Host.Short(), Nickname: nick.of(l.Host), Outbound: l.Dialed, Address: addressOf(l, nick), State: "established", Latency: l.RTT,
			})
		}
		return out
	case m.Reachable:
		out.State = "reachable"
	}
	for _, l := range m.Links {
		out.Connections = append(out.Connections, control.NetworkConnection{
			Peer: l.Host.Short(), Nickname: nick.of(l.Host), State: "established", Latency: l.RTT,
		})
	}
	out.Path, out.Transport, out.FastPath, out.Encrypted = p.Path, p.Transport, p.FastPath, p.Encrypted
	if !p.Via.IsZero() {
		out.Path = "via " + nick.of(p.Via)
	}
	out.Endpoint, out.MTU, out.Latency, out.Handshake = p.Endpoint, p.MTU, p.Latency, p.Handshake
	return out
}

func addressOf(l cluster.Peer, nick nicknames) string {
	if !l.Via.IsZero() {
		return "via " + nick.of(l.Via)
	}
	return l.Address.String()
}

// owned counts the addresses of each host, of IPv4, in all networks.
func (in *inside) owned() map[record.Host]uint64 {
	count := map[record.Host]uint64{}
	for _, s := range in.alloc.Networks() {
		for _, o := range in.alloc.Owned(s.ID) {
			count[o.Owner] += size(o.Prefix)
		}
	}
	return count
}

func size(p netip.Prefix) uint64 {
	if !p.Addr().Is4() {
		return 0
	}
	return 1 << (32 - p.Bits())
}

// going is what is told of a network until no host has a part in it any more, which is no problem.
const going = "it is being removed"

// info is a network as it is told.
func (in *inside) info(s address.Space, nick nicknames) control.NetworkInfo {
	r := s.Record()
	info := control.NetworkInfo{
		ID: s.ID, Name: s.Name, Subnets: s.Prefixes, Encrypted: !r.Plain && in.u.conf.Password != nil, Multicast: r.Multicast, Internal: r.Internal,
		Creator: nick.of(s.Creator), Owned: map[string]float64{},
	}
	var all uint64
	for _, p := range s.Prefixes {
		all += size(p)
	}
	for _, o := range in.alloc.Owned(s.ID) {
		if o.Owner == in.records.Self() {
			info.Blocks = append(info.Blocks, o.Prefix)
		}
		if all > 0 {
			info.Owned[nick.of(o.Owner)] += float64(size(o.Prefix)) / float64(all)
		}
	}
	for _, a := range in.alloc.Addresses() {
		if a.Network == s.ID {
			info.Used++
		}
	}
	if r.Going {
		info.Error = going
	}
	for _, f := range in.followers {
		if text := f.problem(s.Name); text != "" {
			info.Error = text
		}
	}
	return info
}

// swarmInfo are the networks of Swarm as they are told.
func (in *inside) swarmInfo(nick nicknames) (infos []control.NetworkInfo) {
	all, here := in.swarmNetworks()
	names := map[string]string{}
	if known := in.swarmNames.Load(); known != nil {
		names = *known
	}
	ids := map[string]string{}
	decoded(in.records.Records(record.KindSwarm), func(r record.Record, s record.Swarm) { ids[s.ID] = r.Name })
	for _, id := range slices.Sorted(maps.Keys(all)) {
		s := all[id]
		info := control.NetworkInfo{
			ID: id, Name: cmp.Or(names[id], ids[id]), Subnets: s.Subnets, Encrypted: !s.Plain && in.u.conf.Password != nil, Multicast: s.Multicast,
			Internal: s.Internal, Creator: "Swarm", Owned: map[string]float64{},
		}
		var every uint64
		for _, p := range s.Subnets {
			every += size(p)
		}
		for _, b := range in.swarmBlocks() {
			switch {
			case b.Network != id:
				continue
			case b.Host == in.records.Self() && here[id]:
				info.Blocks = append(info.Blocks, b.Prefix)
				info.Used++
			}
			if every > 0 {
				info.Owned[nick.of(b.Host)] += float64(size(b.Prefix)) / float64(every)
			}
		}
		slices.SortFunc(info.Blocks, netip.Prefix.Compare)
		infos = append(infos, info)
	}
	return infos
}

// nicknames are what people call hosts.
type nicknames map[record.Host]string

func (in *inside) nicknames() nicknames {
	nick := nicknames{}
	for _, m := range in.u.cluster.Members() {
		nick[m.Host] = m.Nickname
	}
	return nick
}

// of returns the nickname of a host, or the begin of its identity.
func (n nicknames) of(h record.Host) string { return cmp.Or(n[h], h.Short()) }

func (in *inside) dnsInfo() control.NetworkDNS {
	c := in.dns.Stats()
	return control.NetworkDNS{
		Domain: in.u.conf.Domain, Servers: in.gateways(), Entries: in.zones.Zone().Len(),
		Answered: c.Answered, Forwarded: c.Forwarded, Failed: c.Failed, Refused: c.Refused, Dropped: c.Dropped,
	}
}

// DNS implements [control.Networks].
func (s *Service) DNS(context.Context) (control.NetworkDNS, error) {
	in, err := s.inside()
	if err != nil {
		return control.NetworkDNS{}, err
	}
	dns := in.dnsInfo()
	if len(dns.Servers) == 0 {
		return dns, fmt.Errorf("DNS: %w", in.without(firstNetwork))
	}
	dns.Servers = dns.Servers[:1]
	return dns, nil
}

// Lookup implements [control.Networks]. An empty name is all names.
func (s *Service) Lookup(_ context.Context, r control.NetworkNameRequest) (control.NetworkNames, error) {
	var out control.NetworkNames
	in, err := s.inside()
	if err != nil {
		return out, err
	}
	all, err := names.List(in.records.Records(record.KindName))
	if err != nil {
		return out, err
	}
	name := ""
	if r.Name != "" {
		var ok bool
		if name, ok = names.Relative(r.Name, []string{in.u.conf.Domain}); !ok {
			return out, errdefs.Errorf(errdefs.ErrInvalid, "name %q: DNS cannot carry it", r.Name)
		}
	}
	networks, nick := map[string]string{}, in.nicknames()
	for _, s := range in.alloc.Networks() {
		networks[s.ID] = s.Name
	}
	for _, n := range in.swarmInfo(nick) {
		networks[n.ID] = n.Name
	}
	for _, k := range all {
		if name != "" && k.Name != name {
			continue
		}
		out.Names = append(out.Names, control.NetworkName{
			Name: k.Name, Addresses: k.Addresses, Container: k.Container, Network: networks[k.Network], Peer: nick.of(k.Host),
			Reachable: in.u.cluster.Reachable(k.Host),
		})
	}
	if name != "" && len(out.Names) == 0 {
		return out, errdefs.Errorf(errdefs.ErrNotFound, "name %q: nobody has it", r.Name)
	}
	return out, nil
}

// listening is where other hosts dial this one.
func (s saved) listening(u *up) []netip.AddrPort {
	m, err := u.member()
	if err != nil {
		_, port, _ := net.SplitHostPort(s.Listen) // it was checked
		number, _ := strconv.ParseUint(port, 10, 16)
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(number))}
	}
	return m.Control
}
