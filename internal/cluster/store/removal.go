package store

import (
	"encoding/json"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// outlives reports whether records of this kind count although their writer was removed. Whom it removed stays
// removed; what it gave to others stays theirs, and what it knew of others' addresses true; and the networks that it
// made are all hosts'.
func outlives(kind string) bool {
	switch kind {
	case record.KindRemoval, record.KindGrant, record.KindSettled, record.KindNetwork, record.KindEnding, record.KindRange:
		return true
	}
	return false
}

// everybodys reports whether records of this kind are listed with all the others although their writer was removed.
func everybodys(kind string) bool {
	switch kind {
	case record.KindRemoval, record.KindNetwork, record.KindEnding, record.KindRange:
		return true
	}
	return false
}

// isRemoved reports whether the writer of r was removed after it wrote r. A host never takes its own
// records for removed: its containers go on, and it is told by Status. Callers hold mu.
func (s *Store) isRemoved(r *record.Record) bool {
	return r.Writer != s.self && r.Incarnation <= s.removals[r.Writer]
}

// removed looks again up to where a host is removed, by all removals of it that are held, and forgets what it
// wrote until then. Callers hold mu.
func (s *Store) removed(name string) {
	var host record.Host
	if host.UnmarshalText([]byte(name)) != nil {
		return
	}
	upTo := uint64(0)
	for k, h := range s.kinds[record.KindRemoval] {
		var body record.Removal
		if k.Name == name && !h.Deleted && json.Unmarshal(h.Body, &body) == nil {
			upTo = max(upTo, body.Incarnation)
		}
	}
	if upTo == 0 {
		delete(s.removals, host)
		return
	}
	s.removals[host] = upTo
	w := s.writers[host]
	if w == nil || host == s.self {
		return
	}
	for _, h := range w.records {
		switch {
		case h.Incarnation > upTo:
		case !outlives(h.Kind):
			s.forget(h)
		default:
			s.changed(h.Kind)
		}
	}
}
