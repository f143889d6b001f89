// Package daemon puts Remora together: from a configuration it opens the pools, serves
// each to engines on its own socket and all of them to people on the control socket,
// reloads without a gap when the configuration changes, and stops without a call half
// done. Only here do drivers, SDK and control API meet.
//
// It keeps nothing of its own: volumes are what the drivers find, mounts what the
// ledgers below the run directory say.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/internal/service/network"
	"github.com/remora-plugins/remora/internal/service/plugins"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// lookEvery is how often the storage of each pool is looked at for the metrics and for
// "remora status". One that was out of reach is looked at again sooner: what it waits for may just be starting.
const (
	lookEvery = 30 * time.Second
	lookAgain = 5 * time.Second
)

// Options of [Run].
type Options struct {
	// Load reads the configuration; it is called at start and at each reload.
	Load func() (*config.Config, error)
	// Drivers are the drivers there are.
	Drivers []catalog.Volume
	// Network is the driver of networks across hosts; without one there is no such network.
	Network catalog.Network
	// Version is told to whoever asks.
	Version string
	// CreateWait is how long the creation of a volume from a backup waits for it; 0 is as long as
	// engines allow.
	CreateWait time.Duration
	// Logger returns the logger that a configuration asks for.
	Logger func(*config.Config) *slog.Logger
}

// Daemon is a running daemon.
type Daemon struct {
	options Options
	log     *slog.Logger
	metrics *metrics
	started time.Time
	// boot is the configuration of the start: what cannot be changed later is taken from
	// it. conf is the one in force.
	boot *config.Config
	conf atomic.Pointer[config.Config]
	// confErr is why the last reload was refused.
	confErr atomic.Pointer[error]

	// life ends when the daemon stops.
	life context.Context //nolint:containedctx // that of the daemon itself, which end ends
	end  context.CancelCauseFunc
	// settled ends what only a start needs, of the daemon or of the network that is launched later.
	settled *time.Timer
	// reloading is full while pools come and go.
	reloading chan struct{}
	// kept are the doors that systemd keeps; there are never more of them.
	kept []*door

	pools  pool.Set
	claims pool.Claims
	hooks  hook.Runner
	// plugins are managed ones.
	plugins *plugins.Service
	// network is that across hosts, nil if there is none.
	network *network.Service
	// alone serves it where no pool does, nil if there is no need.
	alone *api
	services

	mu    sync.RWMutex
	doors map[string]*door // by the name of the pool
}

// Run runs the daemon until ctx ends, and reloads at SIGHUP. It returns nil after a stop
// in which no call was cut short.
func Run(ctx context.Context, o Options) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before anything else: a reload that comes early must not kill
	defer signal.Stop(hup)
	conf, err := o.Load()
	if err != nil {
		return err
	}
	d := &Daemon{
		options: o, log: o.Logger(conf), started: time.Now(), boot: conf,
		reloading: make(chan struct{}, 1), doors: map[string]*door{},
	}
	d.life, d.end = context.WithCancelCause(context.WithoutCancel(ctx))
	defer d.end(pool.ErrStopping)
	d.settled = time.AfterFunc(settle, func() { d.forgetStart(ctx) })
	defer d.settled.Stop()
	d.conf.Store(conf)
	d.metrics = newMetrics(d)
	d.hooks.Dir, d.hooks.Engines, d.hooks.Log = filepath.Join(conf.StateDir, "hooks"), d.engines, d.log
	d.openServices(ctx)
	defer d.backups.Close()
	d.pauser.Recover(ctx)
	defer d.pauser.Close()
	for _, w := range conf.Warnings {
		d.log.WarnContext(ctx, "configuration", slog.String("warning", w))
	}
	if err := d.inherit(); err != nil {
		return err
	}
	if d.network, err = d.openNetwork(ctx); err != nil {
		return err
	}
	d.plugins = d.openPlugins()
	api, err := d.serveControl(ctx)
	if err != nil {
		return errdefs.Join(err, d.plugins.Close(), d.closeNetwork(ctx))
	}
	pages, err := d.serveMetrics(ctx)
	if err != nil {
		return errdefs.Join(err, api.close(), d.plugins.Close(), d.closeNetwork(ctx))
	}
	engine, err := d.serveEngine(ctx)
	if err != nil {
		return errdefs.Join(err, pages.close(), api.close(), d.plugins.Close(), d.closeNetwork(ctx))
	}
	if d.network != nil {
		d.network.Start(ctx)
	}
	if d.alone, err = d.serveNetwork(ctx); err != nil {
		return errdefs.Join(err, engine.close(), pages.close(), api.close(), d.plugins.Close(), d.closeNetwork(ctx))
	}
	d.plugins.Start(d.life) //nolint:contextcheck // it ends with the daemon, not before
	recovered := make(chan struct{})
	d.hooks.Recover(d.life, d.hooksNow, func() { close(recovered) }) //nolint:contextcheck // it ends with the daemon, not before
	if err = d.startAll(ctx); err == nil {
		labels := make(chan struct{})
		go func() { defer close(labels); d.schedules.WatchLabels(d.life) }()
		defer func() { <-labels }()
		d.log.InfoContext(ctx, "ready", slog.String("version", o.Version), slog.Int("pools", len(conf.Pools)))
		notify("READY=1")
		d.settled.Reset(settle)
		ended := d.beside()
		defer func() {
			ctx, cancel := d.closing(ctx)
			defer cancel()
			select {
			case <-ended:
			case <-ctx.Done(): // what a proof made it removes, or the next daemon does
			}
		}()
		d.loop(ctx, hup, api.done)
		notify("STOPPING=1")
	} else if ctx.Err() != nil {
		d.log.InfoContext(ctx, "stopped before it was ready", slog.Any("error", err))
		err = nil
	}
	d.pauser.Close() // before what may take long
	err = errdefs.Join(err, d.stopAll(context.WithoutCancel(ctx)), d.alone.close(), engine.close(), pages.close(), api.close(), d.plugins.Close(),
		d.closeNetwork(context.WithoutCancel(ctx)))
	<-recovered
	return err
}

