package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// linkLocal is the address by which containers route to their bridge in IPv6, on every network. The kernel
// answers for a whole subnet in ARP, but not in IPv6's neighbour discovery.
var linkLocal = netip.MustParsePrefix("fe80::1/64")

func (k *work) links(p plan.Plan) error {
	if err := k.refresh(); err != nil {
		return err
	}
	wanted := map[string]bool{}
	if p.Tunnel != nil {
		wanted[plan.Tunnel] = true
		if l, ok := k.byName[plan.Tunnel]; ok {
			k.quiet(plan.Tunnel)
			k.settle(l, p.TunnelMTU, "", 0, p.Self)
		}
	}
	for _, name := range p.Keep {
		wanted[name] = true
	}
	for _, b := range p.Bridges {
		wanted[b.Name] = true
		k.bridge(b)
	}
	for i, v := range p.VXLANs {
		wanted[v.Name] = true
		self := netip.Prefix{}
		if i == 0 && p.Tunnel == nil {
			self = netip.PrefixFrom(p.Self.Addr(), 128)
		}
		k.vxlan(v, self)
	}
	for name, l := range k.byName {
		if strings.HasPrefix(name, plan.Prefix) && !wanted[name] {
			if err := netlink.LinkDel(l); !errors.Is(err, unix.ENODEV) {
				k.did("remove interface "+name, err)
			}
		}
	}
	for _, l := range k.byName {
		network, ok := strings.CutPrefix(l.Attrs().Alias, portAlias)
		b := k.byName[plan.BridgeName(network)]
		if ok && b != nil && l.Attrs().MasterIndex != b.Attrs().Index {
			k.did("port "+l.Attrs().Name, netlink.LinkSetMasterByIndex(l, b.Attrs().Index))
		}
	}
	return nil
}

// make returns the link of a name, made if it is not there or not as it must be made.
func (k *work) make(want netlink.Link, fits func(netlink.Link) bool) (netlink.Link, bool) {
	name := want.Attrs().Name
	if l, ok := k.byName[name]; ok {
		if fits(l) {
			return l, true
		}
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			k.did("remove interface "+name, err)
			return nil, false
		}
	}
	err := netlink.LinkAdd(want)
	k.did("interface "+name, err)
	if err != nil {
		return nil, false
	}
	l, err := netlink.LinkByName(name)
	if err == nil && l.Type() == "bridge" { // said once more, or the bridge takes that of its ports
		err = netlink.LinkSetMTU(l, want.Attrs().MTU)
	}
	if err != nil {
		k.did("interface "+name, err)
		return nil, false
	}
	k.byName[name], k.byIndex[l.Attrs().Index] = l, l
	return l, true
}

func attrs(name string, mtu int, mac string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	a.HardwareAddr, _ = net.ParseMAC(mac)
	return a
}

func (k *work) bridge(b plan.Bridge) {
	want := &netlink.Bridge{LinkAttrs: attrs(b.Name, b.MTU, b.MAC)}
	l, ok := k.make(want, func(l netlink.Link) bool { return l.Type() == "bridge" })
	if !ok {
		return
	}
	k.quiet(b.Name)
	for key, value := range map[string]string{"proxy_arp": "1", "send_redirects": "0", "forwarding": "1"} {
		k.sysctl(value, "ipv4", "conf", b.Name, key)
	}
	k.sysctl("0", "ipv4", "neigh", b.Name, "proxy_delay")
	// Without a querier a bridge that snoops forgets who listens. Where groups are asked for there are few enough of
	// them to send to all.
	snoop := "1"
	if b.Multicast {
		snoop = "0"
	}
	k.file("/sys/class/net/"+b.Name+"/bridge/multicast_snooping", snoop)
	k.settle(l, b.MTU, b.MAC, 0, append([]netip.Prefix{linkLocal}, b.Addresses...)...)
}

