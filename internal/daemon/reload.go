package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Reload implements [control.Daemon]: it reads the configuration, opens the drivers of
// the pools that are new or changed, and only when all of that has worked puts them in
// the place of the old.
func (d *Daemon) Reload(ctx context.Context) (control.Reload, error) {
	if d.pools.State() == pool.Stopping { // which holds the lock for as long as calls are in flight
		return control.Reload{}, pool.ErrStopping
	}
	select {
	case d.reloading <- struct{}{}:
		defer func() { <-d.reloading }()
	case <-d.life.Done():
		return control.Reload{}, pool.ErrStopping
	case <-ctx.Done():
		return control.Reload{}, context.Cause(ctx)
	}
	if d.pools.State() == pool.Stopping {
		return control.Reload{}, pool.ErrStopping
	}
	// Half a reload helps nobody who hangs up. A stop ends the waiting in it.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(d.life, func() { cancel(pool.ErrStopping) })() //nolint:contextcheck // the daemon's life is what it waits for
	notify("RELOADING=1\n" + monotonic())
	defer func() {
		if d.life.Err() == nil { // else systemd has been told of the stop
			notify("READY=1")
		}
	}()
	r, err := d.reload(ctx)
	for _, w := range r.Warnings {
		d.log.WarnContext(ctx, "configuration", slog.String("warning", w))
	}
	if err != nil {
		d.confErr.Store(&err)
		return control.Reload{}, err
	}
	d.confErr.Store(nil)
	d.log.InfoContext(ctx, "configuration taken over", slog.Any("added", r.Added), slog.Any("changed", r.Changed),
		slog.Any("removed", r.Removed), slog.Any("schedules", r.Schedules), slog.Any("hooks", r.Hooks), slog.Any("need_restart", r.NeedRestart))
	return r, nil
}

func (d *Daemon) reload(ctx context.Context) (control.Reload, error) {
	next, err := d.options.Load()
	if err != nil {
		return control.Reload{}, err
	}
	r := control.Reload{Warnings: next.Warnings, NeedRestart: needRestart(d.boot, next)}
	pools := d.pools.All()
	var at []config.Pool
	for _, p := range pools {
		at = append(at, p.Conf)
	}
	// What is at work counts, not what the last configuration asked for: a pool that could
	// not be started then is tried again.
	r.Added, r.Changed, r.Removed = compare(at, next.Pools)
	was := d.conf.Load()
	r.Schedules = changed(was.Schedules, next.Schedules, func(s schedule.Schedule) string { return s.Name })
	r.Verifies = changed(was.Verifies, next.Verifies, func(v config.Verify) string { return v.Name })
	r.Hooks = changed(was.Hooks, next.Hooks, func(h hook.Hook) string { return h.Name })
	drivers, err := d.openAll(ctx, next.Pools, slices.Concat(r.Added, r.Changed))
	if err != nil {
		return r, err
	}
	r.Repositories = changed(was.Repositories, next.Repositories, func(r config.Repository) string { return r.Name })
	d.conf.Store(next)
	defer d.schedule()
	defer d.recoverAll() //nolint:contextcheck // it ends with the pools
	defer d.backups.Forget()
	gone := slices.DeleteFunc(pools, func(p *pool.Pool) bool { return !slices.Contains(r.Removed, p.Conf.Name) })
	err = each(gone, func(p *pool.Pool) error {
		ctx, cancel := d.closing(ctx)
		defer cancel()
		return d.remove(ctx, p)
	})
	if err != nil {
		d.log.WarnContext(ctx, "pool did not end in order", slog.Any("error", err))
	}
	if d.life.Err() != nil {
		return r, errdefs.Join(pool.ErrStopping, closeDrivers(ctx, drivers))
	}
	fresh := slices.DeleteFunc(slices.Clone(next.Pools), func(p config.Pool) bool { return drivers[p.Name] == nil })
	return r, each(fresh, func(conf config.Pool) error {
		if old := d.pools.Find(conf.Name); old != nil {
			return d.replace(ctx, old, conf, drivers[conf.Name])
		}
		return d.add(ctx, conf, drivers[conf.Name])
	})
}

// add starts a pool that is new.
func (d *Daemon) add(ctx context.Context, conf config.Pool, driver volume.Driver) error {
	p, err := d.newPool(ctx, conf, driver)
	if err != nil {
		return err
	}
	if err := d.openDoor(ctx, p); err != nil {
		ctx, cancel := d.closing(ctx)
		defer cancel()
		return errdefs.Join(fmt.Errorf("pool %q: %w", conf.Name, err), p.Close(ctx))
	}
	d.put(ctx, p)
	p.Look(ctx)
	return nil
}

