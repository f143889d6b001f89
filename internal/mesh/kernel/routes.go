package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// metric is that of our routes. A route of somebody else to the same place has another, so that neither
// replaces the other.
const metric = 82

// routes brings our routes to what is wanted. New ones come before old ones go.
func (k *work) routes(want []plan.Route) error {
	if err := k.refresh(); err != nil {
		return err
	}
	have := map[netip.Prefix]netlink.Route{}
	list, err := retry(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: Protocol, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range list {
		have[toPrefix(r.Dst)] = r
	}
	for _, w := range want {
		link, ok := k.byName[w.Link]
		if !ok {
			k.try(fmt.Errorf("route %s: no interface %q", w.Dst, w.Link))
			continue
		}
		old, ok := have[w.Dst]
		delete(have, w.Dst)
		if ok && old.LinkIndex == link.Attrs().Index && old.MTU == w.MTU && via(old) == w.Via && toAddr(old.Src) == w.Src && old.Priority == metric {
			continue
		}
		r := &netlink.Route{
			Dst: toNet(w.Dst), LinkIndex: link.Attrs().Index, Protocol: Protocol, Table: unix.RT_TABLE_MAIN, Priority: metric, MTU: w.MTU, Src: toIP(w.Src),
		}
		switch {
		case !w.Via.IsValid():
			r.Scope = netlink.SCOPE_LINK
		case w.Via.Is6() && w.Dst.Addr().Is4():
			r.Via, r.Flags = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: w.Via.AsSlice()}, int(netlink.FLAG_ONLINK)
		default:
			r.Gw, r.Flags = w.Via.AsSlice(), int(netlink.FLAG_ONLINK)
		}
		if w.Dst.Addr().Is6() {
			r.Scope = netlink.SCOPE_UNIVERSE
			if ok { // or it would be one more way to the same place
				_ = netlink.RouteDel(&old)
			}
		}
		k.did("route "+w.Dst.String(), netlink.RouteReplace(r))
	}
	for dst, r := range have {
		err := netlink.RouteDel(&r)
		if errors.Is(err, unix.ESRCH) {
			err = nil
		}
		k.did("remove route "+dst.String(), err)
	}
	return nil
}

func via(r netlink.Route) netip.Addr {
	if v, ok := r.Via.(*netlink.Via); ok {
		return toAddr(v.Addr)
	}
	return toAddr(r.Gw)
}

// neighbours are permanent: the MAC of a host follows from its identity, so nobody has to ask.
func (k *work) neighbours(p plan.Plan) error {
	type key struct {
		link int
		addr netip.Addr
	}
	want := map[key]string{}
	for _, n := range p.Neighbours {
		if l := k.byName[n.Link]; l != nil {
			want[key{l.Attrs().Index, n.Addr}] = n.MAC
		}
	}
	for _, name := range []string{plan.VXLAN4, plan.VXLAN6} {
		l := k.byName[name]
		if l == nil {
			continue
		}
		list, err := retry(func() ([]netlink.Neigh, error) {
			four, err4 := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V4)
			six, err6 := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V6)
			return slices.Concat(four, six), errors.Join(err4, err6)
		})
		if err != nil {
			return fmt.Errorf("neighbours of %s: %w", name, err)
		}
		for _, n := range list {
			at := key{n.LinkIndex, toAddr(n.IP)}
			if mac, ok := want[at]; ok && sameMAC(n.HardwareAddr, mac) && n.State&netlink.NUD_PERMANENT != 0 {
				delete(want, at)
			} else if !ok && n.State&netlink.NUD_PERMANENT != 0 {
				k.did("remove neighbour", netlink.NeighDel(&n))
			}
		}
	}
	for at, mac := range want {
		hw, err := net.ParseMAC(mac)
		if err == nil {
			family := netlink.FAMILY_V6
			if at.addr.Is4() {
				family = netlink.FAMILY_V4
			}
			err = netlink.NeighSet(&netlink.Neigh{LinkIndex: at.link, Family: family, State: netlink.NUD_PERMANENT, IP: at.addr.AsSlice(), HardwareAddr: hw})
		}
		k.did("neighbour "+at.addr.String(), err)
	}
	return nil
}

// fdb says where VXLAN sends: one entry a host, or a group's receivers.
func (k *work) fdb(p plan.Plan) error {
	type key struct {
		mac    string
		remote netip.Addr
	}
	for _, v := range p.VXLANs {
		l := k.byName[v.Name]
		if l == nil {
			continue
		}
		want := map[key]bool{}
		for _, f := range p.FDB {
			if f.Link == v.Name {
				want[key{f.MAC, f.Remote}] = true
			}
		}
		list, err := retry(func() ([]netlink.Neigh, error) { return netlink.NeighList(l.Attrs().Index, unix.AF_BRIDGE) })
		if err != nil {
			return fmt.Errorf("forwarding of %s: %w", v.Name, err)
		}
		for _, n := range list {
			if n.Flags&netlink.NTF_SELF == 0 || n.IP == nil {
				continue
			}
			at := key{n.HardwareAddr.String(), toAddr(n.IP)}
			if want[at] {
				delete(want, at)
				continue
			}
			n.Family, n.LinkIndex = unix.AF_BRIDGE, l.Attrs().Index
			k.did("remove forwarding of "+v.Name, netlink.NeighDel(&n))
		}
		for at := range want {
			hw, err := net.ParseMAC(at.mac)
			n := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP, IP: at.remote.AsSlice(), HardwareAddr: hw}
			if err == nil {
				err = netlink.NeighAppend(n)
			}
			k.did("forwarding of "+v.Name, err)
		}
	}
	return nil
}

// file is sysctl for any file.
func (k *work) file(path, value string) {
	now, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(now)) == value {
		return
	}
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0o644)
	}
	k.did(path, err)
}
