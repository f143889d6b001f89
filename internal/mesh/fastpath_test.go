package mesh_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// fast makes three plain hosts on one link that pass packets on by shortcuts, on which all that a host forwards in
// the usual way is dropped: what arrives came by a shortcut.
func fast(t *testing.T, v6 bool, networks ...record.Network) (*lab, []*host) {
	t.Helper()
	l := newLab(t)
	addresses := []string{"10.9.0.1/24", "10.9.0.2/24", "10.9.0.3/24"}
	if v6 {
		addresses = []string{"2001:db8:9::1/64", "2001:db8:9::2/64", "2001:db8:9::3/64"}
	}
	var hosts []*host
	for i, name := range []string{"a", "b", "c"} {
		h := l.lan(name, addresses[i])
		h.member.TunnelKey, h.config.Private, h.config.FastPath = nil, [32]byte{}, true
		l.strict(h)
		hosts = append(hosts, h)
	}
	l.tell(networks)
	l.start()
	return l, hosts
}

func (l *lab) strict(h *host) {
	l.t.Helper()
	l.in(h.ns, "nft add table inet strict")
	l.in(h.ns, "nft add chain inet strict forward { type filter hook forward priority -10 ; policy drop ; }")
}

func only4(n record.Network) record.Network { n.Subnets = n.Subnets[:1]; return n }
func only6(n record.Network) record.Network { n.Subnets = n.Subnets[1:]; return n }

// TestFastPath: plain packets between neighbours pass without the host's firewall, those of one network alone, and
// what shortcuts need is put back.
func TestFastPath(t *testing.T) {
	blue := only4(blue)
	l, hosts := fast(t, false, blue, red)
	a, b, c := hosts[0], hosts[1], hosts[2]
	a1, b1, c1, ra, rb := a.box(blue), b.box(blue), c.box(blue), a.box(red), b.box(red)
	for _, from := range []box{a1, b1, c1} {
		for _, to := range []box{a1, b1, c1} {
			from.reach(to)
		}
		if from.pings(rb.addrs[0], 2) {
			t.Error("networks reach each other")
		}
	}
	ra.reach(rb)
	if !b1.pings(bridgeAddresses(blue, 0)[0].Addr(), 20) {
		t.Error("the bridge of another host, which is the host itself, is not reached")
	}
	if _, err := a1.send(b1, strings.Repeat("x", 1<<16), 100); err != nil {
		t.Error(err)
	}
	for _, p := range a.status().Peers {
		if p.Transport != "route" || !p.FastPath {
			t.Errorf("%+v", p)
		}
	}

	bridge := plan.BridgeName(blue.ID)
	for _, breaks := range []string{"nft delete table netdev remora", "nft flush table netdev remora", "nft insert rule netdev remora from-eth0 drop", "ip link del " + bridge} {
		before := a.status().Repairs
		l.in(a.ns, breaks)
		eventually(t, 5*time.Second, "repairs after: "+breaks, func() bool { return a.status().Repairs > before })
		a1.reach(b1)
		b1.reach(a1)
		c1.reach(a1)
	}

	// A daemon that is killed leaves them, and one that is to have none takes them away.
	a.end()
	a1.reach(b1)
	a.config.FastPath = false
	a.start()
	eventually(t, 5*time.Second, "the shortcuts are gone", func() bool { return !strings.Contains(l.in(a.ns, "nft list ruleset"), "netdev remora") })
	if a1.pings(b1.addrs[0], 2) {
		t.Error("packets pass a firewall that drops them all")
	}
	l.in(a.ns, "nft delete table inet strict")
	a1.reach(b1)
	c1.reach(a1)
	b.must(order{Verb: "reset"})
	if out := l.in(b.ns, "nft list ruleset"); strings.Contains(out, "remora") {
		t.Errorf("after a reset:\n%s", out)
	}
}

// TestFastPath6 is the same for IPv6, which needs an underlay of its family.
func TestFastPath6(t *testing.T) {
	l, hosts := fast(t, true, only6(blue))
	a1, b1, c1 := hosts[0].box(only6(blue)), hosts[1].box(only6(blue)), hosts[2].box(only6(blue))
	a1.reach(b1)
	b1.reach(c1)
	c1.reach(a1)
	l.in(hosts[0].ns, "nft flush table netdev remora")
	a1.reach(b1)
	if s := hosts[0].status(); len(s.Problems) > 0 {
		t.Errorf("%q", s.Problems)
	}
}

