package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// pool is one configured driver at work: a driver, the Handler in front of it, and the
// socket on which engines find it under the pool's name.
type pool struct {
	conf    config.Pool
	socket  string
	driver  volume.Driver
	handler *volume.Handler
	server  *sdk.Server
	stop    context.CancelFunc
	served  chan error
	// reach is what the last look at the storage came to.
	reach atomic.Pointer[error]
}

// openDriver finds the driver of a pool in the catalog and opens it. It changes nothing
// that a pool at work depends on.
func openDriver(ctx context.Context, drivers []catalog.Volume, conf config.Pool, env catalog.Env) (volume.Driver, error) {
	for _, d := range drivers {
		if d.Name() == conf.Driver {
			return d.Open(ctx, conf.Options, env)
		}
	}
	return nil, errdefs.Errorf(errdefs.ErrInvalid, "pool %q: no driver %q", conf.Name, conf.Driver)
}

// startPool puts a Handler in front of driver and serves it. listener, if not nil, is the
// socket that systemd keeps for the pool.
func (d *Daemon) startPool(ctx context.Context, conf config.Pool, driver volume.Driver, listener net.Listener) (*pool, error) {
	c := d.conf.Load()
	log := d.log.With(slog.String("pool", conf.Name))
	h, err := volume.NewHandler(ctx, driver, volume.Options{
		Logger:     log,
		Observe:    d.metrics.observer(conf.Name),
		MountRoot:  filepath.Join(c.RunDir, "mounts", conf.Name),
		Ledger:     filepath.Join(c.RunDir, "ledger", conf.Name+".jsonl"),
		Linger:     conf.Linger,
		MountGrace: conf.MountGrace,
		Refresh:    conf.Refresh,
	})
	if err != nil {
		return nil, fmt.Errorf("pool %q: %w", conf.Name, err)
	}
	p := &pool{
		conf:    conf,
		socket:  filepath.Join(c.PluginDir, conf.Name+".sock"),
		driver:  driver,
		handler: h,
		server:  sdk.New(sdk.Options{Logger: log, Grace: c.ShutdownTimeout}, h),
		served:  make(chan error, 1),
	}
	if listener == nil {
		listener, err = sdk.ListenUnix(sdk.UnixSocket{Path: p.socket, Group: c.Socket.Group, Mode: c.Socket.Mode})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("pool %q: %w", conf.Name, err), h.Close(ctx))
		}
	}
	p.look(ctx)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	go func() { p.served <- p.server.Serve(serving, listener) }()
	log.InfoContext(ctx, "pool serves", slog.String("driver", conf.Driver), slog.String("socket", listener.Addr().String()))
	return p, nil
}

// close takes no more calls, waits for those in flight, and lets go of the driver. Mounts
// stay, for the containers that run on.
func (p *pool) close(ctx context.Context) error {
	p.stop()
	return errors.Join(<-p.served, p.handler.Close(ctx))
}

// lookTime bounds one look at a pool's storage.
const lookTime = 5 * time.Second

// look asks whether the pool's storage is in reach, and keeps the answer.
func (p *pool) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.handler.Ping(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = errdefs.Errorf(errdefs.ErrUnavailable, "storage does not answer within %s", lookTime)
	}
	p.reach.Store(&err)
}

// reachable returns what the last look came to.
func (p *pool) reachable() error { return *p.reach.Load() }

// counts returns how many volumes the pool has, and how many are mounted.
func (p *pool) counts(ctx context.Context) (volumes, mounted int) {
	for v, err := range p.handler.List(ctx) {
		if err != nil {
			return 0, 0
		}
		volumes++
		if len(v.Mounts) > 0 {
			mounted++
		}
	}
	return volumes, mounted
}
