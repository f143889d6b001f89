package fake

import (
	"cmp"
	"slices"
	"time"
)

// Lagged keeps how each object looked over time, so that a list can show what was true a
// while ago: clouds build their lists from copies that come late. It is not safe for
// several goroutines. T must not be changed once it is in here.
type Lagged[T any] struct {
	objects map[string]*history[T]
	made    int
}

type history[T any] struct {
	order    int
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
		l.made++
		h = &history[T]{order: l.made}
		l.objects[id] = h
	}
	h.versions = append(h.versions, v)
}

// At returns the objects as they were at t, oldest first, and forgets what was before.
// A later call must not ask for an earlier time.
func (l *Lagged[T]) At(t time.Time) []T {
	type entry struct {
		order int
		obj   T
	}
	var found []entry
	for id, h := range l.objects {
		last := -1
		for i, v := range h.versions {
			if !v.at.After(t) {
				last = i
			}
		}
		if last < 0 {
			continue
		}
		h.versions = slices.Delete(h.versions, 0, last)
		switch v := h.versions[0]; {
		case !v.gone:
			found = append(found, entry{h.order, v.obj})
		case len(h.versions) == 1:
			delete(l.objects, id)
		}
	}
	slices.SortFunc(found, func(a, b entry) int { return cmp.Compare(a.order, b.order) })
	out := make([]T, len(found))
	for i, e := range found {
		out[i] = e.obj
	}
	return out
}
