package volumes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/trash"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// EmptyTrash empties the pool's trash for as long as the pool lives. Where the configuration
// wants no trash, what is in it from before is left to people.
func EmptyTrash(p *pool.Pool, fills *fill.Fills) {
	if !p.KeepsTrash() {
		return
	}
	purger := &trash.Purger{Store: purgeable{p.Handler, p.Conf.Name, fills}, Keep: p.Conf.TrashKeep, MinFree: p.Conf.TrashMinFree, Log: p.Log}
	p.Go(purger.Run)
}

// purgeable is the trash of a pool without what a restore in place has put there that was cut off:
// it is finished with that, however old it is.
type purgeable struct {
	*volume.Handler
	pool  string
	fills *fill.Fills
}

// Trashed implements [trash.Store].
func (s purgeable) Trashed(ctx context.Context) ([]volume.Trashed, error) {
	all, err := s.Handler.Trashed(ctx)
	return slices.DeleteFunc(all, func(t volume.Trashed) bool {
		return s.fills.Get(s.pool, t.Name).CutOff()
	}), err
}

// Trash implements [control.Storage].
func (s *Service) Trash(ctx context.Context, req control.TrashListRequest) (control.TrashList, error) {
	if req.Pool != "" {
		return pool.In(ctx, s.Pools, req.Pool, "", func(ctx context.Context, p *pool.Pool) (control.TrashList, error) {
			all, err := trashed(ctx, p)
			if err != nil {
				err = fmt.Errorf("pool %q: %w", p.Conf.Name, err)
			}
			return control.TrashList{Trashed: all}, err
		})
	}
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, errdefs.Errorf(context.DeadlineExceeded, "the driver does not answer in time"))
	defer cancel()
	var mu sync.Mutex
	var list control.TrashList
	var wg sync.WaitGroup
	for _, p := range s.Pools.All() {
		if !volume.Can[volume.Trasher](p.Handler) || !p.Enter() {
			continue
		}
		wg.Go(func() {
			defer p.Leave()
			all, err := trashed(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			list.Trashed = append(list.Trashed, all...)
			if err != nil {
				list.Errors = append(list.Errors, errdefs.OneLine(fmt.Sprintf("pool %q: %v", p.Conf.Name, err)))
			}
		})
	}
	wg.Wait()
	slices.SortFunc(list.Trashed, byAge)
	slices.Sort(list.Errors)
	return list, nil
}

// trashed returns what is in the trash of a pool, the oldest first.
func trashed(ctx context.Context, p *pool.Pool) ([]control.Trashed, error) {
	found, err := p.Handler.Trashed(ctx)
	all := make([]control.Trashed, 0, len(found))
	for _, t := range found {
		c := control.Trashed{Pool: p.Conf.Name, Name: t.Name, ID: t.ID, RemovedAt: t.RemovedAt}
		if p.Conf.TrashKeep > 0 {
			c.Expires = t.RemovedAt.Add(p.Conf.TrashKeep)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, byAge)
	return all, err
}

// Restore implements [control.Storage].
func (s *Service) Restore(ctx context.Context, req control.TrashRestoreRequest) (control.Volume, error) {
	return pool.In(ctx, s.Pools, req.Pool, "", func(ctx context.Context, p *pool.Pool) (control.Volume, error) {
		ctx, release, err := p.Claims.Take(ctx, p.Conf.Name, req.Name, pool.Changing, "undo")
		if err != nil {
			return control.Volume{}, err
		}
		defer release()
		if err := s.Fills.MayUse(p.Conf.Name)(ctx, req.Name); err != nil { // what comes back must not be taken for it
			return control.Volume{}, fmt.Errorf("volume %q: %w", req.Name, err)
		}
		if err := p.Handler.Restore(ctx, req.ID, req.Name); err != nil {
			return control.Volume{}, err
		}
		return s.get(ctx, p, req.Name)
	})
}

// Purge implements [control.Storage].
func (s *Service) Purge(ctx context.Context, req control.TrashRequest) error {
	_, err := pool.In(ctx, s.Pools, req.Pool, "", func(ctx context.Context, p *pool.Pool) (struct{}, error) {
		err := p.Handler.Purge(ctx, req.ID)
		if err != nil {
			err = fmt.Errorf("pool %q: %w", p.Conf.Name, err)
		}
		return struct{}{}, err
	})
	return err
}

// byAge orders what is in the trash by pool and age.
func byAge(a, b control.Trashed) int {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), a.RemovedAt.Compare(b.RemovedAt), cmp.Compare(a.ID, b.ID))
}
