package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/trash"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// emptyTrash empties the pool's trash for as long as the pool lives. Where the configuration
// wants no trash, what is in it from before is left to people.
func (p *pool) emptyTrash(log *slog.Logger) {
	if !p.keepsTrash() {
		return
	}
	purger := &trash.Purger{Store: purgeable{p.handler, p}, Keep: p.conf.TrashKeep, MinFree: p.conf.TrashMinFree, Log: log.With(slog.String("pool", p.conf.Name))}
	p.calls.Go(func() { purger.Run(p.ctx) })
}

// purgeable is the trash of a pool without what a restore in place has put there that was cut off:
// it is finished with that, however old it is.
type purgeable struct {
	*volume.Handler
	p *pool
}

// Trashed implements [trash.Store].
func (s purgeable) Trashed(ctx context.Context) ([]volume.Trashed, error) {
	all, err := s.Handler.Trashed(ctx)
	return slices.DeleteFunc(all, func(t volume.Trashed) bool {
		f := s.p.fills.get(s.p.conf.Name, t.Name)
		return f.cutOff()
	}), err
}

// keepsTrash tells whether what is removed can be brought back.
func (p *pool) keepsTrash() bool {
	return p.conf.TrashKeep > 0 && volume.Can[volume.Trasher](p.handler)
}

// Trash implements [control.Storage].
func (s storage) Trash(ctx context.Context, req control.TrashListRequest) (control.TrashList, error) {
	if req.Pool != "" {
		return in(ctx, s.volumes, req.Pool, "", func(ctx context.Context, p *pool) (control.TrashList, error) {
			all, err := p.trashed(ctx)
			if err != nil {
				err = fmt.Errorf("pool %q: %w", p.conf.Name, err)
			}
			return control.TrashList{Trashed: all}, err
		})
	}
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, errdefs.Errorf(context.DeadlineExceeded, "the driver does not answer in time"))
	defer cancel()
	var mu sync.Mutex
	var list control.TrashList
	var wg sync.WaitGroup
	for _, p := range s.d.all() {
		if !volume.Can[volume.Trasher](p.handler) || !p.enter() {
			continue
		}
		wg.Go(func() {
			defer p.leave()
			all, err := p.trashed(ctx)
			mu.Lock()
			defer mu.Unlock()
			list.Trashed = append(list.Trashed, all...)
			if err != nil {
				list.Errors = append(list.Errors, errdefs.OneLine(fmt.Sprintf("pool %q: %v", p.conf.Name, err)))
			}
		})
	}
	wg.Wait()
	slices.SortFunc(list.Trashed, byAge)
	slices.Sort(list.Errors)
	return list, nil
}

// trashed returns what is in the trash of a pool, the oldest first.
func (p *pool) trashed(ctx context.Context) ([]control.Trashed, error) {
	found, err := p.handler.Trashed(ctx)
	all := make([]control.Trashed, 0, len(found))
	for _, t := range found {
		c := control.Trashed{Pool: p.conf.Name, Name: t.Name, ID: t.ID, RemovedAt: t.RemovedAt}
		if p.conf.TrashKeep > 0 {
			c.Expires = t.RemovedAt.Add(p.conf.TrashKeep)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, byAge)
	return all, err
}

// Restore implements [control.Storage].
func (s storage) Restore(ctx context.Context, req control.TrashRestoreRequest) (control.Volume, error) {
	return in(ctx, s.volumes, req.Pool, "", func(ctx context.Context, p *pool) (control.Volume, error) {
		ctx, release, err := p.claims.take(ctx, p.conf.Name, req.Name, changing, "undo")
		if err != nil {
			return control.Volume{}, err
		}
		defer release()
		if err := p.fills.mayUse(p.conf.Name)(ctx, req.Name); err != nil { // what comes back must not be taken for it
			return control.Volume{}, fmt.Errorf("volume %q: %w", req.Name, err)
		}
		if err := p.handler.Restore(ctx, req.ID, req.Name); err != nil {
			return control.Volume{}, err
		}
		return s.get(ctx, p, req.Name)
	})
}

// Purge implements [control.Storage].
func (s storage) Purge(ctx context.Context, req control.TrashRequest) error {
	_, err := in(ctx, s.volumes, req.Pool, "", func(ctx context.Context, p *pool) (struct{}, error) {
		err := p.handler.Purge(ctx, req.ID)
		if err != nil {
			err = fmt.Errorf("pool %q: %w", p.conf.Name, err)
		}
		return struct{}{}, err
	})
	return err
}
