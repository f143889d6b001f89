package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// volumes answers the control API's questions about volumes, by the same Handler that
// engines speak to.
type volumes struct {
	d *Daemon
}

// enter returns the pool that a request means, and keeps it from being closed until its
// leave is called. While a pool is changed by a reload it waits.
func (v volumes) enter(ctx context.Context, name string) (*pool, error) {
	for {
		pools := v.d.all()
		names := make([]string, 0, len(pools))
		for _, p := range pools {
			names = append(names, p.conf.Name)
		}
		found, err := control.ResolvePool(name, names)
		switch state := v.d.state.Load(); {
		case state == stopping:
			return nil, errStopping
		case err != nil && state == starting:
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "daemon: starting, its pools are not all there yet")
		case err != nil:
			return nil, err
		}
		p := pools[slices.Index(names, found)]
		if p.enter() {
			return p, nil
		}
		select {
		case <-p.replaced:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Create implements [control.Volumes].
func (v volumes) Create(ctx context.Context, req control.VolumeCreateRequest) (control.Volume, error) {
	p, err := v.enter(ctx, req.Pool)
	if err != nil {
		return control.Volume{}, err
	}
	defer p.leave()
	if err := p.handler.Create(ctx, req.Name, req.Options); err != nil {
		return control.Volume{}, err
	}
	return v.get(ctx, p, req.Name)
}

// List implements [control.Volumes].
func (v volumes) List(ctx context.Context, req control.VolumeListRequest) ([]control.Volume, error) {
	var engines <-chan struct{}
	if req.Usage {
		engines = v.d.consumers.ask(v.d) //nolint:contextcheck // whoever asks next has the answer too
	}
	late := time.NewTimer(consumerTime)
	defer late.Stop()
	pools := v.d.all()
	if req.Pool != "" {
		p, err := v.enter(ctx, req.Pool)
		if err != nil {
			return nil, err
		}
		defer p.leave()
		pools = []*pool{p}
	}
	all := []control.Volume{}
	ends := map[*pool]int{}
	for _, p := range pools {
		protected := v.d.protected().all(p.conf.Name)
		for vol, err := range p.handler.List(ctx) {
			if err != nil {
				if req.Pool == "" {
					break // the pools that answer are worth showing; Status says what is wrong
				}
				return nil, fmt.Errorf("pool %q: %w", p.conf.Name, err)
			}
			c := p.toControl(vol)
			c.Status, c.Options = nil, nil
			c.Protected = protected[c.Name]
			all = append(all, c)
		}
		ends[p] = len(all)
	}
	if req.Usage {
		each := make([]*control.Volume, len(all))
		for i := range all {
			each[i] = &all[i]
		}
		byPool, from := map[*pool][]*control.Volume{}, 0
		for _, p := range pools {
			byPool[p] = each[from:ends[p]]
			from = ends[p]
		}
		addDetails(ctx, byPool)
		v.d.made.addLast(each, v.d.conf.Load().Repositories)
		v.d.addConsumers(ctx, each, engines, late.C)
	}
	return all, nil
}

// Inspect implements [control.Volumes].
func (v volumes) Inspect(ctx context.Context, req control.VolumeRequest) (control.Volume, error) {
	p, err := v.enter(ctx, req.Pool)
	if err != nil {
		return control.Volume{}, err
	}
	defer p.leave()
	c, err := v.get(ctx, p, req.Name)
	if err == nil {
		late := time.NewTimer(consumerTime)
		defer late.Stop()
		engines, one := v.d.consumers.ask(v.d), []*control.Volume{&c} //nolint:contextcheck // whoever asks next has the answer too
		addDetails(ctx, map[*pool][]*control.Volume{p: one})
		v.d.made.addLast(one, v.d.conf.Load().Repositories)
		v.d.addConsumers(ctx, one, engines, late.C)
	}
	return c, v.elsewhere(ctx, err, req.Pool, req.Name)
}

// Remove implements [control.Volumes].
func (v volumes) Remove(ctx context.Context, req control.VolumeRemoveRequest) error {
	p, err := v.enter(ctx, req.Pool)
	if err != nil {
		return err
	}
	defer p.leave()
	v.d.giveUpFill(ctx, p, req.Name)
	if req.Purge {
		return p.handler.Destroy(ctx, req.Name)
	}
	err = p.handler.Remove(ctx, req.Name)
	if p.keepsTrash() && errors.Is(err, syscall.ENOSPC) {
		err = errdefs.Hint(err, "remora volume rm --purge destroys it at once, beside the trash")
	}
	return v.elsewhere(ctx, err, req.Pool, req.Name)
}

// Mount implements [control.Volumes].
func (v volumes) Mount(ctx context.Context, req control.VolumeMountRequest) (string, error) {
	if req.ID == "" {
		return "", errNoID
	}
	p, err := v.enter(ctx, req.Pool)
	if err != nil {
		return "", err
	}
	defer p.leave()
	at, err := p.handler.Mount(ctx, req.Name, req.ID)
	return at, v.elsewhere(ctx, err, req.Pool, req.Name)
}

// Unmount implements [control.Volumes]. Unlike an engine, a person is told when there is
// no such volume.
func (v volumes) Unmount(ctx context.Context, req control.VolumeMountRequest) error {
	if req.ID == "" {
		return errNoID
	}
	p, err := v.enter(ctx, req.Pool)
	if err != nil {
		return err
	}
	defer p.leave()
	if _, err := p.handler.Get(ctx, req.Name); err != nil {
		return v.elsewhere(ctx, err, req.Pool, req.Name)
	}
	return p.handler.Unmount(ctx, req.Name, req.ID)
}

var errStopping = errdefs.Errorf(errdefs.ErrUnavailable, "daemon: stopping")

var errNoID = errdefs.Errorf(errdefs.ErrInvalid, "mount ID is empty")

// Path implements [control.Volumes].
func (v volumes) Path(ctx context.Context, req control.VolumeRequest) (string, error) {
	p, err := v.enter(ctx, req.Pool)
	if err != nil {
		return "", err
	}
	defer p.leave()
	path, err := p.handler.Path(ctx, req.Name)
	return path, v.elsewhere(ctx, err, req.Pool, req.Name)
}

func (v volumes) get(ctx context.Context, p *pool, name string) (control.Volume, error) {
	vol, err := p.handler.Get(ctx, name)
	if err != nil {
		return control.Volume{}, err
	}
	c := p.toControl(vol)
	c.Protected, _ = v.d.protected().has(p.conf.Name, name) // what cannot be read protects still
	c.Schedules = v.d.asked.of(p.conf.Name, name)
	return c, nil
}

func (p *pool) toControl(v volume.Volume) control.Volume {
	c := control.Volume{
		Pool:       p.conf.Name,
		Driver:     p.conf.Driver,
		Name:       v.Name,
		CreatedAt:  v.CreatedAt,
		Mountpoint: v.Mountpoint,
		Mounted:    len(v.Mounts) > 0,
		Status:     v.Status,
		Options:    v.Options,
		Restoring:  p.fills.word(p.conf.Name, v.Name),
	}
	for _, m := range v.Mounts {
		c.Mounts = append(c.Mounts, control.Mount{ID: m.ID, Count: m.Count, Since: m.Since})
	}
	slices.SortStableFunc(c.Mounts, func(a, b control.Mount) int {
		if n := a.Since.Compare(b.Since); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return c
}
