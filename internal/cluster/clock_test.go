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