func (k *work) vxlan(v plan.VXLAN, self netip.Prefix) {
	want := &netlink.Vxlan{
		LinkAttrs: attrs(v.Name, v.MTU, v.MAC), VxlanId: v.VNI, Port: int(v.Port), SrcAddr: toIP(v.Local), Learning: false,
		UDP6ZeroCSumTx: false, UDP6ZeroCSumRx: true,
	}
	if v.Local == netip.IPv4Unspecified() {
		want.SrcAddr = nil
	}
	l, ok := k.make(want, func(l netlink.Link) bool {
		have, ok := l.(*netlink.Vxlan)
		return ok && have.VxlanId == want.VxlanId && have.Port == want.Port && !have.Learning && (v.Bridge == "" || have.SrcAddr.Equal(want.SrcAddr))
	})
	if !ok {
		return
	}
	k.quiet(v.Name)
	if v.Bridge == "" {
		addrs := []netip.Prefix{netip.PrefixFrom(v.Hop, 64)}
		if self.IsValid() {
			addrs = append(addrs, self)
		}
		k.settle(l, v.MTU, v.MAC, 0, addrs...)
		return
	}
	master := 0
	if b := k.byName[v.Bridge]; b != nil {
		master = b.Attrs().Index
	}
	k.settle(l, v.MTU, v.MAC, master)
	info, err := netlink.LinkGetProtinfo(l)
	if err != nil {
		return
	}
	// Only what is for a group goes out. The rest is routed, or stays.
	if info.Learning {
		k.did("learning of "+v.Name, netlink.LinkSetLearning(l, false))
	}
	if info.Flood {
		k.did("flooding of "+v.Name, netlink.LinkSetFlood(l, false))
	}
	k.noBroadcast(v.Name)
}

// noBroadcast keeps broadcasts off a port of a bridge.
func (k *work) noBroadcast(name string) {
	k.file("/sys/class/net/"+name+"/brport/broadcast_flood", "0")
}

// quiet keeps the kernel from doing on a link what it does on those of people.
func (k *work) quiet(name string) {
	for key, value := range map[string]string{"accept_ra": "0", "autoconf": "0", "accept_dad": "0", "disable_ipv6": "0", "addr_gen_mode": "1"} {
		k.sysctl(value, "ipv6", "conf", name, key)
	}
}

// settle gives a link what can be changed while it is used.
func (k *work) settle(l netlink.Link, mtu int, mac string, master int, addrs ...netip.Prefix) {
	a := l.Attrs()
	if mtu != 0 && a.MTU != mtu {
		k.did("MTU of "+a.Name, netlink.LinkSetMTU(l, mtu))
	}
	if mac != "" && !sameMAC(a.HardwareAddr, mac) {
		hw, err := net.ParseMAC(mac)
		if err == nil {
			err = netlink.LinkSetHardwareAddr(l, hw)
		}
		k.did("MAC of "+a.Name, err)
	}
	if master != 0 && a.MasterIndex != master {
		k.did("port "+a.Name, netlink.LinkSetMasterByIndex(l, master))
	}
	if a.Flags&net.FlagUp == 0 {
		k.did("interface "+a.Name, netlink.LinkSetUp(l))
	}
	k.addresses(l, addrs)
}

func (k *work) addresses(l netlink.Link, want []netip.Prefix) {
	name := l.Attrs().Name
	list, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		k.try(fmt.Errorf("addresses of %s: %w", name, err))
		return
	}
	var have []netip.Prefix
	for _, a := range list {
		p := toPrefix(a.IPNet)
		if have = append(have, p); slices.Contains(want, p) {
			continue
		}
		// Another version's, or a network's that was moved.
		k.did("remove address "+p.String(), netlink.AddrDel(l, &netlink.Addr{IPNet: a.IPNet}))
	}
	for _, p := range want {
		if slices.Contains(have, p) {
			continue
		}
		a := &netlink.Addr{IPNet: toNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		err := netlink.AddrAdd(l, a)
		if errors.Is(err, unix.EEXIST) {
			err = nil
		}
		k.did("address "+p.String(), err)
	}
}
