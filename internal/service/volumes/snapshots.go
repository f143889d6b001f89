package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/snapshot"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// snapshotName is the form of the names of snapshots that are given none.
const snapshotName = "20060102-150405"

// CreateSnapshot implements [control.Storage].
func (s storage) CreateSnapshot(ctx context.Context, req control.SnapshotCreateRequest) (control.Snapshot, error) {
	return in(ctx, s.volumes, req.Pool, req.Volume, func(ctx context.Context, p *pool) (control.Snapshot, error) {
		name, err := p.takeSnapshot(ctx, req)
		if name == "" {
			return control.Snapshot{}, err
		}
		made := p.seen(ctx, req, name)
		if err != nil {
			made.Errors = append(made.Errors, errdefs.OneLine(err.Error()))
		}
		return made, nil
	})
}

// seen is a snapshot that has been made, as the driver tells it if it does.
func (p *pool) seen(ctx context.Context, req control.SnapshotCreateRequest, name string) control.Snapshot {
	all, _ := p.handler.Snapshots(ctx, req.Volume) // it is there, whatever can be said of it now
	if i := slices.IndexFunc(all, func(x volume.Snapshot) bool { return x.Name == name }); i >= 0 {
		return p.toSnapshot(req.Volume, all[i])
	}
	return control.Snapshot{Pool: p.conf.Name, Volume: req.Volume, Name: name, Labels: req.Labels}
}

// takeSnapshot makes a snapshot, with the hooks around it. There may be one although there is an
// error: that of a hook after it. Then its name is returned beside.
func (p *pool) takeSnapshot(ctx context.Context, req control.SnapshotCreateRequest) (name string, err error) {
	ctx, release, err := p.claims.take(ctx, p.conf.Name, req.Volume, looking, "snapshot")
	if err != nil {
		return "", err
	}
	defer release()
	end, err := p.begin(ctx, req.Volume, req.Labels)
	if err != nil {
		return "", err
	}
	name, err = p.nameSnapshot(ctx, req)
	return name, join(err, end(context.WithoutCancel(ctx)))
}

// nameSnapshot makes a snapshot, and a name for it where there is none. Two of the same second
// are told apart by a number.
func (p *pool) nameSnapshot(ctx context.Context, req control.SnapshotCreateRequest) (name string, err error) {
	if strings.HasPrefix(req.Name, snapshotPrefix) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "volume %q: snapshot %q: names with %q are those of backups, which remove them", req.Volume, req.Name, snapshotPrefix)
	}
	if req.Name != "" {
		if err := p.handler.CreateSnapshot(ctx, req.Volume, req.Name, req.Labels); err != nil {
			return "", err
		}
		return req.Name, nil
	}
	now := time.Now().Format(snapshotName)
	for n := 1; n < 100; n++ {
		name = now
		if n > 1 {
			name = fmt.Sprintf("%s-%d", now, n)
		}
		err = p.handler.CreateSnapshot(ctx, req.Volume, name, req.Labels)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, errdefs.ErrExists) {
			break
		}
	}
	return "", err
}

func (p *pool) toSnapshot(of string, s volume.Snapshot) control.Snapshot {
	return control.Snapshot{Pool: p.conf.Name, Volume: of, Name: s.Name, CreatedAt: s.CreatedAt, Labels: s.Labels}
}

// RemoveSnapshot implements [control.Storage].
func (s storage) RemoveSnapshot(ctx context.Context, req control.SnapshotRequest) error {
	_, err := in(ctx, s.volumes, req.Pool, req.Volume, func(ctx context.Context, p *pool) (struct{}, error) {
		if strings.HasPrefix(req.Name, snapshotPrefix) { // a backup that reads it would find less and less
			if err := p.claims.check(ctx, p.conf.Name, req.Volume, backingUp); err != nil {
				return struct{}{}, fmt.Errorf("volume %q: snapshot %q: %w", req.Volume, req.Name, err)
			}
		}
		return struct{}{}, p.handler.RemoveSnapshot(ctx, req.Volume, req.Name)
	})
	return err
}

// listTime is how long a list of the snapshots of many volumes waits, in all.
const listTime = 5 * time.Second

