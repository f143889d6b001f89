package kernel

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// usualUplink is the MTU that is assumed where no way to anybody is known.
const usualUplink = 1500

// Underlay looks at the network below: the MTU of the link that leads to peers, and which of them are reached with
// no router between.
func Underlay(peers []netip.Addr) (uplink int, onLink map[netip.Addr]string, err error) {
	k := &work{}
	if err := k.refresh(); err != nil {
		return 0, nil, err
	}
	addrs, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, nil, fmt.Errorf("addresses: %w", err)
	}
	onLink = map[netip.Addr]string{}
	note := func(index int) {
		if l := k.byIndex[index]; l != nil && !strings.HasPrefix(l.Attrs().Name, plan.Prefix) && l.Attrs().Name != "lo" {
			if uplink == 0 || l.Attrs().MTU < uplink {
				uplink = l.Attrs().MTU
			}
		}
	}
	for _, a := range addrs {
		p, l := toPrefix(a.IPNet), k.byIndex[a.LinkIndex]
		if l == nil || p.IsSingleIP() || p.Addr().IsLoopback() || strings.HasPrefix(l.Attrs().Name, plan.Prefix) {
			continue
		}
		for _, peer := range peers {
			if p.Contains(peer) && p.Addr() != peer {
				onLink[peer] = l.Attrs().Name
				note(a.LinkIndex)
			}
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := retry(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
		if err != nil {
			return 0, nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil || toPrefix(r.Dst).Bits() == 0 {
				note(r.LinkIndex)
			}
		}
	}
	if uplink == 0 {
		uplink = usualUplink
	}
	return uplink, onLink, nil
}
