package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/testenv"
)

// TestClocksJump: whatever the clocks of the hosts say, and however they jump while hosts are cut off, all agree on which names there
// are within ten seconds of the heal.
func TestClocksJump(t *testing.T) {
	seed := testenv.Seed(t)
	rounds := 20
	if testenv.Soak() {
		rounds = 500
	}
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0))
		n := newMemnet()
		var hosts []*memhost
		wrong := make([]atomic.Int64, 5) // by how much each clock is
		for i := range wrong {
			h := n.add(t, t.TempDir(), fmt.Sprintf("h%d", i), func(c *Config) {
				c.Now = func() time.Time { return time.Now().Round(0).Add(time.Duration(wrong[i].Load())) }
			})
			if i == 0 {
				if err := h.c.Found(); err != nil {
					t.Fatal(err)
				}
			} else {
				join(t, h, hosts[0].address)
			}
			hosts = append(hosts, h)
		}
		soon(t, "all know each other", 5*time.Second, func() bool { return know(hosts) })
		names := map[string]*memhost{} // who has which
		var slowest time.Duration
		for round := range rounds {
			for range 1 + rng.IntN(3) {
				jump := time.Duration(rng.Int64N(int64(80*24*time.Hour))) - 40*24*time.Hour
				wrong[rng.IntN(len(wrong))].Store(int64(jump))
			}
			alone := hosts[rng.IntN(len(hosts))]
			n.split(func(h *memhost) int {
				if h == alone {
					return 1
				}
				return 0
			})
			time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
			for i := range 5 {
				h := hosts[rng.IntN(len(hosts))]
				name := fmt.Sprintf("n%d-%d", round, i)
				put(t, h, name)
				names[name] = h
			}
			for _, name := range slices.Sorted(maps.Keys(names)) {
				if rng.IntN(3) == 0 {
					if err := names[name].c.Store().Delete(record.KindName, name); err != nil {
						t.Fatal(err)
					}
					delete(names, name)
				}
			}
			time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
			n.split(nil)
			slowest = max(slowest, soon(t, fmt.Sprintf("round %d: all have the names that there are", round), 10*time.Second, func() bool {
				for _, h := range hosts {
					have := h.c.Store().Records(record.KindName)
					if len(have) != len(names) {
						return false
					}
					for _, r := range have {
						if names[r.Name] == nil || names[r.Name].c.self != r.Writer {
							return false
						}
					}
				}
				return know(hosts)
			}))
		}
		t.Logf("%d rounds; all agreed within %v of the heal", rounds, slowest)
	})
}

// TestClocksWrong: a clock that is wrong is told on every host, on its own in one line, and no more once it is right.
func TestClocksWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		var hosts []*memhost
		wrong := make([]atomic.Int64, 4)
		for i := range wrong {
			h := n.add(t, t.TempDir(), fmt.Sprintf("h%d", i), func(c *Config) {
				c.Now = func() time.Time { return time.Now().Round(0).Add(time.Duration(wrong[i].Load())) }
			})
			if i == 0 {
				if err := h.c.Found(); err != nil {
					t.Fatal(err)
				}
			} else {
				join(t, h, hosts[0].address)
			}
			hosts = append(hosts, h)
		}
		said := func(want ...string) func() bool {
			return func() bool {
				for i, h := range hosts {
					lines := h.c.Status().Wrong
					if i >= len(want) || want[i] == "" {
						if len(lines) > 0 {
							return false
						}
					} else if len(lines) != 1 || lines[0] != want[i] {
						return false
					}
				}
				return know(hosts)
			}
		}
		soon(t, "all is well", 5*time.Second, said())
		time.Sleep(time.Minute)
		if !said()() {
			t.Error("clocks that are right are told")
		}
		wrong[0].Store(int64(2 * time.Second)) // which is no matter
		time.Sleep(time.Minute)
		if !said()() {
			t.Error("clocks that are nearly right are told")
		}
		wrong[0].Store(int64(90 * time.Second))
		soon(t, "a clock that is ahead is told", 12*time.Second, said(
			"the clock of this host is 1m30s ahead of those of 3 other hosts: have it set by NTP",
			"the clock of host h0 is 1m30s ahead of this host's: have clocks set by NTP on both",
			"the clock of host h0 is 1m30s ahead of this host's: have clocks set by NTP on both",
			"the clock of host h0 is 1m30s ahead of this host's: have clocks set by NTP on both"))
		wrong[0].Store(-int64(40 * 24 * time.Hour))
		soon(t, "a clock that is behind is told", 12*time.Second, said(
			"the clock of this host is 960h0m0s behind those of 3 other hosts: have it set by NTP",
			"the clock of host h0 is 960h0m0s behind this host's: have clocks set by NTP on both",
			"the clock of host h0 is 960h0m0s behind this host's: have clocks set by NTP on both",
			"the clock of host h0 is 960h0m0s behind this host's: have clocks set by NTP on both"))
		wrong[0].Store(0)
		soon(t, "all is well again", 12*time.Second, said())
	})
}