// ListSnapshots implements [control.Storage].
func (s storage) ListSnapshots(ctx context.Context, req control.SnapshotListRequest) (control.SnapshotList, error) {
	if req.Volume == "" && req.Pool == "" {
		ctx, cancel := context.WithTimeout(ctx, listTime)
		defer cancel()
		var list control.SnapshotList
		for _, p := range s.d.all() {
			if volume.Can[volume.Snapshotter](p.handler) && p.enter() {
				more := p.allSnapshots(ctx)
				list.Snapshots = append(list.Snapshots, more.Snapshots...)
				list.Errors = append(list.Errors, more.Errors...)
				p.leave()
			}
		}
		return list, nil
	}
	return in(ctx, s.volumes, req.Pool, req.Volume, func(ctx context.Context, p *pool) (control.SnapshotList, error) {
		if req.Volume == "" {
			if !volume.Can[volume.Snapshotter](p.handler) {
				return control.SnapshotList{}, errdefs.Errorf(errdefs.ErrUnsupported, "pool %q: the driver cannot make snapshots", p.conf.Name)
			}
			ctx, cancel := context.WithTimeout(ctx, listTime)
			defer cancel()
			return p.allSnapshots(ctx), nil
		}
		all, err := p.handler.Snapshots(ctx, req.Volume)
		var list control.SnapshotList
		for _, x := range all {
			list.Snapshots = append(list.Snapshots, p.toSnapshot(req.Volume, x))
		}
		return list, err
	})
}

// allSnapshots returns the snapshots of all volumes of a pool, as far as the driver tells them
// before ctx ends.
func (p *pool) allSnapshots(ctx context.Context) (list control.SnapshotList) {
	var names []string
	for v, err := range p.handler.List(ctx) { // from memory
		if err != nil {
			list.Errors = append(list.Errors, fmt.Sprintf("pool %q: %v", p.conf.Name, err))
			return list
		}
		names = append(names, v.Name)
	}
	var mu sync.Mutex
	found, errs := make([][]volume.Snapshot, len(names)), make([]error, len(names))
	for i := range errs {
		errs[i] = errdefs.Errorf(context.DeadlineExceeded, "volume %q: the driver does not answer in time", names[i])
	}
	next := 0
	var wg sync.WaitGroup
	for range min(askers, len(names)) {
		wg.Add(1)
		work := func() {
			defer wg.Done()
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(names) || ctx.Err() != nil {
					return
				}
				all, err := p.handler.Snapshots(p.ctx, names[i]) //nolint:contextcheck // it may outlast the caller
				mu.Lock()
				found[i], errs[i] = all, err
				mu.Unlock()
			}
		}
		if !p.asker(ctx, work) {
			wg.Done()
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	for i, name := range names {
		if errs[i] != nil && !errors.Is(errs[i], errdefs.ErrNotFound) { // removed meanwhile
			list.Errors = append(list.Errors, errdefs.OneLine(errs[i].Error()))
		}
		for _, x := range found[i] {
			list.Snapshots = append(list.Snapshots, p.toSnapshot(name, x))
		}
	}
	return list
}

// DiffSnapshot implements [control.Storage].
func (s storage) DiffSnapshot(ctx context.Context, req control.SnapshotDiffRequest, each func(control.Change)) (control.Diff, error) {
	return in(ctx, s.volumes, req.Pool, req.Volume, func(ctx context.Context, p *pool) (sum control.Diff, err error) {
		err = p.handler.ReadSnapshot(ctx, req.Volume, req.From, func(ctx context.Context, from string) error {
			compare := func(ctx context.Context, to string) (err error) {
				if sum, err = snapshot.Diff(ctx, from, to, each); err != nil {
					err = fmt.Errorf("volume %q: %w", req.Volume, err)
				}
				return err
			}
			if req.To != "" {
				return p.handler.ReadSnapshot(ctx, req.Volume, req.To, compare)
			}
			return p.mounted(ctx, req.Volume, compare)
		})
		return sum, err
	})
}

// byAge orders what is in the trash by pool and age.
func byAge(a, b control.Trashed) int {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), a.RemovedAt.Compare(b.RemovedAt), cmp.Compare(a.ID, b.ID))
}
