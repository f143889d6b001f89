package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

// way is the path that packets of a network take to a host.
func (c *compute) way(network record.Network, h record.Host) (Path, bool) {
	if p, ok := c.plain[h]; ok && network.Plain {
		return p, true
	}
	p, ok := c.path[h]
	return p, ok && p.Kind != None
}

// boxed are the hosts that are reached over VXLAN for anything, in order: those with a plain path, for their
// inner addresses lie there even where blocks are routed.
func (c *compute) boxed() (paths []Path) {
	plainNet := slices.ContainsFunc(c.Networks, func(n record.Network) bool { return n.Plain })
	for _, p := range c.Paths {
		if p.Kind == Routed || p.Kind == Boxed {
			paths = append(paths, p)
		} else if q, ok := c.plain[p.Host]; ok && plainNet {
			paths = append(paths, q)
		}
	}
	return paths
}

func vxlanName(a netip.Addr) string {
	if a.Is4() {
		return VXLAN4
	}
	return VXLAN6
}

func (c *compute) links() {
	self := c.Input.Self
	for _, p := range c.boxed() {
		name := vxlanName(p.Address)
		if !slices.ContainsFunc(c.VXLANs, func(v VXLAN) bool { return v.Name == name }) {
			v := VXLAN{Name: name, VNI: routedVNI, Port: c.VXLANPort, MAC: mac([]byte(name), self[:]), Hop: hop(self)}
			v.MTU, v.Local = max(floor6, c.Facts.Uplink-vxlan4Overhead), netip.IPv4Unspecified()
			if p.Address.Is6() {
				v.MTU, v.Local = max(floor6, c.Facts.Uplink-vxlan6Overhead), netip.IPv6Unspecified()
			}
			c.VXLANs = append(c.VXLANs, v)
		}
		theirs := mac([]byte(name), p.Host[:])
		c.Neighbours = append(c.Neighbours, Neighbour{name, hop(p.Host), theirs})
		c.FDB = append(c.FDB, FDB{name, theirs, p.Address})
		if c.path[p.Host].Kind != Sealed {
			c.Routes = append(c.Routes, Route{Dst: netip.PrefixFrom(p.Inner, 128), Link: name, Via: hop(p.Host), Src: Inner(self)})
		}
	}
}

func (c *compute) bridges() {
	self := c.Input.Self
	for _, a := range c.Attached {
		n, ok := c.nets[a.Network]
		if !ok {
			c.Keep = append(c.Keep, BridgeName(a.Network))
			c.Problems = append(c.Problems, fmt.Sprintf("network %s: this host is attached to it, and no host tells of it", a.Network))
			continue
		}
		b := Bridge{Name: BridgeName(n.ID), Network: n.ID, Addresses: a.Addresses, Multicast: n.Multicast, MTU: n.MTU}
		if b.MTU == 0 {
			b.MTU = c.usualMTU()
		}
		b.MAC = mac([]byte(b.Name), self[:])
		c.Bridges = append(c.Bridges, b)
		if n.Multicast {
			v := VXLAN{Name: multicast + short(n.ID), VNI: vni(n.ID), Port: c.VXLANPort, Bridge: b.Name, MTU: b.MTU, Local: Inner(self)}
			v.MAC = mac([]byte(v.Name), self[:])
			c.VXLANs = append(c.VXLANs, v)
			for _, h := range c.sharers(n.ID) {
				c.FDB = append(c.FDB, FDB{v.Name, "00:00:00:00:00:00", Inner(h)})
			}
		}
	}
}

// usualMTU is that of a network for which none was chosen: what fits the narrowest kind of path there is, so
// that containers seldom have to be told.
func (c *compute) usualMTU() int {
	if c.self.TunnelKey != nil {
		return TunnelMTU(c.Facts.Uplink)
	}
	return max(floor6, c.Facts.Uplink-vxlan4Overhead)
}

// sharers are the other hosts that own addresses of a network and can be reached.
func (c *compute) sharers(network string) (hosts []record.Host) {
	for _, b := range c.blocks {
		if b.Network != network || b.Host == c.Input.Self || slices.Contains(hosts, b.Host) {
			continue
		}
		if p, ok := c.path[b.Host]; ok && p.Kind != None {
			hosts = append(hosts, b.Host)
		}
	}
	slices.SortFunc(hosts, record.Host.Compare)
	return hosts
}

