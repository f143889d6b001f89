package plugins

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/managed"
	"github.com/remora-plugins/remora/internal/managed/volumes"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// drivers are the pools of this daemon and the managed plugins that have volumes.
type drivers struct {
	pools   *pool.Set
	plugins *managed.Manager
}

// local is what the docker command calls the driver where nobody names one.
const local = "local"

// Find implements [volumes.Drivers]. Where no driver is named it is the default pool.
func (d drivers) Find(_ context.Context, name string) (volumes.Named, error) {
	if p := d.pools.Find(name); p != nil {
		return volumes.Named{Name: name, Driver: poolDriver{p}}, nil
	}
	if name == "" || name == local {
		var names []string
		for _, p := range d.pools.All() {
			names = append(names, p.Name())
		}
		name, err := control.ResolvePool("", names)
		if err != nil {
			return volumes.Named{}, err
		}
		return volumes.Named{Name: name, Driver: poolDriver{d.pools.Find(name)}}, nil
	}
	p, err := d.plugins.VolumeDriver(name)
	if err != nil {
		return volumes.Named{}, err
	}
	return volumes.Named{Name: p.Name(), Driver: p}, nil
}

// All implements [volumes.Drivers].
func (d drivers) All(context.Context) []volumes.Named {
	var all []volumes.Named
	for _, p := range d.pools.All() {
		all = append(all, volumes.Named{Name: p.Name(), Driver: poolDriver{p}})
	}
	for _, p := range d.plugins.VolumeDrivers() {
		all = append(all, volumes.Named{Name: p.Name(), Driver: p})
	}
	slices.SortFunc(all, func(a, b volumes.Named) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// poolDriver is a pool as a volume driver.
type poolDriver struct{ p *pool.Pool }

var errGone = errdefs.Errorf(errdefs.ErrUnavailable, "the pool is being changed")

// in does something in the pool while it is open.
func (d poolDriver) in(do func(h *volume.Handler) error) error {
	if d.p == nil || !d.p.Enter() {
		return errGone
	}
	defer d.p.Leave()
	return do(d.p.Handler)
}

// Create implements [volumes.Driver].
func (d poolDriver) Create(ctx context.Context, name string, opts map[string]string) error {
	return d.in(func(h *volume.Handler) error { return h.Create(ctx, name, opts) })
}

// Remove implements [volumes.Driver].
func (d poolDriver) Remove(ctx context.Context, name string) error {
	return d.in(func(h *volume.Handler) error { return h.Remove(ctx, name) })
}

// Get implements [volumes.Driver].
func (d poolDriver) Get(ctx context.Context, name string) (info volume.Info, err error) {
	err = d.in(func(h *volume.Handler) error {
		v, err := h.Get(ctx, name)
		info = v.Info
		return err
	})
	if errors.Is(err, errdefs.ErrInvalid) { // no volume is called so
		err = errdefs.As(errdefs.ErrNotFound, err)
	}
	return info, err
}

// List implements [volumes.Driver].
func (d poolDriver) List(ctx context.Context) (all []volume.Info, err error) {
	err = d.in(func(h *volume.Handler) error {
		for v, err := range h.List(ctx) {
			if err != nil {
				return err
			}
			all = append(all, v.Info)
		}
		return nil
	})
	return all, err
}

// Scope implements [volumes.Driver].
func (d poolDriver) Scope(context.Context) string {
	scope := local
	_ = d.in(func(h *volume.Handler) error { scope = h.Scope(); return nil }) // else it is gone
	return scope
}
