package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Reload implements [control.Daemon]: it reads the configuration, opens the drivers of
// the pools that are new or changed, and only when all of that has worked puts them in
// the place of the old.
func (d *Daemon) Reload(ctx context.Context) (control.Reload, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	notify("RELOADING=1\n" + monotonic())
	defer notify("READY=1")
	r, err := d.reload(ctx)
	if err != nil {
		d.confErr.Store(&err)
		return control.Reload{}, err
	}
	d.confErr.Store(nil)
	d.log.InfoContext(ctx, "configuration taken over", slog.Any("added", r.Added), slog.Any("changed", r.Changed),
		slog.Any("removed", r.Removed), slog.Any("need_restart", r.NeedRestart))
	return r, nil
}

func (d *Daemon) reload(ctx context.Context) (control.Reload, error) {
	next, err := d.options.Load()
	if err != nil {
		return control.Reload{}, err
	}
	old := d.conf.Load()
	r := control.Reload{Warnings: next.Warnings, NeedRestart: needRestart(old, next)}
	// What needs a restart stays as it is, for the pools that start now as well.
	next.PluginDir, next.RunDir, next.StateDir = old.PluginDir, old.RunDir, old.StateDir
	r.Added, r.Changed, r.Removed = compare(old.Pools, next.Pools)
	drivers, err := d.openAll(ctx, next, append(slices.Clone(r.Added), r.Changed...))
	if err != nil {
		return control.Reload{}, err
	}
	d.conf.Store(next)
	var errs []error
	for _, name := range append(slices.Clone(r.Removed), r.Changed...) {
		if p := d.find(name); p != nil {
			errs = append(errs, p.close(context.WithoutCancel(ctx)))
			d.drop(name)
		}
	}
	for _, pc := range next.Pools {
		driver, ok := drivers[pc.Name]
		if !ok {
			continue
		}
		p, err := d.startPool(ctx, pc, driver, d.listener(pc.Name, filepath.Join(next.PluginDir, pc.Name+".sock")))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.put(p)
	}
	return r, errors.Join(errs...)
}

// openAll opens the drivers of the pools called names, all or none.
func (d *Daemon) openAll(ctx context.Context, conf *config.Config, names []string) (map[string]volume.Driver, error) {
	drivers := map[string]volume.Driver{}
	for _, pc := range conf.Pools {
		if !slices.Contains(names, pc.Name) {
			continue
		}
		driver, err := openDriver(ctx, d.options.Drivers, pc, d.env(conf, pc))
		if err != nil {
			for name, driver := range drivers {
				if c, ok := driver.(io.Closer); ok {
					err = errors.Join(err, wrap(name, c.Close()))
				}
			}
			return nil, err
		}
		drivers[pc.Name] = driver
	}
	return drivers, nil
}

func wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pool %q: %w", name, err)
}

func (d *Daemon) find(name string) *pool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.pools[name]
}

// compare returns the names of the pools that are new, different and gone, sorted.
func compare(old, next []config.Pool) (added, changed, removed []string) {
	was := map[string]config.Pool{}
	for _, p := range old {
		was[p.Name] = p
	}
	for _, p := range next {
		o, ok := was[p.Name]
		switch {
		case !ok:
			added = append(added, p.Name)
		case !reflect.DeepEqual(o, p):
			changed = append(changed, p.Name)
		}
		delete(was, p.Name)
	}
	for name := range was {
		removed = append(removed, name)
	}
	slices.Sort(added)
	slices.Sort(changed)
	slices.Sort(removed)
	return added, changed, removed
}

// needRestart returns the keys that differ and that a running daemon cannot change.
func needRestart(old, next *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key      string
		old, now any
	}{
		{"plugin_dir", old.PluginDir, next.PluginDir},
		{"run_dir", old.RunDir, next.RunDir},
		{"state_dir", old.StateDir, next.StateDir},
		{"log", old.Log, next.Log},
		{"control", old.Control, next.Control},
	} {
		if !reflect.DeepEqual(k.old, k.now) {
			keys = append(keys, k.key)
		}
	}
	return keys
}
