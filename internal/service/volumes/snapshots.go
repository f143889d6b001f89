package volumes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// CreateSnapshot implements [control.Storage].
func (s *Service) CreateSnapshot(ctx context.Context, req control.SnapshotCreateRequest) (control.Snapshot, error) {
	return pool.In(ctx, s.Pools, req.Pool, req.Volume, func(ctx context.Context, p *pool.Pool) (control.Snapshot, error) {
		name, err := s.Snapshots.Take(ctx, p, req)
		if name == "" {
			return control.Snapshot{}, err
		}
		made := snapshot.Seen(ctx, p, req, name)
		if err != nil {
			made.Errors = append(made.Errors, errdefs.OneLine(err.Error()))
		}
		return made, nil
	})
}

// RemoveSnapshot implements [control.Storage].
func (s *Service) RemoveSnapshot(ctx context.Context, req control.SnapshotRequest) error {
	_, err := pool.In(ctx, s.Pools, req.Pool, req.Volume, func(ctx context.Context, p *pool.Pool) (struct{}, error) {
		if strings.HasPrefix(req.Name, snapshot.OwnPrefix) { // a backup that reads it would find less and less
			if err := p.Claims.Check(ctx, p.Conf.Name, req.Volume, pool.BackingUp); err != nil {
				return struct{}{}, fmt.Errorf("volume %q: snapshot %q: %w", req.Volume, req.Name, err)
			}
		}
		return struct{}{}, p.Handler.RemoveSnapshot(ctx, req.Volume, req.Name)
	})
	return err
}

// listTime is how long a list of the snapshots of many volumes waits, in all.
const listTime = 5 * time.Second

// ListSnapshots implements [control.Storage].
func (s *Service) ListSnapshots(ctx context.Context, req control.SnapshotListRequest) (control.SnapshotList, error) {
	if req.Volume == "" && req.Pool == "" {
		ctx, cancel := context.WithTimeout(ctx, listTime)
		defer cancel()
		var list control.SnapshotList
		for _, p := range s.Pools.All() {
			if volume.Can[volume.Snapshotter](p.Handler) && p.Enter() {
				more := allSnapshots(ctx, p)
				list.Snapshots = append(list.Snapshots, more.Snapshots...)
				list.Errors = append(list.Errors, more.Errors...)
				p.Leave()
			}
		}
		return list, nil
	}
	return pool.In(ctx, s.Pools, req.Pool, req.Volume, func(ctx context.Context, p *pool.Pool) (control.SnapshotList, error) {
		if req.Volume == "" {
			if !volume.Can[volume.Snapshotter](p.Handler) {
				return control.SnapshotList{}, errdefs.Errorf(errdefs.ErrUnsupported, "pool %q: the driver cannot make snapshots", p.Conf.Name)
			}
			ctx, cancel := context.WithTimeout(ctx, listTime)
			defer cancel()
			return allSnapshots(ctx, p), nil
		}
		all, err := p.Handler.Snapshots(ctx, req.Volume)
		var list control.SnapshotList
		for _, x := range all {
			list.Snapshots = append(list.Snapshots, snapshot.Told(p, req.Volume, x))
		}
		return list, err
	})
}

// allSnapshots returns the snapshots of all volumes of a pool, as far as the driver tells them
// before ctx ends.
func allSnapshots(ctx context.Context, p *pool.Pool) (list control.SnapshotList) {
	var names []string
	for v, err := range p.Handler.List(ctx) { // from memory
		if err != nil {
			list.Errors = append(list.Errors, fmt.Sprintf("pool %q: %v", p.Conf.Name, err))
			return list
		}
		names = append(names, v.Name)
	}
	type answer struct {
		all []volume.Snapshot
		err error
	}
	answers := pool.Ask(ctx, p, len(names), func(i int) (a answer) { //nolint:contextcheck // it may outlast the caller
		a.all, a.err = p.Handler.Snapshots(p.Context(), names[i])
		return a
	})
	for i, name := range names {
		a, ok := answers[i]
		if !ok {
			a.err = errdefs.Errorf(context.DeadlineExceeded, "volume %q: the driver does not answer in time", name)
		}
		if a.err != nil && !errors.Is(a.err, errdefs.ErrNotFound) { // removed meanwhile
			list.Errors = append(list.Errors, errdefs.OneLine(a.err.Error()))
		}
		for _, x := range a.all {
			list.Snapshots = append(list.Snapshots, snapshot.Told(p, name, x))
		}
	}
	return list
}

// DiffSnapshot implements [control.Storage].
func (s *Service) DiffSnapshot(ctx context.Context, req control.SnapshotDiffRequest, each func(control.Change)) (control.Diff, error) {
	return pool.In(ctx, s.Pools, req.Pool, req.Volume, func(ctx context.Context, p *pool.Pool) (sum control.Diff, err error) {
		err = p.Handler.ReadSnapshot(ctx, req.Volume, req.From, func(ctx context.Context, from string) error {
			compare := func(ctx context.Context, to string) (err error) {
				if sum, err = snapshot.Diff(ctx, from, to, each); err != nil {
					err = fmt.Errorf("volume %q: %w", req.Volume, err)
				}
				return err
			}
			if req.To != "" {
				return p.Handler.ReadSnapshot(ctx, req.Volume, req.To, compare)
			}
			return p.Mounted(ctx, req.Volume, compare)
		})
		return sum, err
	})
}
