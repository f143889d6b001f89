package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/usage"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// storage answers the control API's questions about what drivers can do beyond the plugin
// protocol.
type storage struct {
	volumes
}

var _ control.Storage = storage{}

// in does something in the pool that a request means, with a volume if it is given one. What is done
// ends when the pool does.
func in[T any](ctx context.Context, v volumes, name, of string, do func(context.Context, *pool) (T, error)) (T, error) {
	p, err := v.enter(ctx, name)
	if err != nil {
		var zero T
		return zero, err
	}
	defer p.leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(errStopping) })() //nolint:contextcheck // it ends with either
	t, err := do(ctx, p)
	return t, v.elsewhere(ctx, err, name, of)
}

// elsewhere gives an error a hint where no pool was named, and the volume is in another one.
func (v volumes) elsewhere(ctx context.Context, err error, pool, name string) error {
	if pool != "" || name == "" || !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrUnsupported) {
		return err
	}
	var all, at []string
	for _, p := range v.d.all() {
		all = append(all, p.conf.Name)
		if _, err := p.handler.Get(ctx, name); err == nil { // from memory
			at = append(at, p.conf.Name)
		}
	}
	meant, _ := control.ResolvePool(pool, all) // it is known already which
	if len(at) == 0 || slices.Contains(at, meant) {
		return err
	}
	return errdefs.Hint(err, fmt.Sprintf("pool %q has a volume of this name: --pool %s", at[0], at[0]))
}

// Clone implements [control.Storage].
func (s storage) Clone(ctx context.Context, req control.VolumeCloneRequest) (control.Volume, error) {
	if _, both := req.Options[makeOption]; both {
		return control.Volume{}, errTwoSources(req.Name)
	}
	return in(ctx, s.volumes, req.Pool, req.From, func(ctx context.Context, p *pool) (control.Volume, error) {
		ctx, release, err := p.claimClone(ctx, req)
		if err != nil {
			return control.Volume{}, err
		}
		defer release()
		if err := p.handler.Clone(ctx, req.Name, req.From, req.Snapshot, req.Options); err != nil {
			return control.Volume{}, err
		}
		return s.get(ctx, p, req.Name)
	})
}

// claimClone claims what is cloned, and what it becomes.
func (p *pool) claimClone(ctx context.Context, req control.VolumeCloneRequest) (context.Context, func(), error) {
	ctx, releaseSource, err := p.claims.take(ctx, p.conf.Name, req.From, looking, fmt.Sprintf("clone to %q", req.Name))
	if err != nil {
		return ctx, nil, err
	}
	ctx, release, err := p.claims.take(ctx, p.conf.Name, req.Name, changing, fmt.Sprintf("clone of %q", req.From))
	if err != nil {
		releaseSource()
		return ctx, nil, err
	}
	return ctx, func() { release(); releaseSource() }, nil
}

// Resize implements [control.Storage].
func (s storage) Resize(ctx context.Context, req control.VolumeResizeRequest) (control.Usage, error) {
	return in(ctx, s.volumes, req.Pool, req.Name, func(ctx context.Context, p *pool) (control.Usage, error) {
		size := req.Size
		if req.By != 0 {
			var err error
			if size, err = p.enlarged(ctx, req); err != nil {
				return control.Usage{}, err
			}
		}
		if err := p.handler.Resize(ctx, req.Name, size); err != nil {
			return control.Usage{}, err
		}
		if u, err := p.handler.Usage(ctx, req.Name); err == nil {
			return control.Usage{Used: u.Used, Limit: u.Limit}, nil
		}
		return control.Usage{Limit: size}, nil // it is resized, whatever can be said of it now
	})
}

// enlarged returns the limit that a volume has, and By more.
func (p *pool) enlarged(ctx context.Context, req control.VolumeResizeRequest) (int64, error) {
	fail := func(text string) (int64, error) {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "volume %q: %s", req.Name, text)
	}
	if req.Size != 0 {
		return fail("a size, or by how much it is to grow, and not both")
	}
	u, err := p.handler.Usage(ctx, req.Name)
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
func (s storage) Rollback(ctx context.Context, req control.VolumeRollbackRequest) error {
	_, err := in(ctx, s.volumes, req.Pool, req.Name, func(ctx context.Context, p *pool) (struct{}, error) {
		ctx, release, err := p.claims.take(ctx, p.conf.Name, req.Name, changing, fmt.Sprintf("rollback to %q", req.Snapshot))
		if err != nil {
			return struct{}{}, err
		}
		defer release()
		return struct{}{}, p.handler.Rollback(ctx, req.Name, req.Snapshot)
	})
	return err
}

// Usage implements [control.Storage]. A volume whose driver does not know its size, or only
// while it is mounted, is mounted for the time.
func (s storage) Usage(ctx context.Context, req control.VolumeRequest, progress func(control.Progress)) (control.Usage, error) {
	return in(ctx, s.volumes, req.Pool, req.Name, func(ctx context.Context, p *pool) (control.Usage, error) {
		v, err := p.handler.Get(ctx, req.Name)
		if err != nil {
			return control.Usage{}, err
		}
		u, err := p.handler.Usage(ctx, req.Name)
		if !errors.Is(err, errdefs.ErrUnsupported) {
			return control.Usage{Used: u.Used, Limit: u.Limit}, err
		}
		err = p.mounted(ctx, req.Name, func(ctx context.Context, dir string) error {
			if volume.Can[volume.Sizer](p.handler) {
				if u, err = p.handler.Usage(ctx, req.Name); !errors.Is(err, errdefs.ErrUnsupported) {
					return err
				}
			}
			u.Used, err = usage.Count(ctx, dir, func(files int64) { progress(control.Progress{Object: req.Name, Done: files}) })
			if err == nil && dir == v.Mountpoint {
				p.usage.Put(req.Name, v.CreatedAt.String(), dir, u.Used)
			}
			if err != nil {
				err = fmt.Errorf("volume %q: %w", req.Name, err)
			}
			return err
		})
		return control.Usage{Used: u.Used, Limit: u.Limit}, err
	})
}

// mounted does something while a volume is mounted.
func (p *pool) mounted(ctx context.Context, name string, do func(ctx context.Context, dir string) error) (err error) {
	id := p.ownMount + rand.Text()
	dir, err := p.handler.Mount(ctx, name, id)
	if err != nil {
		return err
	}
	defer func() { err = join(err, p.handler.Unmount(context.WithoutCancel(ctx), name, id)) }()
	return do(ctx, dir)
}

// Protect implements [control.Storage].
func (s storage) Protect(ctx context.Context, req control.VolumeProtectRequest) error {
	_, err := in(ctx, s.volumes, req.Pool, req.Name, func(ctx context.Context, p *pool) (struct{}, error) {
		return struct{}{}, p.protect(ctx, s.d.protected(), req.Name, req.Protected)
	})
	return err
}
