package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// lastIncarnation is the highest that is believed: nobody opens a store as often, and whoever could use up
// the numbers of a host would silence it.
const lastIncarnation = 1 << 62

// Merge takes records that another host sent. It returns how many were new here and how many were refused,
// because of a bad signature, another cluster, or limits; what is wrong is counted in Status. One that is older
// than what is held is neither.
func (s *Store) Merge(records []record.Record) (news, refused int) {
	var fresh, own []record.Record
	for i := range records {
		r := &records[i]
		why := s.wrong(r)
		if why == "" && s.known(r) {
			continue
		}
		if why == "" && !r.Verify() {
			why = "a bad signature"
		}
		if why == "" && r.Writer == s.self {
			own = append(own, clone(r))
			continue
		}
		if why == "" {
			taken := clone(r)
			var ok bool
			if ok, why = s.take(taken); ok {
				news++
				fresh = append(fresh, taken)
			}
		}
		if why != "" {
			refused++
			s.refuse(r, why)
		}
	}
	if len(fresh) > 0 {
		s.spread(fresh)
	}
	if len(own) > 0 {
		news += s.mergeOwn(own)
	}
	return news, refused
}

func clone(r *record.Record) record.Record {
	c := *r
	c.Body = bytes.Clone(r.Body) // it may be a part of a large message
	return c
}

// wrong says what is wrong with a record at first sight.
func (s *Store) wrong(r *record.Record) string {
	switch {
	case r.Cluster != s.cluster:
		return "another cluster"
	case len(r.Body) > record.MaxBody || len(r.Name) > record.MaxName || len(r.Kind) > record.MaxKind || r.Kind == "":
		return "too large"
	case r.Incarnation == 0 || r.Counter == 0 || r.Incarnation > lastIncarnation:
		return "a version that cannot be"
	}
	return ""
}

// known reports whether a record would change nothing.
func (s *Store) known(r *record.Record) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.isRemoved(r) && !outlives(r.Kind) {
		return true
	}
	h := s.kinds[r.Kind][r.Key]
	if r.Writer == s.self && h != nil {
		return h.Signature == r.Signature
	}
	if h == nil {
		return r.Deleted && r.Writer != s.self && s.now().Sub(r.Written) > tombstoneAge
	}
	return !r.Newer(h.Record)
}

// take keeps another host's record, unless it is known or there is no room.
func (s *Store) take(r record.Record) (ok bool, why string) {
	if s.known(&r) { // two streams can bring the same
		return false, ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.kinds[r.Kind][r.Key]; h != nil && !r.Newer(h.Record) || s.closed {
		return false, ""
	}
	if why := s.full(&r); why != "" {
		return false, why
	}
	s.install(r, time.Now())
	s.unsaved = append(s.unsaved, r)
	if s.timer == nil {
		s.timer = time.AfterFunc(lag, s.save)
	}
	return true, ""
}

// full says why a record cannot be held. It makes room by forgetting the oldest tombstones of the writer.
// Callers hold mu.
func (s *Store) full(r *record.Record) string {
	w := s.writers[r.Writer]
	if w == nil {
		if len(s.writers) >= s.limits.Writers {
			return fmt.Sprintf("more than %d hosts", s.limits.Writers)
		}
		w = &writer{}
	}
	before, more := 0, 1
	if h := w.records[r.Key]; h != nil {
		before, more = h.Size(), 0
	}
	for {
		switch {
		case len(w.records)+more > s.limits.Records:
		case w.bytes-before+r.Size() > s.limits.Bytes:
		case s.total-before+r.Size() > s.limits.Total:
			return fmt.Sprintf("more than %d bytes of all hosts", s.limits.Total)
		default:
			return ""
		}
		var oldest *held
		for _, h := range w.records {
			if h.Deleted && h.Key != r.Key && (oldest == nil || h.Compare(oldest.Version) < 0) {
				oldest = h
			}
		}
		if oldest == nil {
			return fmt.Sprintf("more than %d records or %d bytes", s.limits.Records, s.limits.Bytes)
		}
		s.forget(oldest)
	}
}

// install makes r what is held under its key, unless it is older. Callers hold mu, and during Open nobody
// needs to.
func (s *Store) install(r record.Record, now time.Time) {
	if s.isRemoved(&r) && !outlives(r.Kind) {
		return
	}
	w := s.writers[r.Writer]
	if w == nil {
		w = &writer{records: map[record.Key]*held{}}
		s.writers[r.Writer] = w
	}
	old := w.records[r.Key]
	if old != nil && !r.Newer(old.Record) {
		return
	}
	if old != nil {
		s.forget(old)
	}
	if s.kinds[r.Kind] == nil {
		s.kinds[r.Kind] = map[record.Key]*held{}
	}
	h := &held{Record: r, since: now}
	w.records[r.Key], s.kinds[r.Kind][r.Key], s.writers[r.Writer] = h, h, w
	w.bytes += r.Size()
	s.total += r.Size()
	if r.Deleted {
		s.graves++
		s.sweepLater()
	} else {
		w.hash += hashOf(&r)
	}
	if r.Kind == record.KindRemoval {
		s.removed(r.Name)
	}
	s.changed(r.Kind)
}

// forget drops a record, as if it had never come. Callers hold mu.
func (s *Store) forget(h *held) {
	w := s.writers[h.Writer]
	delete(w.records, h.Key)
	delete(s.kinds[h.Kind], h.Key)
	w.bytes -= h.Size()
	s.total -= h.Size()
	if h.Deleted {
		s.graves--
	} else {
		w.hash -= hashOf(&h.Record)
		s.changed(h.Kind)
	}
	if len(w.records) == 0 {
		delete(s.writers, h.Writer)
	}
	s.digest = nil
}

// hashOf is a record's part in the hash of its writer: a signature is as good as random.
func hashOf(r *record.Record) uint64 { return binary.BigEndian.Uint64(r.Signature[:8]) }

func (s *Store) refuse(r *record.Record, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Refused++
	s.status.LastRefused = fmt.Sprintf("%s %q of %s: %s", r.Kind, r.Name, r.Writer.Short(), why)
}
