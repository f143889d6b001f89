package conn

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Buckets are the bounds of [Count.Took], in seconds: an RPC takes from half a millisecond to minutes.
var Buckets = []float64{.001, .01, .1, 1, 10, 60}

// Count is how often an RPC of a pool's driver was made and came to a code, such as "OK" or "Aborted".
type Count struct {
	Pool, RPC, Code string
	N               uint64
	// Seconds is how long all of them took together, Took how many took up to each of [Buckets].
	Seconds float64
	Took    []uint64
}

type countKey struct{ rpc, code string }

// counter counts what one pool asks for.
type counter struct {
	mu   sync.Mutex
	made map[countKey]*Count
}

// counters are those of this process, by pool: a pool that is opened anew goes on counting.
var counters struct {
	sync.Mutex
	all map[string]*counter
}

func counterOf(pool string) *counter {
	counters.Lock()
	defer counters.Unlock()
	if counters.all == nil {
		counters.all = map[string]*counter{}
	}
	c := counters.all[pool]
	if c == nil {
		c = &counter{made: map[countKey]*Count{}}
		counters.all[pool] = c
	}
	return c
}

func (c *counter) add(rpc string, err error, took time.Duration) {
	k := countKey{rpc, CodeOf(err).String()}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.made[k]
	if n == nil {
		n = &Count{Took: make([]uint64, len(Buckets))}
		c.made[k] = n
	}
	n.N++
	n.Seconds += took.Seconds()
	for i, limit := range Buckets {
		if took.Seconds() <= limit {
			n.Took[i]++
		}
	}
}

// Counts returns what was asked of the drivers of all pools of this process.
func Counts() []Count {
	counters.Lock()
	defer counters.Unlock()
	var all []Count
	for pool, c := range counters.all {
		c.mu.Lock()
		for k, n := range c.made {
			all = append(all, Count{pool, k.rpc, k.code, n.N, n.Seconds, slices.Clone(n.Took)})
		}
		c.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.RPC, b.RPC), cmp.Compare(a.Code, b.Code))
	})
	return all
}
