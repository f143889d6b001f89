package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Reload implements [control.Daemon]: it reads the configuration, opens the drivers of
// the pools that are new or changed, and only when all of that has worked puts them in
// the place of the old.
func (d *Daemon) Reload(ctx context.Context) (control.Reload, error) {
	if d.state.Load() == stopping { // which holds the lock for as long as calls are in flight
		return control.Reload{}, errStopping
	}
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.state.Load() == stopping {
		return control.Reload{}, errStopping
	}
	ctx = context.WithoutCancel(ctx) // half a reload helps nobody
	notify("RELOADING=1\n" + monotonic())
	defer notify("READY=1")
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
		slog.Any("removed", r.Removed), slog.Any("need_restart", r.NeedRestart))
	return r, nil
}

func (d *Daemon) reload(ctx context.Context) (control.Reload, error) {
	next, err := d.options.Load()
	if err != nil {
		return control.Reload{}, err
	}
	r := control.Reload{Warnings: next.Warnings, NeedRestart: needRestart(d.boot, next)}
	pools := d.all()
	var at []config.Pool
	for _, p := range pools {
		at = append(at, p.conf)
	}
	// What is at work counts, not what the last configuration asked for: a pool that could
	// not be started then is tried again.
	r.Added, r.Changed, r.Removed = compare(at, next.Pools)
	drivers, err := d.openAll(ctx, next.Pools, slices.Concat(r.Added, r.Changed))
	if err != nil {
		return r, err
	}
	d.conf.Store(next)
	var errs []error
	for _, p := range pools {
		if !slices.Contains(r.Removed, p.conf.Name) {
			continue
		}
		if err := d.remove(ctx, p); err != nil {
			d.log.WarnContext(ctx, "pool did not end in order", slog.Any("error", err))
		}
	}
	for _, conf := range next.Pools {
		driver, ok := drivers[conf.Name]
		if !ok {
			continue
		}
		if old := d.find(conf.Name); old != nil {
			err = d.replace(ctx, old, conf, driver)
		} else {
			err = d.add(ctx, conf, driver)
		}
		errs = append(errs, err)
	}
	return r, join(errs...)
}

// add starts a pool that is new.
func (d *Daemon) add(ctx context.Context, conf config.Pool, driver volume.Driver) error {
	p, err := d.newPool(ctx, conf, driver)
	if err != nil {
		return err
	}
	if err := d.openDoor(ctx, p); err != nil {
		return join(fmt.Errorf("pool %q: %w", conf.Name, err), p.close(ctx))
	}
	d.put(ctx, p)
	return nil
}

// put makes known a pool that is served.
func (d *Daemon) put(ctx context.Context, p *pool) {
	d.mu.Lock()
	d.pools[p.conf.Name] = p
	d.mu.Unlock()
	d.log.InfoContext(ctx, "pool serves", slog.String("pool", p.conf.Name), slog.String("driver", p.conf.Driver),
		slog.String("socket", p.door.addr))
}

// remove ends a pool with all that is under way in it, and forgets it.
func (d *Daemon) remove(ctx context.Context, p *pool) error {
	err := p.door.close()
	if err != nil {
		err = fmt.Errorf("pool %q: %w", p.conf.Name, err)
	}
	err = join(err, p.close(ctx))
	p.door.behind.Store(nil)
	d.mu.Lock()
	delete(d.pools, p.conf.Name)
	d.mu.Unlock()
	close(p.replaced)
	return err
}

// replace closes a pool and starts another behind its door. Where that fails the old one
// is started again.
func (d *Daemon) replace(ctx context.Context, old *pool, conf config.Pool, driver volume.Driver) error {
	if err := old.close(ctx); err != nil {
		d.log.WarnContext(ctx, "pool did not end in order", slog.Any("error", err))
	}
	p, err := d.newPool(ctx, conf, driver)
	if err != nil {
		again, openErr := d.openDriver(ctx, old.conf)
		if openErr == nil {
			p, openErr = d.newPool(ctx, old.conf, again)
		}
		if openErr != nil {
			return join(err, openErr, d.remove(ctx, old))
		}
	}
	old.door.put(p)
	d.put(ctx, p)
	close(old.replaced)
	return err
}

// openAll opens the drivers of the pools called names, all or none.
func (d *Daemon) openAll(ctx context.Context, pools []config.Pool, names []string) (map[string]volume.Driver, error) {
	drivers := map[string]volume.Driver{}
	for _, conf := range pools {
		if !slices.Contains(names, conf.Name) {
			continue
		}
		driver, err := d.openDriver(ctx, conf)
		if err != nil {
			for name, driver := range drivers {
				if cerr := closeDriver(driver); cerr != nil {
					err = join(err, fmt.Errorf("pool %q: %w", name, cerr))
				}
			}
			return nil, err
		}
		drivers[conf.Name] = driver
	}
	return drivers, nil
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

// joined is several errors on one line.
type joined []error

func (j joined) Error() string {
	texts := make([]string, 0, len(j))
	for _, err := range j {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }

// join is errors.Join on one line.
func join(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return joined(errs)
}
