package cluster

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestFounder: the host that founded its cluster knows so when it is started again, and only that one does, also where several were told
// to join each other.
func TestFounder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		dirs := []string{t.TempDir(), t.TempDir()}
		var hosts []*memhost
		for i, dir := range dirs {
			hosts = append(hosts, n.add(t, dir, fmt.Sprint(i), nil))
		}
		for _, h := range hosts {
			go func() { _ = h.c.Join(t.Context(), []string{hosts[0].address, hosts[1].address}) }()
		}
		soon(t, "one cluster", 10*time.Second, func() bool { return know(hosts) })
		lowest := 0
		if hosts[1].c.Self().Compare(hosts[0].c.Self()) < 0 {
			lowest = 1
		}
		soon(t, "both know when it was founded", 10*time.Second, func() bool {
			return !hosts[0].c.Summary().Founded.IsZero() && !hosts[1].c.Summary().Founded.IsZero()
		})
		for i, h := range hosts {
			h.stop()
			hosts[i] = n.add(t, dirs[i], fmt.Sprint(i), nil)
			if got := hosts[i].c.Founder(); got != (i == lowest) {
				t.Errorf("host %d takes itself for the founder: %t; host %d is", i, got, lowest)
			}
		}
	})
}

// TestFounderGone: the host that was to found a cluster for all is gone before it did. One of the others does it.
func TestFounderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		var hosts []*memhost
		for i := range 3 {
			hosts = append(hosts, n.add(t, t.TempDir(), fmt.Sprint(i), nil))
		}
		slices.SortFunc(hosts, func(a, b *memhost) int { return a.c.Self().Compare(b.c.Self()) })
		lowest, rest := hosts[0], hosts[1:]
		wait := func(h *memhost, to ...string) { go func() { _ = h.c.Join(t.Context(), to) }() }
		wait(rest[0], rest[1].address)
		wait(rest[1], rest[0].address)
		time.Sleep(foundAfter - 200*time.Millisecond)
		wait(lowest, rest[0].address, rest[1].address)
		time.Sleep(foundAfter / 2)
		lowest.stop()
		soon(t, "the others are one cluster", 20*time.Second, func() bool { return know(rest) })
	})
}
