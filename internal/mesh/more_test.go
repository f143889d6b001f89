package mesh_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestMulticast: in a network that asks for it groups are heard on all hosts, and in others they are not.
func TestMulticast(t *testing.T) {
	for name, change := range map[string]func(*host){
		"encrypted": func(*host) {},
		"plain":     func(h *host) { h.member.TunnelKey, h.config.Private = nil, [32]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			hosts := []*host{l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24"), l.lan("c", "10.9.0.3/24")}
			for _, h := range hosts {
				change(h)
			}
			groups := blue
			groups.Multicast = true
			l.tell([]record.Network{groups, red})
			l.start()
			var boxes, others []box
			for _, h := range hosts {
				boxes, others = append(boxes, h.box(groups)), append(others, h.box(red))
			}
			boxes[0].reach(boxes[1])
			boxes[0].reach(boxes[2])
			others[0].reach(others[1])
			if !boxes[0].heard(boxes[1], 40) || !boxes[2].heard(boxes[0], 40) {
				t.Error("a group is not heard elsewhere")
			}
			if others[0].heard(others[1], 3) || boxes[0].heard(others[1], 3) {
				t.Error("a group is heard where it was not asked for")
			}
			boxes[0].reach(boxes[1])
			for _, h := range hosts {
				if s := h.status(); s.Repairs > 0 || len(s.Problems) > 0 {
					t.Errorf("%s: %+v\n%s", h.name, s, h.stderr.Bytes())
				}
			}
		})
	}
}

// heard sends to a group, up to n times, and reports whether the other box hears it.
func (b box) heard(by box, n int) bool {
	t := b.lab.t
	t.Helper()
	group := &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 5007}
	var in, out *net.UDPConn
	var errs [3]error
	inside(t, by.ns, func() {
		var eth0 *net.Interface
		if eth0, errs[0] = net.InterfaceByName("eth0"); errs[0] == nil {
			in, errs[1] = net.ListenMulticastUDP("udp4", eth0, group)
		}
	})
	inside(t, b.ns, func() { out, errs[2] = net.DialUDP("udp4", &net.UDPAddr{IP: b.addrs[0].AsSlice()}, group) })
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	defer in.Close()
	defer out.Close()
	buf := make([]byte, 100)
	for range n {
		if _, err := out.Write([]byte("hear me")); err != nil {
			t.Fatal(err)
		}
		_ = in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if k, err := in.Read(buf); err == nil && string(buf[:k]) == "hear me" {
			return true
		}
	}
	return false
}

// TestUnderlay6: the network below has IPv6 alone, and the containers have both.
func TestUnderlay6(t *testing.T) {
	for name, change := range map[string]func(*host){
		"encrypted": func(*host) {},
		"plain":     func(h *host) { h.member.TunnelKey, h.config.Private = nil, [32]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.sysctl(l.router, "net.ipv6.conf.all.forwarding=1")
			l.ip(l.router, "addr add 2001:db8:9::fe/64 dev br0 nodad")
			hosts := []*host{l.lan("a", "2001:db8:9::1/64"), l.lan("b", "2001:db8:9::2/64"), l.behind("c", "2001:db8:7::1/64", "2001:db8:7::fe/64")}
			for _, h := range hosts {
				if change(h); h.name != "c" {
					l.ip(h.ns, "route add default via 2001:db8:9::fe")
				}
			}
			l.tell([]record.Network{blue})
			l.start()
			a1, b1, c1 := hosts[0].box(blue), hosts[1].box(blue), hosts[2].box(blue)
			a1.reach(b1)
			b1.reach(c1)
			c1.reach(a1)
			if secret := l.secretly(a1, b1) && l.secretly(a1, c1); secret != (name == "encrypted") {
				t.Errorf("%s, but not seen on the way: %v", name, secret)
			}
			want := map[string]string{"b": "route", "c": "vxlan"}
			for _, p := range hosts[0].status().Peers {
				if name == "plain" && p.Transport != want[p.Nickname] || p.Encrypted != (name == "encrypted") {
					t.Errorf("%+v", p)
				}
			}
			for _, h := range hosts {
				if s := h.status(); s.Repairs > 0 || len(s.Problems) > 0 {
					t.Errorf("%s: %+v\n%s", h.name, s, h.stderr.Bytes())
				}
			}
		})
	}
}

