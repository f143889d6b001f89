package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// pool is one configured driver at work: a driver, and the Handler in front of it. Engines
// come to it through its door, under the pool's name.
type pool struct {
	conf     config.Pool
	door     *door
	handler  *volume.Handler
	methods  map[string]http.Handler
	ctx      context.Context //nolint:containedctx // that of the pool's own life, which stop ends
	stop     context.CancelFunc
	patience time.Duration // with calls in flight, at the end

	// replaced is closed when the pool is closed and what comes after it, if anything, is
	// in its place.
	replaced chan struct{}
	mu       sync.Mutex
	closed   bool
	calls    sync.WaitGroup // in flight
	looking  chan struct{}  // closed when the look under way has ended, nil without one

	// reach is what the last look at the storage came to.
	reach atomic.Pointer[error]
}

// openDriver finds the driver of a pool in the catalog and opens it. It changes nothing
// that a pool at work depends on.
func (d *Daemon) openDriver(ctx context.Context, conf config.Pool) (volume.Driver, error) {
	for _, v := range d.options.Drivers {
		if v.Name() == conf.Driver {
			return v.Open(ctx, conf.Options, catalog.Env{
				PoolName: conf.Name,
				StateDir: d.boot.StateDir,
				RunDir:   d.boot.RunDir,
				Logger:   d.log.With(slog.String("pool", conf.Name), slog.String("driver", conf.Driver)),
			})
		}
	}
	return nil, errdefs.Errorf(errdefs.ErrInvalid, "pool %q: no driver %q", conf.Name, conf.Driver)
}

// closeDriver closes a driver that has no Handler which would.
func closeDriver(driver volume.Driver) error {
	if c, ok := driver.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// newPool puts a Handler in front of driver. Where it fails, the driver is closed.
func (d *Daemon) newPool(ctx context.Context, conf config.Pool, driver volume.Driver) (*pool, error) {
	h, err := volume.NewHandler(ctx, driver, volume.Options{
		Logger:     d.log.With(slog.String("pool", conf.Name)),
		Observe:    d.metrics.observer(conf.Name),
		MountRoot:  filepath.Join(d.boot.RunDir, "mounts", conf.Name),
		Ledger:     filepath.Join(d.boot.RunDir, "ledger", conf.Name+".jsonl"),
		Linger:     conf.Linger,
		MountGrace: orNone(conf.MountGrace),
		Refresh:    orNone(conf.Refresh),
	})
	if err != nil {
		return nil, fmt.Errorf("pool %q: %w", conf.Name, join(err, closeDriver(driver)))
	}
	p := &pool{conf: conf, handler: h, methods: h.Methods(), replaced: make(chan struct{}), patience: d.boot.ShutdownTimeout}
	p.ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.look(ctx)
	return p, nil
}

// orNone makes of a time of nothing what the SDK takes for it: there, zero is the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// closeTime is how long the Handler of a pool may take to end, beside the calls in flight.
const closeTime = 2 * time.Second

// close lets no more calls in, waits for those in flight, and lets go of the driver. Mounts
// stay, for the containers that run on. To close it again does nothing.
func (p *pool) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), p.patience+closeTime,
		fmt.Errorf("gave up after %s", p.patience+closeTime))
	defer cancel()
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	if again {
		return nil
	}
	p.stop()
	idle := make(chan struct{})
	go func() {
		p.calls.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	if err := p.handler.Close(ctx); err != nil {
		return fmt.Errorf("pool %q: %w", p.conf.Name, err)
	}
	return nil
}

// enter keeps the pool from being closed until leave is called. It tells whether the pool
// is not closed already.
func (p *pool) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.calls.Add(1)
	return true
}

func (p *pool) leave() { p.calls.Done() }

// lookTime bounds how long anybody waits for one look at a pool's storage.
const lookTime = 5 * time.Second

// look asks whether the pool's storage is in reach, and keeps the answer. One look runs at
// a time, whoever asks: storage that hangs may hold a thread for each.
func (p *pool) look(ctx context.Context) {
	p.mu.Lock()
	done := p.looking
	if done == nil && !p.closed {
		done = make(chan struct{})
		p.looking = done
		p.calls.Go(func() {
			err := p.handler.Ping(p.ctx)
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.ctx.Err() == nil {
				p.reach.Store(&err)
			}
			p.looking = nil
			close(done)
		})
	}
	p.mu.Unlock()
	if done == nil {
		return
	}
	late := time.NewTimer(lookTime)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		err := errdefs.Errorf(errdefs.ErrUnavailable, "storage does not answer within %s", lookTime)
		p.reach.Store(&err)
	case <-ctx.Done():
	}
}

// reachable returns what the last look came to, or that the socket is not served any more.
func (p *pool) reachable() error {
	select {
	case <-p.door.served:
		if p.door.err != nil {
			return p.door.err
		}
	default:
	}
	if err := p.reach.Load(); err != nil {
		return *err
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "storage has not been looked at yet")
}

// counts returns how many volumes the pool has, and how many are mounted.
func (p *pool) counts() (volumes, mounted int) {
	for v, err := range p.handler.List(p.ctx) { // from memory
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
