package fake

import (
	"slices"
	"time"
)

// Lagged keeps how each object looked over time, so that a list can show what was true a
// while ago: clouds build their lists from copies that come late. It is not safe for
// several goroutines. T must not be changed once it is in here.
type Lagged[T any] struct {
	objects map[string]*history[T]
	order   []*history[T] // oldest first
}

type history[T any] struct {
	id       string
	versions []version[T]
}

type version[T any] struct {
	at   time.Time
	gone bool
	obj  T
}

// Set notes how an object looks from now on.
func (l *Lagged[T]) Set(id string, obj T, now time.Time) { l.add(id, version[T]{at: now, obj: obj}) }

// Delete notes that an object is gone from now on.
func (l *Lagged[T]) Delete(id string, now time.Time) { l.add(id, version[T]{at: now, gone: true}) }

func (l *Lagged[T]) add(id string, v version[T]) {
	if l.objects == nil {
		l.objects = map[string]*history[T]{}
	}
	h := l.objects[id]
	if h == nil {
		h = &history[T]{id: id}
		l.objects[id] = h
		l.order = append(l.order, h)
	}
	h.versions = append(h.versions, v)
}

// At returns the objects as they were at t, oldest first, and forgets what was before.
// A later call must not ask for an earlier time.
func (l *Lagged[T]) At(t time.Time) []T {
	out := make([]T, 0, len(l.order))
	l.order = slices.DeleteFunc(l.order, func(h *history[T]) bool {
		last := -1
		for i, v := range h.versions {
			if !v.at.After(t) {
				last = i
			}
		}
		if last < 0 {
			return false
		}
		h.versions = slices.Delete(h.versions, 0, last)
		switch v := h.versions[0]; {
		case !v.gone:
			out = append(out, v.obj)
		case len(h.versions) == 1:
			delete(l.objects, h.id)
			return true
		}
		return false
	})
	return out
}
