package store

import (
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// The pauses between two answers to records that were written under this host's key by something else. Two
// hosts that run on copies of one state would otherwise outbid each other without end.
const (
	firstPause = 10 * time.Second
	lastPause  = 10 * time.Minute
)

// twin is what is known of another writer with this host's key: this host's own future, if it was set back to
// an older copy of its state, or a second host that runs on a copy.
type twin struct {
	pause time.Duration
	next  time.Time
}

// mergeOwn takes records under this host's own key that somebody else brought, and verified, and returns how
// many changed something.
func (s *Store) mergeOwn(records []record.Record) (news int) {
	s.ownMu.Lock()
	defer s.ownMu.Unlock()
	// The newest first: one answer is above them all.
	slices.SortFunc(records, func(a, b record.Record) int { return b.Compare(a.Version) })
	for _, r := range records {
		if s.mergeOne(r) {
			news++
		}
	}
	return news
}

// mergeOne is mergeOwn for one record. Callers hold ownMu.
func (s *Store) mergeOne(r record.Record) bool {
	h := s.mine(r.Kind, r.Name)
	if h != nil && h.Signature == r.Signature {
		return false
	}
	foreign := r.Compare(s.at) > 0 || s.meta.Gap.has(r.Version)
	if h != nil {
		switch {
		case h.Version == r.Version: // one number for two records: only a copy of the state does that
			foreign = true
		case !r.Newer(h.Record):
			return false // an old one, which ours replaces
		default:
			foreign = true
		}
	}
	switch {
	case !foreign && r.Deleted:
		return false
	case !foreign && r.Kind == record.KindGrant:
		// A grant is never taken back: this state is older than it, whatever its number.
		return s.keep(r) == nil
	case !foreign:
		// This host deleted it, and forgot that; somebody who was away did not hear of it.
		return s.write(record.Record{Key: r.Key, Deleted: true}) == nil
	}
	first := s.noticeTwin(r)
	if r.Compare(s.at) > 0 {
		if time.Now().Before(s.twin.next) && !first {
			return false // it comes again
		}
		if err := s.outbid(r.Version); err != nil {
			s.log.Error("cannot answer a record written with this host's key by another", "err", err)
			return false
		}
	}
	if h == nil {
		// What is not known here may be a grant, which must never be forgotten.
		return !r.Deleted && s.keep(r) == nil
	}
	return s.write(record.Record{Key: h.Key, Deleted: h.Deleted, Body: h.Body}) == nil
}

// outbid begins an incarnation above all that was seen.
func (s *Store) outbid(v record.Version) error {
	if s.twin.pause = min(max(2*s.twin.pause, firstPause), lastPause); time.Since(s.twin.next) > lastPause {
		s.twin.pause = firstPause
	}
	s.twin.next = time.Now().Add(s.twin.pause)
	return s.incarnate(v.Incarnation+1, gap{Low: s.found, Below: v.Incarnation + 1})
}

// noticeTwin notes for Status that there is one, and returns whether it is the first time.
func (s *Store) noticeTwin(r record.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.status.Twin.Records == 0
	s.status.Twin.Records++
	s.status.Twin.Last = time.Now()
	if first {
		s.log.Warn("another has written with this host's key: its state was set back, or runs twice", "kind", r.Kind, "name", r.Name)
	}
	return first
}
