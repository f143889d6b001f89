package volumes

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/usage"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Clone implements [control.Storage].
func (s *Service) Clone(ctx context.Context, req control.VolumeCloneRequest) (control.Volume, error) {
	if _, both := req.Options[pool.BackupOption]; both {
		return control.Volume{}, pool.ErrTwoSources(req.Name)
	}
	return pool.In(ctx, s.Pools, req.Pool, req.From, func(ctx context.Context, p *pool.Pool) (control.Volume, error) {
		ctx, release, err := claimClone(ctx, p, req)
		if err != nil {
			return control.Volume{}, err
		}
		defer release()
		if err := p.Handler.Clone(ctx, req.Name, req.From, req.Snapshot, req.Options); err != nil {
			return control.Volume{}, err
		}
		return s.get(ctx, p, req.Name)
	})
}

// claimClone claims what is cloned, and what it becomes.
func claimClone(ctx context.Context, p *pool.Pool, req control.VolumeCloneRequest) (context.Context, func(), error) {
	ctx, releaseSource, err := p.Claims.Take(ctx, p.Conf.Name, req.From, pool.Looking, fmt.Sprintf("clone to %q", req.Name))
	if err != nil {
		return ctx, nil, err
	}
	ctx, release, err := p.Claims.Take(ctx, p.Conf.Name, req.Name, pool.Changing, fmt.Sprintf("clone of %q", req.From))
	if err != nil {
		releaseSource()
		return ctx, nil, err
	}
	return ctx, func() { release(); releaseSource() }, nil
}

// Resize implements [control.Storage].
func (s *Service) Resize(ctx context.Context, req control.VolumeResizeRequest) (control.Usage, error) {
	return pool.In(ctx, s.Pools, req.Pool, req.Name, func(ctx context.Context, p *pool.Pool) (control.Usage, error) {
		size := req.Size
		if req.By != 0 {
			var err error
			if size, err = enlarged(ctx, p, req); err != nil {
				return control.Usage{}, err
			}
		}
		if err := p.Handler.Resize(ctx, req.Name, size); err != nil {
			return control.Usage{}, err
		}
		if u, err := p.Handler.Usage(ctx, req.Name); err == nil {
			return control.Usage{Used: max(u.Used, 0), Limit: u.Limit}, nil
		}
		return control.Usage{Limit: size}, nil // it is resized, whatever can be said of it now
	})
}

// enlarged returns the limit that a volume has, and By more.
func enlarged(ctx context.Context, p *pool.Pool, req control.VolumeResizeRequest) (int64, error) {
	fail := func(text string) (int64, error) {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "volume %q: %s", req.Name, text)
	}
	if req.Size != 0 {
		return fail("a size, or by how much it is to grow, and not both")
	}
	u, err := p.Handler.Usage(ctx, req.Name)
	switch {
	case err != nil:
		return 0, err
	case u.Limit == 0:
		return fail("has no limit that could grow; name a size")
	case req.By < 0 || u.Limit > math.MaxInt64-req.By:
		return fail(fmt.Sprintf("cannot grow by %d bytes", req.By))
	}
	return u.Limit + req.By, nil
}

// Rollback implements [control.Storage].
func (s *Service) Rollback(ctx context.Context, req control.VolumeRollbackRequest) error {
	_, err := pool.In(ctx, s.Pools, req.Pool, req.Name, func(ctx context.Context, p *pool.Pool) (struct{}, error) {
		ctx, release, err := p.Claims.Take(ctx, p.Conf.Name, req.Name, pool.Changing, fmt.Sprintf("rollback to %q", req.Snapshot))
		if err != nil {
			return struct{}{}, err
		}
		defer release()
		return struct{}{}, p.Handler.Rollback(ctx, req.Name, req.Snapshot)
	})
	return err
}

// Usage implements [control.Storage]. A volume whose driver does not know its size, or only
// while it is mounted, is mounted for the time.
func (s *Service) Usage(ctx context.Context, req control.VolumeRequest, progress func(control.Progress)) (control.Usage, error) {
	return pool.In(ctx, s.Pools, req.Pool, req.Name, func(ctx context.Context, p *pool.Pool) (control.Usage, error) {
		v, err := p.Handler.Get(ctx, req.Name)
		if err != nil {
			return control.Usage{}, err
		}
		u, err := p.Handler.Usage(ctx, req.Name)
		if !errors.Is(err, errdefs.ErrUnsupported) && u.Used != volume.Unknown {
			return control.Usage{Used: u.Used, Limit: u.Limit}, err
		}
		err = p.Mounted(ctx, req.Name, func(ctx context.Context, dir string) error {
			if volume.Can[volume.Sizer](p.Handler) {
				if u, err = p.Handler.Usage(ctx, req.Name); !errors.Is(err, errdefs.ErrUnsupported) && u.Used != volume.Unknown {
					return err
				}
			}
			u.Used, err = usage.Count(ctx, dir, func(files int64) { progress(control.Progress{Object: req.Name, Done: files}) })
			if err == nil && dir == v.Mountpoint {
				p.Usage.Put(req.Name, v.CreatedAt.String(), dir, u.Used)
			}
			if err != nil {
				err = fmt.Errorf("volume %q: %w", req.Name, err)
			}
			return err
		})
		return control.Usage{Used: u.Used, Limit: u.Limit}, err
	})
}

// Protect implements [control.Storage].
func (s *Service) Protect(ctx context.Context, req control.VolumeProtectRequest) error {
	_, err := pool.In(ctx, s.Pools, req.Pool, req.Name, func(ctx context.Context, p *pool.Pool) (struct{}, error) {
		return struct{}{}, s.Protected.protect(ctx, p, req.Name, req.Protected)
	})
	return err
}
