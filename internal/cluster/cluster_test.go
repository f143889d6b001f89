package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// soon waits until cond holds, and returns how long that took.
func soon(t testing.TB, what string, limit time.Duration, cond func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// cluster makes hosts "h0" … of one cluster: h0 founds it, the others join it.
func (n *memnet) cluster(t testing.TB, count int) []*memhost {
	t.Helper()
	hosts := []*memhost{n.add(t, t.TempDir(), "h0", nil)}
	if err := hosts[0].c.Found(); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < count; i++ {
		h := n.add(t, t.TempDir(), fmt.Sprintf("h%d", i), nil)
		join(t, h, hosts[0].address)
		hosts = append(hosts, h)
	}
	return hosts
}

func join(t testing.TB, h *memhost, to ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.c.Join(ctx, to); err != nil {
		t.Fatal(err)
	}
}

// know reports whether each of the hosts sees all of them as reachable members.
func know(hosts []*memhost) bool {
	for _, h := range hosts {
		if h.reaches() != len(hosts) {
			return false
		}
	}
	return true
}

func (h *memhost) reaches() (n int) {
	s := h.c.Store()
	if s == nil {
		return 0
	}
	for _, r := range s.Records(record.KindMember) {
		if h.c.Reachable(r.Writer) {
			n++
		}
	}
	return n
}

// agree reports whether all hold the same records.
func agree(hosts []*memhost) bool {
	for _, h := range hosts[1:] {
		if h.c.Store().Root() != hosts[0].c.Store().Root() {
			return false
		}
	}
	return true
}

func put(t testing.TB, h *memhost, name string) {
	t.Helper()
	if err := h.c.Store().Put(record.KindName, name, record.Name{Names: []string{name}}); err != nil {
		t.Fatal(err)
	}
}

func TestThreeHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		hosts := n.cluster(t, 3)
		soon(t, "all know each other", 5*time.Second, func() bool { return know(hosts) })
		soon(t, "six ends of links", 5*time.Second, func() bool {
			ends := 0
			for _, h := range hosts {
				ends += len(h.Peers())
			}
			return ends == 6
		})
		put(t, hosts[1], "nyc")
		took := soon(t, "a name on all", 2*time.Second, func() bool {
			return len(hosts[0].c.Store().Records(record.KindName)) == 1 && len(hosts[2].c.Store().Records(record.KindName)) == 1
		})
		t.Logf("a name is on all after %v", took)
		if took > 50*time.Millisecond {
			t.Errorf("a name is on all after %v", took)
		}
		soon(t, "links are told", 12*time.Second, func() bool {
			m, err := hosts[0].c.Find("h2")
			return err == nil && len(m.Links) == 2 && len(hosts[0].c.Relays(m.Host)) == 2
		})
		st := hosts[2].c.Status()
		if st.Members != 3 || st.Reachable != 3 || len(st.Links) != 2 || st.Wrong != nil || st.Founded.IsZero() {
			t.Errorf("%+v", st)
		}
	})
}

// TestLostAndBack: a host that is silently lost is noticed within 6 s, and is back within 1 s of its link.
func TestLostAndBack(t *testing.T) {
	for _, away := range []time.Duration{10 * time.Second, 10 * time.Minute} {
		t.Run(away.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemnet()
				hosts := n.cluster(t, 5)
				soon(t, "all know each other", 5*time.Second, func() bool { return know(hosts) })
				time.Sleep(time.Minute)
				n.split(func(h *memhost) int {
					if h == hosts[3] {
						return 1
					}
					return 0
				})
				took := soon(t, "the loss is noticed", 6*time.Second, func() bool {
					return hosts[0].reaches() == 4 && hosts[4].reaches() == 4 && hosts[3].reaches() == 1
				})
				t.Logf("noticed by all after %v", took)
				if s := hosts[0].c.Status(); len(s.Wrong) != 1 || !strings.Contains(s.Wrong[0], "h3") {
					t.Errorf("%q", s.Wrong)
				}
				put(t, hosts[0], "a")
				put(t, hosts[3], "b")
				time.Sleep(away)
				n.split(nil)
				start := time.Now()
				soon(t, "a link", 5*time.Second, func() bool { return len(hosts[3].Peers()) > 0 })
				link := time.Since(start)
				took = soon(t, "all know each other again", time.Second, func() bool { return know(hosts) && agree(hosts) })
				t.Logf("a link after %v, all well %v later", link, took)
			})
		})
	}
}

func TestTargetsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		a := n.add(t, t.TempDir(), "a", nil)
		if err := a.c.Found(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		b := n.add(t, dir, "b", nil)
		join(t, b, a.address)
		id, self := b.c.ID(), b.c.Self()
		if err := b.c.Connect([]string{"other.example", "[::1]"}, false); err != nil {
			t.Fatal(err)
		}
		b.stop()
		soon(t, "the stop is noticed", time.Second, func() bool { return a.reaches() == 1 })

		b = n.add(t, dir, "b", nil)
		if b.c.ID() != id || b.c.Self() != self {
			t.Fatal("it is another host, or in another cluster")
		}
		if err := b.c.Connect([]string{a.address, "third:7000"}, false); err != nil {
			t.Fatal(err)
		}
		var addresses []string
		for _, target := range b.c.Targets() {
			addresses = append(addresses, target.Address)
		}
		if diff := cmp.Diff([]string{a.address, "other.example:6783", "[::1]:6783", "third:7000"}, addresses); diff != "" {
			t.Error(diff)
		}
		soon(t, "they meet again", 2*time.Second, func() bool { return know([]*memhost{a, b}) })
		soon(t, "states", 2*time.Second, func() bool {
			ts := b.c.Targets()
			return ts[0].State == "connected" && ts[0].Host == a.c.Self() && ts[1].State == "failed" && ts[1].Err != nil && ts[1].Tries > 0
		})
		if err := b.c.Forget([]string{"third:7000", a.address}); err != nil {
			t.Error(err)
		}
		if err := b.c.Forget([]string{"other.example", "nobody"}); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("forget nobody: %v", err)
		}
		if ts := b.c.Targets(); len(ts) != 1 || len(b.Peers()) != 1 {
			t.Errorf("%v, %d links", ts, len(b.Peers()))
		}
		if err := b.c.Connect([]string{"x"}, true); err != nil || len(b.c.Targets()) != 1 {
			t.Errorf("%v, %v", err, b.c.Targets())
		}
		for _, bad := range []string{"", "a b", "host:0", "host:99999", "a/b", ":6783"} {
			if err := b.c.Connect([]string{bad}, false); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})
}

// TestTwoClusters: they never mix, and the error says what both are. A host that is alone gives its own up.
func TestTwoClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		first := n.cluster(t, 2)
		time.Sleep(time.Hour)
		second := n.cluster(t, 3)
		soon(t, "the second is whole", 5*time.Second, func() bool { return know(second) && know(first) })
		if err := second[0].c.Connect([]string{first[0].address}, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		err := second[0].c.Targets()[0].Err
		for _, part := range []string{first[0].c.ID().String() + ", 2 hosts, founded 1h", second[0].c.ID().String() + ", 3 hosts, founded "} {
			if err == nil || !strings.Contains(err.Error(), part) || !errors.Is(err, errdefs.ErrDenied) || len(errdefs.Hints(err)) == 0 {
				t.Errorf("%v has no %q", err, part)
			}
		}
		if len(first[0].c.Members()) != 2 || len(second[0].c.Members()) != 3 || len(second[0].c.Status().Wrong) != 1 {
			t.Errorf("they mixed: %q", second[0].c.Status().Wrong)
		}

		var spare atomic.Bool
		var left, entered atomic.Int32
		alone := n.add(t, t.TempDir(), "alone", func(c *Config) {
			c.Spare = spare.Load
			c.Left = func() error { left.Add(1); return nil }
			c.Entered = func(*store.Store) { entered.Add(1) }
		})
		if err := alone.c.Found(); err != nil {
			t.Fatal(err)
		}
		if err := alone.c.Connect([]string{first[1].address}, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if alone.c.ID() == first[0].c.ID() || left.Load() != 0 {
			t.Error("a host that is in use gave its cluster up")
		}
		spare.Store(true)
		soon(t, "it joins the first", 40*time.Second, func() bool { return know(append(first[:2:2], alone)) })
		if left.Load() != 1 || entered.Load() != 2 {
			t.Errorf("left %d, entered %d", left.Load(), entered.Load())
		}
	})
}

// TestAllAtOnce: hosts that are told to join each other found one cluster, after a moment.
func TestAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		var hosts []*memhost
		for i := range 3 {
			hosts = append(hosts, n.add(t, t.TempDir(), fmt.Sprint(i), nil))
		}
		for _, h := range hosts {
			go func() {
				if err := h.c.Join(t.Context(), []string{hosts[0].address, hosts[1].address, hosts[2].address}); err != nil {
					t.Error(err)
				}
			}()
		}
		took := soon(t, "one cluster", 10*time.Second, func() bool { return know(hosts) })
		t.Logf("one cluster after %v", took)
	})
}

