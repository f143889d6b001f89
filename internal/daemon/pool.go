package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/volumes"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// openTime bounds how long a driver may take to open. It has only to look at its options;
// storage is looked at later.
const openTime = 10 * time.Second

// openDriver finds the driver of a pool in the catalog and opens it. It changes nothing
// that a pool at work depends on.
func (d *Daemon) openDriver(ctx context.Context, conf config.Pool) (volume.Driver, error) {
	i := slices.IndexFunc(d.options.Drivers, func(v catalog.Volume) bool { return v.Name() == conf.Driver })
	if i < 0 {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "pool %q: no driver %q", conf.Name, conf.Driver)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTime, errdefs.Errorf(errdefs.ErrUnavailable, "gave up after %s", openTime))
	defer cancel()
	type opened struct {
		driver volume.Driver
		err    error
	}
	done := make(chan opened, 1)
	go func() {
		driver, err := d.options.Drivers[i].Open(ctx, conf.Options, catalog.Env{
			PoolName: conf.Name,
			StateDir: d.boot.StateDir,
			RunDir:   d.boot.RunDir,
			Logger:   d.log.With(slog.String("pool", conf.Name), slog.String("driver", conf.Driver)),
		})
		done <- opened{driver, err}
	}()
	select {
	case o := <-done:
		return o.driver, o.err
	case <-ctx.Done():
	}
	go func() {
		if o := <-done; o.err == nil {
			_ = closeDriver(ctx, o.driver) // nobody waits for it any more
		}
	}()
	return nil, fmt.Errorf("pool %q: driver %q does not open: %w", conf.Name, conf.Driver, context.Cause(ctx))
}

// closeDriver closes a driver that has no Handler which would.
func closeDriver(ctx context.Context, driver volume.Driver) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeTime, fmt.Errorf("gave up after %s", closeTime))
	defer cancel()
	return volume.CloseDriver(ctx, driver)
}

// newPool puts a Handler in front of driver. Where it fails, the driver is closed.
func (d *Daemon) newPool(ctx context.Context, conf config.Pool, driver volume.Driver) (*pool.Pool, error) {
	log := d.log.With(slog.String("pool", conf.Name))
	o := pool.Options{Conf: conf, MountRoot: filepath.Join(d.boot.RunDir, "mounts", conf.Name), Claims: &d.claims, Log: log}
	if d.network != nil && conf.Name == d.boot.Network.Driver {
		o.Beside = d.network.Plugins()
	}
	if a, ok := driver.(catalog.Adviser); ok {
		o.Advice = a.Advice
	}
	if a, ok := driver.(catalog.Describer); ok {
		o.About = a.About
	}
	var p *pool.Pool // before anybody can call
	h, err := volume.NewHandler(ctx, driver, volume.Options{
		Logger:           log,
		Observe:          d.metrics.observer(conf.Name),
		MountRoot:        o.MountRoot,
		GuardMountpoints: true,
		Ledger:           filepath.Join(d.boot.RunDir, "ledger", conf.Name+".jsonl"),
		Linger:           conf.Linger,
		MountGrace:       orNone(conf.MountGrace),
		Refresh:          orNone(conf.Refresh),
		Trash:            conf.TrashKeep > 0,
		// A driver that has an option of this name for something else is no Cloner, or takes
		// absolute paths.
		CloneOption: pool.CloneOption,
		MayRemove:   d.mayRemove(conf.Name),
		MayUse:      d.fills.MayUse(conf.Name),
		MakeOption:  pool.BackupOption,
		Make: func(ctx context.Context, name string, opts map[string]string) error {
			return d.restores.MakeVolume(ctx, p, name, opts)
		},
		Removed: d.fills.Removed(conf.Name),
		Own:     d.schedules.OwnOptions(conf.Name),
	})
	if err != nil {
		return nil, fmt.Errorf("pool %q: %w", conf.Name, errdefs.Join(err, closeDriver(ctx, driver)))
	}
	o.Handler = h
	p = pool.New(ctx, o)
	d.restores.Finish(ctx, p)
	volumes.EmptyTrash(p, d.fills)
	return p, nil
}

// mayRemove refuses the removal of a volume that something is done with, that is being filled, or that
// is protected.
func (d *Daemon) mayRemove(name string) func(context.Context, string) error {
	protected, filled := d.protected.MayRemove(name), d.fills.MayRemove(name)
	return func(ctx context.Context, of string) error {
		if err := d.claims.Check(ctx, name, of, pool.Changing); err != nil {
			return err
		}
		if err := filled(ctx, of); err != nil {
			return err
		}
		return protected(ctx, of)
	}
}

// orNone makes of a time of nothing what the SDK takes for it: there, zero is the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}
