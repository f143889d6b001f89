package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Put writes a record of this host, with the JSON of body. When it returns nil, the record is on the disk.
// It does nothing if that is what stands there.
func (s *Store) Put(kind, name string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "record %s %q: %w", kind, name, err)
	}
	s.ownMu.Lock()
	defer s.ownMu.Unlock()
	if h := s.mine(kind, name); h != nil && !h.Deleted && bytes.Equal(h.Body, b) {
		return nil
	}
	return s.write(record.Record{Key: record.Key{Kind: kind, Name: name}, Body: b})
}

// Delete says that what a record of this host said is no more. It does nothing if there is none.
func (s *Store) Delete(kind, name string) error {
	s.ownMu.Lock()
	defer s.ownMu.Unlock()
	if h := s.mine(kind, name); h == nil || h.Deleted {
		return nil
	}
	return s.write(record.Record{Key: record.Key{Kind: kind, Name: name}, Deleted: true})
}

// Renew begins a new incarnation, above the given one, and says again in it all that this host says but what
// outlives a removal. A host that was removed and was let in again does that: what else it said before
// is forgotten, and what it had to give is another's.
func (s *Store) Renew(above uint64) error {
	s.ownMu.Lock()
	defer s.ownMu.Unlock()
	if err := s.incarnate(max(above, s.at.Incarnation)+1, gap{}); err != nil {
		return err
	}
	for _, r := range s.ownRecords() {
		if r.Deleted || outlives(r.Kind) {
			continue
		}
		if err := s.write(record.Record{Key: r.Key, Body: r.Body}); err != nil {
			return err
		}
	}
	return nil
}

// incarnate begins an incarnation, durably. Callers hold ownMu.
func (s *Store) incarnate(n uint64, missed gap) error {
	m := s.meta
	m.Incarnation = n
	if missed != (gap{}) {
		m.Gap = m.Gap.with(missed)
	}
	if err := state.Write(s.root, metaName, metaVersion, m); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.meta, s.at = m, record.Version{Incarnation: n}
	return nil
}

// mine returns what this host holds under a key of its own.
func (s *Store) mine(kind, name string) *held {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.kinds[kind][record.Key{Writer: s.self, Kind: kind, Name: name}]
}

// ownRecords returns all that this host holds of its own.
func (s *Store) ownRecords() []record.Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	w := s.writers[s.self]
	if w == nil {
		return nil
	}
	all := make([]record.Record, 0, len(w.records))
	for _, h := range w.records {
		all = append(all, h.Record)
	}
	return all
}

// write signs the record as the next one of this host, and keeps it. Callers hold ownMu.
func (s *Store) write(r record.Record) error {
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	if closed {
		return errdefs.Errorf(errdefs.ErrUnavailable, "record %s %q: the store is closed", r.Kind, r.Name)
	}
	r.Cluster, r.Written = s.cluster, s.now()
	r.Version = record.Version{Incarnation: s.at.Incarnation, Counter: s.at.Counter + 1}
	r, err := record.Sign(r, s.key)
	if err != nil {
		return err
	}
	if !r.Deleted {
		if err := s.room(r); err != nil {
			return err
		}
	}
	// The number is used up even if what follows fails: the record may be on the disk nevertheless.
	s.at = r.Version
	return s.keep(r)
}

// keep brings a record of this host to the disk and then to all who watch. Callers hold ownMu.
func (s *Store) keep(r record.Record) error {
	if s.own.broken || s.own.wasteful(s.ownBytes()) {
		var all []byte
		for _, o := range s.ownRecords() {
			if o.Key != r.Key {
				all = appendFrame(all, o)
			}
		}
		if err := s.own.rewrite(appendFrame(all, r)); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	} else if err := s.own.append(appendFrame(nil, r), true); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.mu.Lock()
	s.install(r, time.Now())
	s.mu.Unlock()
	s.spread([]record.Record{r})
	return nil
}

func (s *Store) ownBytes() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w := s.writers[s.self]; w != nil {
		n = w.bytes + len(w.records)*frameHeader
	}
	return n
}

// room says whether one more of this host's records would be refused by the others.
func (s *Store) room(r record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.full(&r); why != "" {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "record %s %q: %s of this host", r.Kind, r.Name, why),
			"spread containers and names over more hosts")
	}
	return nil
}