// TestBothConnect: two hosts that each founded a cluster, and are told to connect to each other, end in one.
func TestBothConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		var hosts []*memhost
		for i := range 2 {
			h := n.add(t, t.TempDir(), fmt.Sprint(i), func(c *Config) { c.Spare = func() bool { return true } })
			if err := h.c.Found(); err != nil {
				t.Fatal(err)
			}
			hosts = append(hosts, h)
		}
		for i, h := range hosts {
			if err := h.c.Connect([]string{hosts[1-i].address}, false); err != nil {
				t.Fatal(err)
			}
		}
		soon(t, "one cluster", 10*time.Second, func() bool { return know(hosts) })
	})
}

func TestJoinNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		h := n.add(t, t.TempDir(), "h", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := h.c.Join(ctx, []string{"10.9.9.9"})
		if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "10.9.9.9:6783") {
			t.Errorf("%v", err)
		}
		if st := h.c.Status(); len(st.Wrong) != 1 || st.Cluster != (record.Cluster{}) {
			t.Errorf("%+v", st)
		}
		// It goes on trying.
		late := n.cluster(t, 1)[0]
		if err := h.c.Connect([]string{late.address}, false); err != nil {
			t.Fatal(err)
		}
		soon(t, "it joins", 5*time.Second, func() bool { return know([]*memhost{h, late}) })
	})
}

// TestRemove: two hosts that are apart remove the same one. All agree who did, and nobody lets it in again.
func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		hosts := n.cluster(t, 5)
		soon(t, "all know each other", 5*time.Second, func() bool { return know(hosts) })
		victim := hosts[4]
		put(t, victim, "web")
		soon(t, "its name", 5*time.Second, func() bool { return agree(hosts) })
		if err := hosts[0].c.Remove(hosts[0].c.Self()); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("itself: %v", err)
		}
		if err := hosts[0].c.Remove(record.Host{1}); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("nobody: %v", err)
		}
		n.split(func(h *memhost) int {
			switch h {
			case victim:
				return 2
			case hosts[2], hosts[3]:
				return 1
			}
			return 0
		})
		time.Sleep(10 * time.Second)
		for range 2 {
			for _, h := range []*memhost{hosts[1], hosts[2]} {
				if err := h.c.Remove(victim.c.Self()); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(10 * time.Second)
		n.split(nil)
		rest := hosts[:4]
		soon(t, "the rest is whole", 10*time.Second, func() bool { return know(rest) && agree(rest) })
		time.Sleep(time.Minute)
		winner := hosts[1].c.Self()
		if hosts[2].c.Self().Compare(winner) < 0 {
			winner = hosts[2].c.Self()
		}
		for _, h := range rest {
			if r := h.c.Removals(); len(r) != 1 || r[0].By != winner || r[0].Nickname != "h4" || r[0].Host != victim.c.Self() {
				t.Errorf("%+v", r)
			}
			if len(h.c.Members()) != 4 || len(h.c.Store().Records(record.KindName)) != 0 || h.c.Reachable(victim.c.Self()) {
				t.Errorf("%d members, %v", len(h.c.Members()), h.c.Store().Records(record.KindName))
			}
		}
		if len(victim.Peers()) != 0 || len(victim.c.Members()) != 5 {
			t.Errorf("the removed host has %d links", len(victim.Peers()))
		}
	})
}

// TestBehindNAT: two hosts that can only dial out know each other, and their records travel.
func TestBehindNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		hosts := n.cluster(t, 1)
		for i := range 2 {
			h := n.add(t, t.TempDir(), fmt.Sprint("nat", i), func(c *Config) { c.Member.Control = nil })
			join(t, h, hosts[0].address)
			hosts = append(hosts, h)
		}
		soon(t, "all know each other", 3*time.Second, func() bool { return know(hosts) })
		time.Sleep(10 * time.Minute)
		if !know(hosts) || len(hosts[1].Peers()) != 1 {
			t.Errorf("they lost each other; %d links", len(hosts[1].Peers()))
		}
		put(t, hosts[1], "x")
		soon(t, "a name", time.Second, func() bool { return agree(hosts) })
	})
}
