package mesh_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh"
	"github.com/remora-plugins/remora/internal/mesh/probe"
)

// TestInsideAddress: a host behind NAT tells of another inside address, at which nobody else can reach it. Who sends to it goes on to where
// it is heard from, and loses nothing. If it is not heard there any more, what it tells is tried.
func TestInsideAddress(t *testing.T) {
	l := newLab(t)
	b := l.lan("b", "10.9.0.2/24")
	c := l.behind("c", "10.7.0.1/24", "10.7.0.254/24")
	l.nat(c)
	at := func(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), mesh.TunnelPort) }
	c.member.Tunnel = []netip.AddrPort{at("10.7.9.1")}
	l.tell([]record.Network{blue})
	l.start()
	b1, c1 := b.box(blue), c.box(blue)
	c1.reach(b1)
	b1.reach(c1)

	var p *probe.Prober
	inside(t, b1.ns, func() {
		var err error
		if p, err = probe.New(t.Context()); err != nil {
			t.Error(err)
		}
	})
	defer p.Close()
	var wg sync.WaitGroup
	var mu sync.Mutex
	lost, sent := 0, 0
	count := func(during func()) (int, int) {
		mu.Lock()
		lost, sent = 0, 0
		mu.Unlock()
		stop := make(chan struct{})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					_, ok := p.Ping(ctx, c1.addrs[0], probe.Least)
					mu.Lock()
					defer mu.Unlock()
					if sent++; !ok {
						lost++
					}
				})
			}
		})
		during()
		close(stop)
		wg.Wait()
		return lost, sent
	}
	none, all := count(func() {
		for _, ip := range []string{"10.7.9.2", "10.7.9.3", "10.7.9.4"} {
			time.Sleep(500 * time.Millisecond)
			c.member.Tunnel = []netip.AddrPort{at(ip)}
			l.tell([]record.Network{blue})
			time.Sleep(1500 * time.Millisecond)
		}
	})
	if t.Logf("%d of %d lost", none, all); none > 0 || all < 100 {
		t.Errorf("%d of %d packets were lost when the host told of another inside address", none, all)
	}
	if s := b.status(); s.Repairs > 0 || len(s.Problems) > 0 {
		t.Errorf("%+v", s)
	}

	// Now it moves, and nobody there says so on the wire.
	c.end()
	l.in(l.router, "nft flush ruleset")
	l.ip(b.ns, "route add 10.7.0.0/24 via 10.9.0.254")
	l.ip(c.ns, "addr del 10.7.0.1/24 dev eth0")
	l.ip(c.ns, "addr add 10.7.0.2/24 dev eth0")
	l.ip(c.ns, "route replace default via 10.7.0.254")
	c.member.Tunnel = []netip.AddrPort{at("10.7.0.2")}
	l.tell([]record.Network{blue})
	began := time.Now()
	b1.reach(c1)
	t.Logf("found at its new address after %v", time.Since(began))
	if s := b.status(); s.Repairs > 0 {
		t.Errorf("a change that was told counts as a repair: %+v", s)
	}
}