// ways are the routes, one for each block of another host.
func (c *compute) ways() {
	for _, b := range c.blocks {
		if b.Host == c.Input.Self {
			continue
		}
		n := c.nets[b.Network]
		p, ok := c.way(n, b.Host)
		if !ok {
			continue
		}
		r := Route{Dst: b.Prefix, MTU: p.MTU, Src: c.source(b)}
		if n.MTU != 0 {
			r.MTU = min(r.MTU, n.MTU)
		}
		if b.Prefix.Addr().Is6() {
			r.MTU = max(r.MTU, floor6)
		}
		switch p.Kind {
		case Sealed:
			r.Link = Tunnel
		case Boxed:
			r.Link, r.Via = vxlanName(p.Address), hop(p.Host)
		case Routed:
			r.Link, r.Via = p.Link, p.Address
		}
		c.Routes = append(c.Routes, r)
	}
}

// source is the address of this host in the network of a block.
func (c *compute) source(b Block) netip.Addr {
	for _, a := range c.Attached {
		if a.Network != b.Network {
			continue
		}
		for _, p := range a.Addresses {
			if p.Addr().Is4() == b.Prefix.Addr().Is4() {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}

// tunnel is the device and its peers. A peer may send from the blocks that it owns and from those that come
// through it, and from no other address: what somebody forges the kernel drops.
func (c *compute) tunnel() {
	if c.self.TunnelKey == nil {
		return
	}
	c.TunnelMTU = TunnelMTU(c.Facts.Uplink)
	t := &tunnel.Config{Private: c.Private, Port: c.TunnelPort, Peers: map[tunnel.Key]tunnel.Peer{}}
	allowed := map[record.Host][]netip.Prefix{}
	for _, b := range c.blocks {
		p, ok := c.way(c.nets[b.Network], b.Host)
		if !ok || p.Kind != Sealed {
			continue
		}
		to := b.Host
		if !p.Via.IsZero() {
			to = p.Via
		}
		allowed[to] = append(allowed[to], b.Prefix)
	}
	for _, p := range c.Paths {
		if p.Kind != Sealed {
			continue
		}
		peer := tunnel.Peer{Shared: pairKey(c.Secret, c.Input.Self, p.Host), Endpoint: p.Endpoint}
		peer.Allowed = append(allowed[p.Host], netip.PrefixFrom(p.Inner, 128))
		slices.SortFunc(peer.Allowed, netip.Prefix.Compare)
		if len(c.self.Control) == 0 {
			peer.Keepalive = Keepalive * time.Second
		}
		if _, twice := t.Peers[p.Key]; twice {
			c.Problems = append(c.Problems, fmt.Sprintf("host %s: has the tunnel key of another host", p.Nickname))
			continue
		}
		t.Peers[p.Key] = peer
	}
	c.Plan.Tunnel = t
}

func (c *compute) rules() {
	c.Rules.VXLANPort = c.VXLANPort
	for _, p := range c.boxed() {
		c.Rules.Senders = append(c.Rules.Senders, own(c.Members[p.Host])...)
	}
	slices.SortFunc(c.Rules.Senders, netip.Addr.Compare)
	c.Rules.Senders = slices.Compact(c.Rules.Senders)
	attached := map[string]Attachment{}
	for _, a := range c.Attached {
		attached[a.Network] = a
		for _, p := range a.Addresses {
			c.Rules.Own = append(c.Rules.Own, p.Addr())
		}
	}
	nets := slices.SortedFunc(slices.Values(c.Networks), func(a, b record.Network) int { return cmp.Compare(a.ID, b.ID) })
	for _, n := range nets {
		net := Net{Name: short(n.ID), Internal: n.Internal, Subnets: n.Subnets}
		if a, ok := attached[n.ID]; ok {
			net.Bridge, net.Exposed = BridgeName(n.ID), a.Exposed
		}
		for _, b := range c.blocks {
			if b.Network != n.ID || b.Host == c.Input.Self {
				continue
			}
			p, ok := c.way(n, b.Host)
			if ok && p.MTU < floor6 && b.Prefix.Addr().Is6() {
				c.Rules.Narrow = append(c.Rules.Narrow, b.Prefix)
			}
			switch {
			case !ok:
			case p.Kind == Sealed:
				net.Sealed = append(net.Sealed, b.Prefix)
			default:
				net.Plain = append(net.Plain, b.Prefix)
			}
		}
		c.Rules.Nets = append(c.Rules.Nets, net)
	}
}
