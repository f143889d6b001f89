package plan

import (
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Shortcut is the way of a network's plain packets past this host's own forwarding, in one family: from the bridge
// to the hosts on a link, which may be that of a VXLAN, and from there to the containers on the bridge.
type Shortcut struct {
	Bridge string
	Link   string
	Own    []netip.Prefix // blocks of this host
	Host   []netip.Addr   // of the bridge: what is for these is for the host itself
	Ways   []Way
}

// Way is by which host on the link a block is reached.
type Way struct {
	Dst  netip.Prefix
	Via  netip.Addr
	Host record.Host
}

// shortcuts are there where packets need nothing but to be passed on: to a neighbour with an address of the same
// family, by a path that carries all that the bridge does, so that nobody has to be told of a smaller size.
func (c *compute) shortcuts() {
	if !c.FastPath {
		return
	}
	for _, b := range c.Bridges {
		for _, v6 := range []bool{false, true} {
			var links []string
			byLink := map[string]*Shortcut{}
			for _, block := range c.blocks {
				link, via, ok := c.short(b, block, v6)
				if !ok {
					continue
				}
				s := byLink[link]
				if s == nil {
					s = &Shortcut{Bridge: b.Name, Link: link, Own: c.ownBlocks(b.Network, v6)}
					for _, a := range b.Addresses {
						if a.Addr().Is6() == v6 {
							s.Host = append(s.Host, a.Addr())
						}
					}
					byLink[link], links = s, append(links, link)
				}
				s.Ways = append(s.Ways, Way{block.Prefix, via, block.Host})
				if link == VXLAN4 && !v6 {
					c.neighbour(link, via, block.Host)
				}
			}
			for _, link := range links {
				if s := byLink[link]; len(s.Own) > 0 {
					c.Shortcuts = append(c.Shortcuts, *s)
				}
			}
		}
	}
}

// short is the link and the neighbour to another host's block, if there can be a shortcut. In a VXLAN, neighbours have
// addresses of IPv6 by which blocks are routed; here they have those of their hosts too.
func (c *compute) short(b Bridge, block Block, v6 bool) (link string, via netip.Addr, ok bool) {
	if block.Network != b.Network || block.Host == c.Input.Self || block.Prefix.Addr().Is6() != v6 {
		return "", netip.Addr{}, false
	}
	p, ok := c.way(c.nets[block.Network], block.Host)
	switch {
	case !ok || p.MTU < b.MTU:
	case p.Kind == Routed && p.Address.Is6() == v6:
		return p.Link, p.Address, true
	case p.Kind == Boxed && v6:
		return vxlanName(p.Address), hop(p.Host), true
	case p.Kind == Boxed && p.Address.Is4():
		return vxlanName(p.Address), p.Address, true
	}
	return "", netip.Addr{}, false
}

// neighbour has a host be known by its own address in a VXLAN.
func (c *compute) neighbour(link string, a netip.Addr, h record.Host) {
	n := Neighbour{link, a, mac([]byte(link), h[:])}
	if !slices.Contains(c.Neighbours, n) {
		c.Neighbours = append(c.Neighbours, n)
	}
}

// ownBlocks are those of this host in a network.
func (c *compute) ownBlocks(network string, v6 bool) (own []netip.Prefix) {
	for _, b := range c.blocks {
		if b.Network == network && b.Host == c.Input.Self && b.Prefix.Addr().Is6() == v6 {
			own = append(own, b.Prefix)
		}
	}
	return own
}
