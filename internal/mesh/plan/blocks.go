package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// resolve takes the blocks of networks that exist apart, so that none lies within another: the smaller one
// has its addresses. Of two hosts that own the same the lower one does.
func (c *compute) resolve() {
	c.nets = map[string]record.Network{}
	for _, n := range c.Networks {
		c.nets[n.ID] = n
		for _, s := range n.Subnets {
			c.hasV6 = c.hasV6 || s.Addr().Is6()
		}
	}
	c.IPv6 = c.hasV6
	var sorted []Block
	for _, b := range c.Input.Blocks {
		n, ok := c.nets[b.Network]
		_, member := c.Members[b.Host]
		if ok && member && slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return covers(s, b.Prefix) }) {
			sorted = append(sorted, b)
		}
	}
	slices.SortFunc(sorted, func(a, b Block) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), a.Host.Compare(b.Host))
	})
	for i, b := range sorted {
		if i > 0 && sorted[i-1].Prefix == b.Prefix {
			if sorted[i-1].Host != b.Host {
				c.Problems = append(c.Problems, fmt.Sprintf("block %s: owned by two hosts, %s and %s", b.Prefix, c.name(sorted[i-1].Host), c.name(b.Host)))
			}
			continue
		}
		var holes []netip.Prefix
		for _, o := range sorted[i+1:] {
			if !covers(b.Prefix, o.Prefix) {
				break
			}
			if o.Prefix != b.Prefix {
				holes = append(holes, o.Prefix)
			}
		}
		for _, p := range carve(b.Prefix, holes) {
			c.blocks = append(c.blocks, Block{b.Network, p, b.Host})
		}
	}
}

func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

// carve returns what is left of p without the holes, in order.
func carve(p netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	touched := false
	for _, h := range holes {
		if covers(h, p) {
			return nil
		}
		touched = touched || covers(p, h)
	}
	if !touched {
		return []netip.Prefix{p}
	}
	low, high := halves(p)
	return append(carve(low, holes), carve(high, holes)...)
}

func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits()
	b := p.Addr().AsSlice()
	b[bits/8] |= 0x80 >> (bits % 8)
	addr, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(p.Addr(), bits+1), netip.PrefixFrom(addr, bits+1)
}

func (c *compute) name(h record.Host) string {
	if m, ok := c.Members[h]; ok && m.Nickname != "" {
		return m.Nickname
	}
	return h.Short()
}
