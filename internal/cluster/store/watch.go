package store

import (
	"slices"
	"time"
)

// Status is what the store has seen that somebody may have to look at.
type Status struct {
	Incarnation uint64
	Writers     int // hosts of which something is held
	Records     int // living ones
	Tombstones  int
	Bytes       int // of all, as encoded
	Refused     int // records that were not taken
	LastRefused string
	Twin        Twin
	// Removed is not 0 if the others removed this host, up to that incarnation.
	Removed uint64
	// Damage is what could not be read when the store was opened, one line each.
	Damage []string
}

// Twin counts records that were written with this host's key, but not by it.
type Twin struct {
	Records int
	Last    time.Time
}

// Status returns it.
func (s *Store) Status() Status {
	incarnation := s.Incarnation()
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := s.status
	st.Incarnation, st.Writers, st.Tombstones, st.Bytes = incarnation, len(s.writers), s.graves, s.total
	for _, w := range s.writers {
		st.Records += len(w.records)
	}
	st.Records -= s.graves
	if upTo := s.removals[s.self]; upTo >= incarnation {
		st.Removed = upTo
	}
	st.Damage = slices.Clone(st.Damage)
	return st
}

type watcher struct {
	kinds   []string
	changed chan struct{}
}

// Watch returns a channel that has a value after a record of one of the kinds changed, of any kind if none is
// given; many changes may be one value. It never makes a writer wait. The watcher calls stop in the end.
func (s *Store) Watch(kinds ...string) (changed <-chan struct{}, stop func()) {
	w := &watcher{kinds: kinds, changed: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = true
	return w.changed, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}

// Changes counts how often records of the kinds have changed in this run. Of several who watch one is told first; who answers it out of what
// it knows asks here whether that is all.
func (s *Store) Changes(kinds ...string) (n uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, kind := range kinds {
		n += s.changes[kind]
	}
	return n
}

// changed tells all who watch the kind. Callers hold mu.
func (s *Store) changed(kind string) {
	s.digest = nil
	s.changes[kind]++
	for w := range s.watchers {
		if len(w.kinds) > 0 && !slices.Contains(w.kinds, kind) {
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// save brings others' records to the disk. What fails is tried with the next that come.
func (s *Store) save() {
	s.othersMu.Lock()
	defer s.othersMu.Unlock()
	s.mu.Lock()
	s.timer = nil
	fresh := s.unsaved
	s.unsaved = nil
	var frames []byte
	rewrite := len(fresh) > 0 && (s.others.broken || s.others.wasteful(s.total))
	if rewrite {
		for host, w := range s.writers {
			for _, h := range w.records {
				if host != s.self {
					frames = appendFrame(frames, h.Record)
				}
			}
		}
	}
	s.mu.Unlock()
	var err error
	if rewrite {
		err = s.others.rewrite(frames)
	} else if len(fresh) > 0 {
		for _, r := range fresh {
			frames = appendFrame(frames, r)
		}
		err = s.others.append(frames, false)
	}
	if err != nil {
		s.log.Warn("cannot save what other hosts wrote", "err", err)
	}
}

// sweepLater has tombstones looked at. Callers hold mu.
func (s *Store) sweepLater() {
	if s.sweeper == nil && !s.closed {
		s.sweeper = time.AfterFunc(time.Hour, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sweeper = nil
			if !s.closed {
				s.sweep()
			}
		})
	}
}

// sweep forgets tombstones that are old enough. Callers hold mu.
func (s *Store) sweep() {
	now := time.Now()
	var old []*held
	for _, w := range s.writers {
		for _, h := range w.records {
			if h.Deleted && now.Sub(h.since) >= tombstoneAge {
				old = append(old, h)
			}
		}
	}
	for _, h := range old {
		s.forget(h)
	}
	if s.graves > 0 {
		s.sweepLater()
	}
}