// TestForged: what says that it comes from a network, and does not, goes nowhere.
func TestForged(t *testing.T) {
	l, _, _, a1, b1 := pair(t)
	rogue := l.lan("x", "10.9.0.66/24") // not told to anybody
	l.hosts = l.hosts[:2]
	for _, r := range []string{"route add 10.40.0.0/24 via 10.9.0.1", "addr add 10.40.1.2/32 dev lo"} {
		l.ip(rogue.ns, r)
	}
	forger := box{lab: l, ns: rogue.ns, addrs: []netip.Addr{netip.MustParseAddr("10.40.1.2")}}
	if a1.hears(t, 5008, func() { forger.datagram(t, forger.addrs[0], a1.addrs[0], 5008) }) {
		t.Error("a packet from the link below reached a container, as if from its network")
	}
	// In a container: the address of one on the other host.
	l.ip(b1.ns, "addr add 10.40.0.99/32 dev lo")
	if a1.hears(t, 5008, func() { b1.datagram(t, netip.MustParseAddr("10.40.0.99"), a1.addrs[0], 5008) }) {
		t.Error("a packet with the address of another host's block reached a container")
	}
	// It is not that nothing is ever heard.
	if !a1.hears(t, 5008, func() { b1.datagram(t, b1.addrs[0], a1.addrs[0], 5008) }) {
		t.Error("nothing is heard")
	}
}

// TestInternal: containers of a network reach what is outside by the host's own rules, those of an internal one do not,
// and from outside nobody reaches either.
func TestInternal(t *testing.T) {
	for _, internal := range []bool{false, true} {
		t.Run(fmt.Sprintf("internal=%v", internal), func(t *testing.T) {
			l := newLab(t)
			a := l.lan("a", "10.9.0.1/24")
			n := red
			n.Internal = internal
			l.tell([]record.Network{n})
			l.start()
			a1 := a.box(n)
			l.ip(l.router, "route add 10.41.0.0/24 via 10.9.0.1")
			outside := box{lab: l, ns: l.router, addrs: []netip.Addr{netip.MustParseAddr("10.9.0.254")}}
			if a1.pings(outside.addrs[0], 3) == internal {
				t.Errorf("reaches what is outside: %v", !internal)
			}
			if outside.pings(a1.addrs[0], 2) {
				t.Error("is reached from outside")
			}
			if !(box{lab: l, ns: a.ns}).pings(a1.addrs[0], 3) {
				t.Error("the host does not reach its own container")
			}
		})
	}
}

// TestRemoveNetwork takes one network away and leaves the other.
func TestRemoveNetwork(t *testing.T) {
	l, a, b, a1, b1 := pair(t)
	ra, rb := a.box(red), b.box(red)
	ra.reach(rb)
	a.must(order{Verb: "remove", Network: red.ID})
	a.must(order{Verb: "remove", Network: red.ID})
	if ra.pings(rb.addrs[0], 2) {
		t.Error("a network that is gone is there")
	}
	a1.reach(b1)
	links := strings.Fields(l.in(a.ns, "ls /sys/class/net"))
	if slices.Contains(links, "rm-"+red.ID[:10]) {
		t.Error("its bridge is there")
	}
	if _, err := a.ask(order{Verb: "ensure", Network: "ffffffffffffffff"}); err == nil || !strings.Contains(err.Error(), `network "ffffffffffffffff": this host knows of none`) {
		t.Errorf("a network that nobody made: %v", err)
	}
	if text, err := os.ReadFile(a.config.Dir + "/mesh.json"); err != nil || strings.Contains(string(text), "ffffffff") || strings.Contains(string(text), red.ID) {
		t.Errorf("%v: %s", err, text)
	}
}
