package mesh_test

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

const marker = "nobody on the way may read this; "

// capture watches all links of the network between the hosts and counts packets with the marker in them, and all
// packets.
func (l *lab) capture() (marked, all *atomic.Int64) {
	l.t.Helper()
	marked, all = new(atomic.Int64), new(atomic.Int64)
	const every = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	var fd int
	var err error
	inside(l.t, l.router, func() { fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, every) })
	if err != nil {
		l.t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		l.t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	l.t.Cleanup(func() { close(stop); <-stopped; _ = unix.Close(fd) })
	go func() {
		defer close(stopped)
		b := make([]byte, 1<<17)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				continue
			}
			all.Add(1)
			if strings.Contains(string(b[:n]), marker) {
				marked.Add(1)
			}
		}
	}()
	return marked, all
}

// secretly sends the marker and reports whether it was seen on the way.
func (l *lab) secretly(from, to box) bool {
	l.t.Helper()
	marked, all := l.capture()
	if _, err := from.send(to, strings.Repeat(marker, 100), 300); err != nil {
		l.t.Errorf("%s to %s: %v", from.ns, to.ns, err)
	}
	time.Sleep(200 * time.Millisecond)
	if all.Load() == 0 {
		l.t.Error("nothing at all was seen on the way")
	}
	return marked.Load() == 0
}

// TestEncrypted: two hosts on one link and one behind NAT, two networks.
func TestEncrypted(t *testing.T) {
	l := newLab(t)
	a, b := l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24")
	c := l.behind("c", "10.7.0.1/24", "10.7.0.254/24")
	l.nat(c)
	l.tell([]record.Network{blue, red})
	l.start()
	a1, a2, b1, c1 := a.box(blue), a.box(blue), b.box(blue), c.box(blue)
	ra, rb := a.box(red), b.box(red)

	a1.reach(a2)
	a1.reach(b1)
	b1.reach(a1)
	c1.reach(a1) // who is behind NAT can only be answered
	c1.reach(b1)
	a1.reach(c1)
	b1.reach(c1)
	ra.reach(rb)

	if !l.secretly(a1, b1) || !l.secretly(c1, a1) {
		t.Error("what is encrypted was read on the way")
	}
	for _, from := range []box{a1, b1} {
		for _, to := range []box{ra, rb} {
			if from.pings(to.addrs[0], 2) || to.pings(from.addrs[0], 2) {
				t.Errorf("%s and %s reach each other across networks", from.ns, to.ns)
			}
		}
	}
	for _, p := range a.status().Peers {
		if !p.Encrypted || p.Path != "direct" || !p.Up || p.Latency <= 0 || p.MTU != 1420 {
			t.Errorf("%+v", p)
		}
	}
	eventually(t, 5*time.Second, "handshakes are told", func() bool {
		for _, p := range a.status().Peers {
			if time.Since(p.Handshake) > time.Minute || !p.Endpoint.IsValid() {
				return false
			}
		}
		return true
	})
	if s := a.status(); len(s.Problems) > 0 || s.Repairs > 0 || s.Tunnel != "process" {
		t.Errorf("%+v", s)
	}
}

// TestPlain: without keys, on one link by routes and beyond a router in VXLAN. What TestEncrypted does not see on the
// way is seen here.
func TestPlain(t *testing.T) {
	l := newLab(t)
	hosts := []*host{l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24"), l.behind("c", "10.7.0.1/24", "10.7.0.254/24")}
	for _, h := range hosts {
		h.member.TunnelKey, h.config.Private = nil, [32]byte{}
		if h.name != "c" {
			l.ip(h.ns, "route add default via 10.9.0.254")
		}
	}
	only4 := blue
	only4.Subnets = only4.Subnets[:1]
	l.tell([]record.Network{only4, red})
	l.start()
	a1, b1, c1, rb := hosts[0].box(only4), hosts[1].box(only4), hosts[2].box(only4), hosts[1].box(red)
	a1.reach(b1)
	b1.reach(a1)
	a1.reach(c1)
	c1.reach(b1)
	if l.secretly(a1, b1) || l.secretly(c1, a1) {
		t.Error("what is not encrypted was not seen on the way: nothing is proved by not seeing it")
	}
	if a1.pings(rb.addrs[0], 2) || c1.pings(rb.addrs[0], 2) {
		t.Error("networks reach each other")
	}
	want := map[string]string{"b": "route", "c": "vxlan"}
	for _, p := range hosts[0].status().Peers {
		if p.Transport != want[p.Nickname] || p.Encrypted || p.Path != "direct" {
			t.Errorf("%+v", p)
		}
	}
	if s := hosts[0].status(); len(s.Problems) > 0 || s.Repairs > 0 || s.Tunnel != "" {
		t.Errorf("%+v", s)
	}

	// IPv6 cannot be routed by addresses of IPv4, so with it all is in VXLAN.
	l.tell([]record.Network{blue, red})
	for i, h := range hosts {
		delete(h.network, only4.ID)
		h.must(order{Verb: "ensure", Network: blue.ID, Addresses: bridgeAddresses(blue, i)})
	}
	a2, b2 := hosts[0].box(blue), hosts[1].box(blue)
	a2.reach(b2)
	a2.reach(c1)
}

// TestTrusted: a pair is plain where both trust the link, and no other.
func TestTrusted(t *testing.T) {
	l := newLab(t)
	a, b, c := l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24"), l.lan("c", "10.9.0.3/24")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}
	a.member.Trusted, b.member.Trusted = trusted, trusted
	l.tell([]record.Network{red})
	l.start()
	a1, b1, c1 := a.box(red), b.box(red), c.box(red)
	a1.reach(b1)
	a1.reach(c1)
	c1.reach(b1)
	if l.secretly(a1, b1) {
		t.Error("a pair that trusts its link encrypts")
	}
	if !l.secretly(a1, c1) || !l.secretly(c1, b1) {
		t.Error("a pair of which one does not trust the link was read")
	}

	// One of them trusts no longer.
	b.member.Trusted = nil
	l.tell([]record.Network{red})
	eventually(t, 5*time.Second, "both encrypt", func() bool {
		return a.status().Peers[0].Encrypted && b.status().Peers[0].Encrypted
	})
	a1.reach(b1)
	if !l.secretly(a1, b1) {
		t.Error("a pair of which one no longer trusts the link was read")
	}
}