// put makes known a pool that is served.
func (d *Daemon) put(ctx context.Context, p *pool.Pool) {
	d.pools.Put(p)
	d.log.InfoContext(ctx, "pool serves", slog.String("pool", p.Conf.Name), slog.String("driver", p.Conf.Driver),
		slog.String("socket", d.doorOf(p.Name()).addr))
}

// remove ends a pool with all that is under way in it, and forgets it. ctx bounds it.
func (d *Daemon) remove(ctx context.Context, p *pool.Pool) error {
	at := d.doorOf(p.Name())
	if p.Ended() {
		d.forget(p, at) // who waits for another in its place would keep the door from being closed
	}
	var err error
	if !at.kept || d.pools.State() == pool.Stopping {
		if err = at.close(ctx); err != nil {
			err = fmt.Errorf("pool %q: %w", p.Conf.Name, errdefs.Join(err))
		}
	}
	err = errdefs.Join(err, p.Close(ctx))
	d.forget(p, at)
	d.giveBack(p.Name(), at)
	return err
}

// forget makes a pool unknown, and lets those go on who wait for another in its place.
func (d *Daemon) forget(p *pool.Pool, at *door) {
	at.behind.CompareAndSwap(p, nil)
	d.pools.Forget(p)
}

// replace closes a pool and starts another behind its door. Where that fails the old one
// is started again.
func (d *Daemon) replace(ctx context.Context, old *pool.Pool, conf config.Pool, driver volume.Driver) error {
	closing, cancel := d.closing(ctx)
	defer cancel()
	if err := old.Close(closing); err != nil {
		d.log.WarnContext(ctx, "pool did not end in order", slog.Any("error", err))
	}
	p, err := d.newPool(ctx, conf, driver)
	if err != nil {
		again, openErr := d.openDriver(ctx, old.Conf)
		if openErr == nil {
			p, openErr = d.newPool(ctx, old.Conf, again)
		}
		if openErr != nil {
			closing, cancel := d.closing(ctx)
			defer cancel()
			return errdefs.Join(err, openErr, d.remove(closing, old))
		}
	}
	d.doorOf(p.Name()).behind.Store(p)
	d.put(ctx, p)
	old.Release()
	p.Look(ctx)
	return err
}

// openAll opens the drivers of the pools called names, all or none.
func (d *Daemon) openAll(ctx context.Context, pools []config.Pool, names []string) (map[string]volume.Driver, error) {
	pools = slices.DeleteFunc(slices.Clone(pools), func(p config.Pool) bool { return !slices.Contains(names, p.Name) })
	var mu sync.Mutex
	drivers := map[string]volume.Driver{}
	err := each(pools, func(conf config.Pool) error {
		driver, err := d.openDriver(ctx, conf)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		drivers[conf.Name] = driver
		return nil
	})
	if err != nil {
		return nil, errdefs.Join(err, closeDrivers(ctx, drivers))
	}
	return drivers, nil
}

// closeDrivers closes drivers that came to no pool.
func closeDrivers(ctx context.Context, drivers map[string]volume.Driver) error {
	return each(slices.Sorted(maps.Keys(drivers)), func(pool string) error {
		if err := closeDriver(ctx, drivers[pool]); err != nil {
			return fmt.Errorf("pool %q: %w", pool, err)
		}
		return nil
	})
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

// needRestart returns the keys that differ from those the daemon was started with, and
// that a running daemon cannot change.
func needRestart(boot, next *config.Config) []string {
	was, now := map[string]string{}, map[string]string{}
	for _, v := range boot.Values() {
		was[v.Key] = v.Value
	}
	for _, v := range next.Values() {
		now[v.Key] = v.Value
	}
	var keys []string
	for _, k := range config.Keys() {
		if k.Restart && was[k.Name] != now[k.Name] {
			keys = append(keys, k.Name)
		}
	}
	return keys
}

// changed returns the names of those that are new, different or gone, sorted.
func changed[T any](old, next []T, name func(T) string) []string {
	was := map[string]T{}
	for _, s := range old {
		was[name(s)] = s
	}
	var names []string
	for _, s := range next {
		if o, ok := was[name(s)]; !ok || !reflect.DeepEqual(o, s) {
			names = append(names, name(s))
		}
		delete(was, name(s))
	}
	names = slices.AppendSeq(names, maps.Keys(was))
	slices.Sort(names)
	return names
}
