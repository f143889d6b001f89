package cluster

import (
	"fmt"
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
