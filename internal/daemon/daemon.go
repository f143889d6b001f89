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
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk"
)

// lookEvery is how often the storage of each pool is looked at for the metrics and for
// "remora status".
const lookEvery = 30 * time.Second

// Options of [Run].
type Options struct {
	// Load reads the configuration; it is called at start and at each reload.
	Load func() (*config.Config, error)
	// Drivers are the drivers there are.
	Drivers []catalog.Volume
	// Version is told to whoever asks.
	Version string
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
	state   atomic.Int32

	// reloading is held while pools come and go.
	reloading sync.Mutex
	// inherited are the sockets that systemd keeps and that no pool has taken yet.
	inherited []sdk.ActivatedListener

	mu    sync.RWMutex
	pools map[string]*pool
}

// The states of a daemon.
const (
	starting = iota
	running
	stopping
)

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
	d := &Daemon{options: o, log: o.Logger(conf), started: time.Now(), boot: conf, pools: map[string]*pool{}}
	d.conf.Store(conf)
	d.metrics = newMetrics(d)
	for _, w := range conf.Warnings {
		d.log.WarnContext(ctx, "configuration", slog.String("warning", w))
	}
	if d.inherited, err = sdk.SystemdListeners(); err != nil {
		return err
	}
	api, err := d.serveControl(ctx)
	if err != nil {
		return err
	}
	if err = d.startAll(ctx); err == nil {
		d.log.InfoContext(ctx, "ready", slog.String("version", o.Version), slog.Int("pools", len(conf.Pools)))
		notify("READY=1")
		d.loop(ctx, hup, api.done)
		notify("STOPPING=1")
	}
	return join(err, d.stopAll(context.WithoutCancel(ctx)), api.close())
}

// loop waits for signals and looks at the pools until ctx ends.
func (d *Daemon) loop(ctx context.Context, hup <-chan os.Signal, controlGone <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			if _, err := d.Reload(ctx); err != nil {
				d.log.ErrorContext(ctx, "configuration not taken over, the old one stays", slog.Any("error", err))
			}
		case <-tick.C:
			d.lookAll(ctx)
		case <-controlGone:
			d.log.ErrorContext(ctx, "control socket has gone; engines are served on")
			controlGone = nil
		}
	}
}

// lookAll looks at the storage of every pool, at the same time.
func (d *Daemon) lookAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range d.all() {
		wg.Go(func() { p.look(ctx) })
	}
	wg.Wait()
}

// startAll opens and serves every pool. A pool that cannot start stops the start: a host
// that comes up without its volumes would start databases on empty directories.
func (d *Daemon) startAll(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	for _, conf := range d.boot.Pools {
		driver, err := d.openDriver(ctx, conf)
		if err == nil {
			err = d.add(ctx, conf, driver)
		}
		if err != nil {
			return err
		}
	}
	for _, l := range d.inherited {
		d.log.WarnContext(ctx, "systemd passed a socket for which there is no pool", slog.String("name", l.Name),
			slog.String("socket", l.Addr().String()))
	}
	d.state.Store(running)
	return nil
}

// stopAll stops every pool at the same time.
func (d *Daemon) stopAll(ctx context.Context) error {
	d.state.Store(stopping)
	d.reloading.Lock()
	defer d.reloading.Unlock()
	pools := d.all()
	errs := make([]error, len(pools))
	var wg sync.WaitGroup
	for i, p := range pools {
		wg.Go(func() {
			errs[i] = d.remove(ctx, p)
		})
	}
	wg.Wait()
	return join(errs...)
}

// all returns the pools by name.
func (d *Daemon) all() []*pool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	pools := make([]*pool, 0, len(d.pools))
	for _, p := range d.pools {
		pools = append(pools, p)
	}
	slices.SortFunc(pools, func(a, b *pool) int { return strings.Compare(a.conf.Name, b.conf.Name) })
	return pools
}

func (d *Daemon) find(name string) *pool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.pools[name]
}

// api is the control server at work.
type api struct {
	stop context.CancelFunc
	done chan struct{} // closed when it has ended, with err
	err  error
}

// serveControl serves the control socket, before the pools, so that it can tell of a
// start that takes long.
func (d *Daemon) serveControl(ctx context.Context) (*api, error) {
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: d.boot.ControlSocket(), Group: d.boot.Control.Group, Mode: 0o660})
	if err != nil {
		return nil, err
	}
	s := control.NewServer(control.ServerOptions{
		Volumes: volumes{d},
		Daemon:  d,
		Logger:  d.log,
		Pages:   d.pages(),
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &api{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.err = s.Serve(ctx, l)
	}()
	return a, nil
}

func (a *api) close() error {
	a.stop()
	<-a.done
	return a.err
}