// beside starts what goes on beside all calls until the daemon stops, and returns what is closed
// when it has ended.
func (d *Daemon) beside() (ended <-chan struct{}) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { d.proofs.Run(d.life) })
	wg.Go(func() { d.backups.Look(d.life) })
	go func() { wg.Wait(); close(done) }()
	return done
}

// loop waits for signals and looks at the pools until ctx ends. A reload runs beside it:
// nothing that a driver does may keep a stop from being heard.
func (d *Daemon) loop(ctx context.Context, hup <-chan os.Signal, controlGone <-chan struct{}) {
	go d.reloadAt(ctx, hup)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			all := time.Since(last) >= lookEvery
			if d.look(ctx, all); all {
				last = time.Now()
			}
		case <-controlGone:
			d.log.ErrorContext(ctx, "control socket has gone; engines are served on")
			controlGone = nil
		}
	}
}

// reloadAt reloads at each signal until ctx ends.
func (d *Daemon) reloadAt(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			if _, err := d.Reload(ctx); err != nil {
				d.log.ErrorContext(ctx, "configuration not taken over, the old one stays", slog.Any("error", err))
			}
		}
	}
}

// look looks at the storage of all pools, or of those that were out of reach, at the same time.
func (d *Daemon) look(ctx context.Context, all bool) {
	var wg sync.WaitGroup
	for _, p := range d.pools.All() {
		if !all && p.Reachable() == nil {
			continue
		}
		wg.Go(func() { p.Look(ctx) })
		go d.restores.Recover(p.Context(), p) //nolint:contextcheck // a look does not wait for it
	}
	wg.Wait()
}

// startAll opens and serves every pool, all at the same time: what one waits for must not
// keep an engine from another. A pool that cannot start stops the start: a host that comes
// up without its volumes would start databases on empty directories.
func (d *Daemon) startAll(ctx context.Context) error {
	d.reloading <- struct{}{}
	defer func() { <-d.reloading }()
	d.openSpare(ctx, d.boot.Pools)
	err := each(d.boot.Pools, func(conf config.Pool) error {
		driver, err := d.openDriver(ctx, conf)
		if err != nil {
			return err
		}
		return d.add(ctx, conf, driver)
	})
	if err != nil {
		return err
	}
	d.openSpare(ctx, nil) // where two were meant for the same pool
	d.schedule()
	d.pools.Become(pool.Running)
	d.recoverAll() //nolint:contextcheck // it ends with the pools
	return nil
}

// recoverAll deals with what was cut off of restores, beside everything else.
func (d *Daemon) recoverAll() {
	for _, p := range d.pools.All() {
		go d.restores.Recover(p.Context(), p)
	}
}

// each does something with all of list at the same time.
func each[T any](list []T, do func(T) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, x := range list {
		wg.Go(func() { errs[i] = do(x) })
	}
	wg.Wait()
	return errdefs.Join(errs...)
}

// stopAll stops every pool at the same time. A reload under way ends early, and the time
// that it takes is part of the time for the stop.
func (d *Daemon) stopAll(ctx context.Context) error {
	d.pools.Become(pool.Stopping)
	d.end(pool.ErrStopping)
	ctx, cancel := d.closing(ctx)
	defer cancel()
	for _, p := range d.pools.All() {
		if at := d.doorOf(p.Name()); at != nil {
			at.end()
		}
	}
	select {
	case d.reloading <- struct{}{}:
		defer func() { <-d.reloading }()
	case <-ctx.Done():
		return fmt.Errorf("stop: a reload has not ended: %w", context.Cause(ctx))
	}
	err := each(d.pools.All(), func(p *pool.Pool) error { return d.remove(ctx, p) })
	d.schedules.Close(ctx)
	spare := slices.DeleteFunc(slices.Clone(d.kept), func(at *door) bool { return at.ending.Load() })
	return errdefs.Join(err, each(spare, func(at *door) error { return at.close(ctx) }))
}

// closeTime is how long a pool may take to end, beside the calls in flight.
const closeTime = 2 * time.Second

// closing bounds the end of a pool.
func (d *Daemon) closing(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := d.boot.ShutdownTimeout + closeTime
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("gave up after %s", limit))
}

// settle is how long what is ready may still be at its start.
const settle = 3 * time.Second

// forgetStart gives back what the start alone needed, which is more than half of what an idle daemon would hold.
func (d *Daemon) forgetStart(ctx context.Context) {
	debug.FreeOSMemory()
	if err := run.ForgetStart(); err != nil {
		d.log.DebugContext(ctx, "the pages of the start stay", slog.Any("error", err))
	}
}