// TestFastPathBoxed: the same through a VXLAN, where a host is behind a router, for both families of containers.
func TestFastPathBoxed(t *testing.T) {
	l := newLab(t)
	hosts := []*host{l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24"), l.behind("c", "10.7.0.1/24", "10.7.0.254/24")}
	for _, h := range hosts {
		h.member.TunnelKey, h.config.Private, h.config.FastPath = nil, [32]byte{}, true
		if h.name != "c" {
			l.ip(h.ns, "route add default via 10.9.0.254")
		}
		l.strict(h)
	}
	l.tell([]record.Network{blue})
	l.start()
	a1, b1, c1 := hosts[0].box(blue), hosts[1].box(blue), hosts[2].box(blue)
	a1.reach(b1)
	b1.reach(c1)
	c1.reach(a1)
	if _, err := a1.send(c1, strings.Repeat("x", 1<<16), 100); err != nil {
		t.Error(err)
	}
	for _, p := range hosts[0].status().Peers {
		if p.Transport != "vxlan" || !p.FastPath {
			t.Errorf("%+v", p)
		}
	}
	before := hosts[0].status().Repairs
	l.ip(hosts[0].ns, "neigh flush dev rm-vx4 nud permanent")
	l.in(hosts[0].ns, "nft delete table netdev remora")
	eventually(t, 5*time.Second, "repairs", func() bool { return hosts[0].status().Repairs > before })
	a1.reach(c1)
	a1.reach(b1)
}

// TestFastPathTakes: what a host has to look at itself, or to refuse, does not go by a shortcut.
func TestFastPathTakes(t *testing.T) {
	blue := only4(blue)
	l, hosts := fast(t, false, blue)
	a, b := hosts[0], hosts[1]
	a1, b1 := a.box(blue), b.box(blue)
	a1.reach(b1)
	for name, c := range map[string]struct {
		option, value int
		want          bool
	}{
		"as it comes":          {unix.IP_TTL, 64, true},
		"three hops left":      {unix.IP_TTL, 3, true},
		"none left at the end": {unix.IP_TTL, 2, false},
		"none left":            {unix.IP_TTL, 1, false},
	} {
		if got := a1.hears(t, 5008, func() { b1.with(t, a1.addrs[0], 5008, c.option, c.value) }); got != c.want {
			t.Errorf("%s: arrived %v", name, got)
		}
	}
	l.ip(b1.ns, "addr add 10.40.2.99/32 dev lo")
	if a1.hears(t, 5008, func() { b1.datagram(t, netip.MustParseAddr("10.40.2.99"), a1.addrs[0], 5008) }) {
		t.Error("a packet with the address of another host's block arrived")
	}
	// A VLAN of the link is another link.
	mac, err := net.ParseMAC(strings.TrimSpace(l.in(a.ns, "cat /sys/class/net/eth0/address")))
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]bool{"\x81\x00\x00\x05": false, "": true} {
		frame := string(mac) + "\x02\x00\x00\x00\x00\x01" + tag + "\x08\x00" + string(datagram(b1.addrs[0], a1.addrs[0], 5008))
		if got := a1.hears(t, 5008, func() { b.puts(t, []byte(frame)) }); got != want {
			t.Errorf("with the tag %x: arrived %v", tag, got)
		}
	}
}

// datagram is one of UDP with its headers.
func datagram(from, to netip.Addr, port uint16) []byte {
	b := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, port)
	return append(b, 0, 9, 0, 0, 'x') // of nine bytes, without a checksum
}

// puts puts a frame on the link between the hosts.
func (h *host) puts(t *testing.T, frame []byte) {
	t.Helper()
	inside(t, h.ns, func() {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
			t.Error(err)
		}
	})
}

// with sends a datagram with an option of IP.
func (b box) with(t *testing.T, to netip.Addr, port, option, value int) {
	t.Helper()
	inside(t, b.ns, func() {
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: to.AsSlice(), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, option, value) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if _, err := c.Write([]byte("a datagram")); err != nil {
			t.Error(err)
		}
	})
}
