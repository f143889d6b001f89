package plan

import (
	"bytes"
	"cmp"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

// paths decides how each host is reached.
func (c *compute) paths() {
	c.path, c.plain = map[record.Host]Path{}, map[record.Host]Path{}
	c.endpoints = c.Endpoints()
	hosts := slices.SortedFunc(maps.Keys(c.Members), record.Host.Compare)
	for _, h := range hosts {
		if h != c.Input.Self {
			c.path[h] = c.direct(h, c.Members[h])
			if p, ok := c.plainPath(h, c.Members[h], nil); ok {
				c.plain[h] = p
			}
		}
	}
	for _, h := range hosts { // relays are direct ones
		p, ok := c.path[h]
		if !ok {
			continue
		}
		if p.Kind == Sealed && c.Facts.Down[h] {
			p = c.relayed(p)
			c.path[h] = p
		}
		c.Paths = append(c.Paths, p)
	}
}

// direct is the path without a host between. That two hosts agree on whether it is encrypted follows from
// both deciding by the records of both; one that does not want what the other wants is not spoken to in the clear.
func (c *compute) direct(h record.Host, m record.Member) Path {
	p := c.pathTo(h, m)
	sealed := c.self.TunnelKey != nil
	switch {
	case sealed != (m.TunnelKey != nil):
		p.Kind, p.Problem = None, "encrypts, which this host does not"
		if sealed {
			p.Problem = "does not encrypt, which this host does"
		}
	case !sealed:
		plain, ok := c.plainPath(h, m, nil)
		if !ok {
			plain.Problem = "has no address that this host can reach"
		}
		return plain
	default:
		both := func(a, b netip.Addr) bool {
			return trusts(c.self.Trusted, a, b) && trusts(m.Trusted, a, b)
		}
		if plain, ok := c.plainPath(h, m, both); ok {
			return plain
		}
		p.Kind, p.Key = Sealed, tunnel.Key(*m.TunnelKey)
		if all := c.endpoints[h]; len(all) > 0 {
			p.Endpoint = all[max(0, slices.Index(all, c.Facts.Endpoint[h]))]
		}
		p.MTU = c.fits(h, TunnelMTU(c.Facts.Uplink))
	}
	return p
}

// Endpoints are the addresses at which the tunnel of each host may be reached: those that it says itself, and those from
// which others see its packets come. For one behind NAT there are but these.
func (in Input) Endpoints() map[record.Host][]netip.AddrPort {
	all := map[record.Host][]netip.AddrPort{}
	for h, m := range in.Members {
		all[h] = slices.Clone(m.Tunnel)
	}
	for _, from := range slices.SortedFunc(maps.Keys(in.Links), record.Host.Compare) {
		for _, l := range in.Links[from].Links {
			if l.Tunnel.IsValid() && !slices.Contains(all[l.Host], l.Tunnel) {
				all[l.Host] = append(all[l.Host], l.Tunnel)
			}
		}
	}
	return all
}

func (c *compute) pathTo(h record.Host, m record.Member) Path {
	return Path{Host: h, Nickname: m.Nickname, Kind: None, Inner: Inner(h)}
}

// plainPath is that between two addresses that are the hosts' own, and that pass the test if there is one.
func (c *compute) plainPath(h record.Host, m record.Member, test func(mine, theirs netip.Addr) bool) (Path, bool) {
	p := c.pathTo(h, m)
	for _, mine := range own(c.self) {
		for _, theirs := range own(m) {
			if mine.Is4() != theirs.Is4() || test != nil && !test(mine, theirs) {
				continue
			}
			_, near := c.Facts.OnLink[theirs]
			_, nearer := c.Facts.OnLink[p.Address]
			if !p.Address.IsValid() || near && !nearer {
				p.Address = theirs
			}
		}
	}
	if !p.Address.IsValid() {
		return p, false
	}
	p.Kind, p.MTU = Boxed, c.Facts.Uplink-vxlan4Overhead
	if p.Address.Is6() {
		p.MTU = c.Facts.Uplink - vxlan6Overhead
	}
	// A block of IPv6 cannot be routed by an address of IPv4. The other host sees the same
	// networks, and decides the same.
	if link, ok := c.Facts.OnLink[p.Address]; ok && (p.Address.Is6() || !c.hasV6) {
		p.Kind, p.Link, p.MTU = Routed, link, c.Facts.Uplink
	}
	p.MTU = c.fits(h, p.MTU)
	return p, true
}

// own are the addresses of a host's tunnel that are its own, not those of a router before it: where it
// can be dialled as well.
func own(m record.Member) (addrs []netip.Addr) {
	for _, t := range m.Tunnel {
		if slices.ContainsFunc(m.Control, func(d netip.AddrPort) bool { return d.Addr() == t.Addr() }) {
			addrs = append(addrs, t.Addr().Unmap())
		}
	}
	return addrs
}

func trusts(subnets []netip.Prefix, a, b netip.Addr) bool {
	return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) && s.Contains(b) })
}

// TunnelMTU is that of the tunnel over a link: 20 or 40 bytes are IP's, 8 UDP's, 32 WireGuard's.
func TunnelMTU(uplink int) int { return max(floor6, uplink-80) }

func (c *compute) fits(h record.Host, most int) int {
	if found := c.Facts.MTU[h]; found != 0 {
		most = min(most, found)
	}
	return max(Floor, most)
}

// relayed finds a host that reaches both. Both ends have to choose the same, or what comes from the one is not
// taken by the other: so they choose by what the hosts in question say, near ones first but without regard to
// small differences, and among these by a hash that spreads pairs over relays.
func (c *compute) relayed(p Path) Path {
	type candidate struct {
		host  record.Host
		far   int
		order []byte
		mtu   int
	}
	var all []candidate
	low, high := c.Input.Self, p.Host
	if low.Compare(high) > 0 {
		low, high = high, low
	}
	for h, links := range c.Links {
		way, ok := c.path[h]
		if h == c.Input.Self || h == p.Host || !ok || way.Kind != Sealed || !way.Via.IsZero() || c.Facts.Down[h] {
			continue
		}
		one := candidate{host: h, mtu: way.MTU}
		var both time.Duration
		seen := 0
		for _, l := range links.Links {
			if (l.Host == c.Input.Self || l.Host == p.Host) && l.Tunnel.IsValid() {
				seen++
				both += l.RTT
			}
			if l.Host == p.Host && l.MTU != 0 {
				one.mtu = min(one.mtu, l.MTU)
			}
		}
		if seen != 2 {
			continue
		}
		sum := digest("relay", low[:], high[:], h[:])
		one.far, one.order = bits.Len64(uint64(both/(4*time.Millisecond))), sum[:]
		all = append(all, one)
	}
	if len(all) == 0 {
		p.Problem = "does not answer, and no host reaches both"
		return p
	}
	best := slices.MinFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.far, b.far), bytes.Compare(a.order, b.order)) })
	p.Via, p.MTU = best.host, max(Floor, best.mtu)
	return p
}
