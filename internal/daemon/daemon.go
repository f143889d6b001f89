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
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
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
	conf    atomic.Pointer[config.Config]
	// confErr is why the last reload was refused.
	confErr atomic.Pointer[error]
	// inherited are the sockets that systemd keeps and that no pool has taken yet.
	inherited []sdk.ActivatedListener

	reloading sync.Mutex
	mu        sync.RWMutex
	pools     map[string]*pool
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
	d := &Daemon{options: o, log: o.Logger(conf), started: time.Now(), pools: map[string]*pool{}}
	d.conf.Store(conf)
	d.metrics = newMetrics(o.Version, d.all)
	for _, w := range conf.Warnings {
		d.log.WarnContext(ctx, "configuration", slog.String("warning", w))
	}
	if err := d.takeSockets(); err != nil {
		return err
	}
	api, err := d.serveControl(ctx, conf)
	if err != nil {
		return err
	}
	err = d.startAll(ctx, conf)
	if err == nil {
		d.log.InfoContext(ctx, "ready", slog.String("version", o.Version), slog.Int("pools", len(conf.Pools)))
		notify("READY=1")
		d.loop(ctx, hup, api)
		notify("STOPPING=1")
	}
	return errors.Join(err, d.stopAll(context.WithoutCancel(ctx)), api.close())
}

// loop waits for signals and looks at the pools until ctx ends.
func (d *Daemon) loop(ctx context.Context, hup <-chan os.Signal, api *api) {
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
			for _, p := range d.all() {
				p.look(ctx)
			}
		case err := <-api.failed:
			d.log.ErrorContext(ctx, "control socket has gone", slog.Any("error", err))
		}
	}
}

// takeSockets takes the sockets that systemd handed over.
func (d *Daemon) takeSockets() error {
	var err error
	d.inherited, err = sdk.SystemdListeners()
	return err
}

// listener returns the socket that systemd keeps for a pool, nil for none: one that is
// named after the pool, or lies where the pool's would.
func (d *Daemon) listener(name, path string) net.Listener {
	i := slices.IndexFunc(d.inherited, func(l sdk.ActivatedListener) bool {
		return l.Name == name || l.Addr().String() == path
	})
	if i < 0 {
		return nil
	}
	l := d.inherited[i].Listener
	d.inherited = slices.Delete(d.inherited, i, i+1)
	return l
}

// startAll opens and serves every pool of conf. A pool that cannot start stops the start:
// a host that comes up without its volumes would start databases on empty directories.
func (d *Daemon) startAll(ctx context.Context, conf *config.Config) error {
	for _, pc := range conf.Pools {
		driver, err := openDriver(ctx, d.options.Drivers, pc, d.env(conf, pc))
		if err != nil {
			return err
		}
		p, err := d.startPool(ctx, pc, driver, d.listener(pc.Name, filepath.Join(conf.PluginDir, pc.Name+".sock")))
		if err != nil {
			return err
		}
		d.put(p)
	}
	for _, l := range d.inherited {
		d.log.WarnContext(ctx, "systemd passed a socket for which there is no pool", slog.String("name", l.Name),
			slog.String("socket", l.Addr().String()))
	}
	return nil
}

// stopAll stops every pool at the same time.
func (d *Daemon) stopAll(ctx context.Context) error {
	pools := d.all()
	errs := make([]error, len(pools))
	ctx, cancel := context.WithTimeout(ctx, d.conf.Load().ShutdownTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, p := range pools {
		wg.Go(func() {
			if err := p.close(ctx); err != nil {
				errs[i] = fmt.Errorf("pool %q: %w", p.conf.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (d *Daemon) env(conf *config.Config, pc config.Pool) catalog.Env {
	return catalog.Env{
		PoolName: pc.Name,
		StateDir: conf.StateDir,
		RunDir:   conf.RunDir,
		Logger:   d.log.With(slog.String("pool", pc.Name), slog.String("driver", pc.Driver)),
	}
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

func (d *Daemon) put(p *pool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pools[p.conf.Name] = p
}

func (d *Daemon) drop(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pools, name)
}

// api is the control server at work.
type api struct {
	stop   context.CancelFunc
	failed chan error
}

// serveControl serves the control socket, before the pools, so that it can tell of a
// start that takes long.
func (d *Daemon) serveControl(ctx context.Context, conf *config.Config) (*api, error) {
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: conf.ControlSocket(), Group: conf.Control.Group, Mode: 0o660})
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
	a := &api{stop: stop, failed: make(chan error, 1)}
	go func() { a.failed <- s.Serve(ctx, l) }()
	return a, nil
}

func (a *api) close() error {
	a.stop()
	return <-a.failed
}
