package ec2

import (
	"slices"
	"time"
)

// history is what a thing was, and since when, so that a cache that lags can be asked.
type history[T any] struct {
	versions []version[T] // the newest last
	pruned   bool         // there were older ones
}

type version[T any] struct {
	at    time.Time
	value T
}

func newHistory[T any](now time.Time, value T) *history[T] {
	return &history[T]{versions: []version[T]{{now, value}}}
}

// last is what the thing is.
func (h *history[T]) last() T { return h.versions[len(h.versions)-1].value }

// kept is how many versions are remembered; a volume hardly has more in a minute.
const kept = 64

func (h *history[T]) set(now time.Time, value T) {
	h.versions = append(h.versions, version[T]{now, value})
	if n := len(h.versions); n > kept {
		h.versions, h.pruned = slices.Delete(h.versions, 0, n-kept), true
	}
}

// at is what the thing was then, if it was there.
func (h *history[T]) at(then time.Time) (value T, ok bool) {
	for _, v := range slices.Backward(h.versions) {
		if !v.at.After(then) {
			return v.value, true
		}
	}
	if h.pruned {
		return h.versions[0].value, true
	}
	return value, false
}

// views are the moments that the caches of one call show.
type views struct {
	base, tags, tagFilter, stateFilter time.Time
}

// views draws the moments for a call that asks by id or not.
func (c *Cloud) views(byID bool) views {
	now, lag := c.clock.Now(), c.conf.Lag
	back := func(d time.Duration) time.Time {
		if lag.Jitter && d > 0 {
			d = time.Duration(c.rand.Int64N(int64(d) + 1))
		}
		return now.Add(-d)
	}
	base := lag.List
	if byID {
		base = lag.ID
	}
	return views{back(base), back(lag.Tags), back(lag.TagFilter), back(lag.StateFilter)}
}
