package block

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// snapshots is the memory of which there are: asked for when somebody wants to know, and then for
// a while.
type snapshots struct {
	mu     sync.Mutex
	all    map[string]Snapshot // by ID
	gone   map[string]time.Time
	recent map[string]time.Time // those that we made, by ID
	asked  time.Time
	once   chan struct{} // full while somebody asks
}

// load asks the cloud for all snapshots, unless it was asked a short while ago.
func (s *snapshots) load(ctx context.Context, d *driver) error {
	p, ok := d.p.(Snapshotter)
	if !ok {
		return errdefs.Errorf(errdefs.ErrUnsupported, "%s has no snapshots", d.t.Kind)
	}
	s.mu.Lock()
	if s.once == nil {
		s.once, s.gone, s.recent = make(chan struct{}, 1), map[string]time.Time{}, map[string]time.Time{}
	}
	s.mu.Unlock()
	select {
	case s.once <- struct{}{}:
		defer func() { <-s.once }()
	case <-ctx.Done():
		return errdefs.Errorf(errdefs.ErrUnavailable, "the cloud does not answer: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	fresh := s.all != nil && time.Since(s.asked) < d.c.Refresh
	s.mu.Unlock()
	if fresh {
		return nil
	}
	began := time.Now()
	list, err := call(ctx, func(ctx context.Context) ([]Snapshot, error) {
		return p.Snapshots(ctx, Query{Namespace: d.c.Namespace})
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range s.gone {
		if time.Since(at) > 5*settled {
			delete(s.gone, id)
		}
	}
	was := s.all
	s.all, s.asked = map[string]Snapshot{}, began
	for _, sn := range list {
		if _, gone := s.gone[sn.ID]; !gone {
			s.all[sn.ID] = sn
		}
	}
	for id, at := range s.recent {
		if _, listed := s.all[id]; listed || time.Since(at) > settled {
			delete(s.recent, id)
		} else {
			s.all[id] = was[id]
		}
	}
	return nil
}

func (s *snapshots) askedBefore(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked.Before(t)
}

// of returns the snapshots of a volume, the oldest first.
func (s *snapshots) of(disk Disk) (all []Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sn := range s.all {
		if ofDisk(sn, disk) {
			all = append(all, sn)
		}
	}
	slices.SortFunc(all, func(a, b Snapshot) int {
		if c := takenAt(a).Compare(takenAt(b)); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// ofDisk tells whether a snapshot is one of a volume.
func ofDisk(sn Snapshot, disk Disk) bool {
	return sn.Tags[tagOf] == origin(disk) && sn.Tags[tagTemp] == "" && sn.State != Deleting && sn.State != Failed
}

// takenAt is when a snapshot was made, by our own clock where it was written down.
func takenAt(s Snapshot) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, s.Tags[tagMade]); err == nil {
		return at
	}
	return s.Created
}

// counts returns how many snapshots volumes have, by origin.
func (s *snapshots) counts(ctx context.Context, d *driver) (map[string]int, bool) {
	if err := s.load(ctx, d); err != nil {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, sn := range s.all {
		if sn.Tags[tagTemp] == "" && sn.State != Deleting && sn.State != Failed {
			n[sn.Tags[tagOf]]++
		}
	}
	return n, true
}

func (s *snapshots) put(sn Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all != nil {
		s.all[sn.ID], s.recent[sn.ID] = sn, time.Now()
	}
}

func (s *snapshots) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all != nil {
		delete(s.all, id)
		delete(s.recent, id)
		s.gone[id] = time.Now()
	}
}
