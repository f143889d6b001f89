package daemon

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/usage"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// pool is one configured driver at work: a driver, and the Handler in front of it. Engines
// come to it through its door, under the pool's name.
type pool struct {
	conf    config.Pool
	door    *door
	handler *volume.Handler
	server  *sdk.Server
	ctx     context.Context //nolint:containedctx // that of the pool's own life, which stop ends
	stop    context.CancelFunc

	// mountRoot is where the Handler mounts, usage what was counted of volumes, and asking is
	// full while as many calls about single volumes are under way as may be.
	mountRoot string
	usage     *usage.Cache
	asking    chan struct{}
	claims    *claims
	hooks     func(ctx context.Context, e hook.Event) (end func(context.Context) error, err error)
	// advice is what the driver says of the host.
	advice func() catalog.Advice
	// ownMount begins the mount IDs of what this pool mounts for itself.
	ownMount string

	// replaced is closed when the pool is closed and what comes after it, if anything, is
	// in its place.
	replaced chan struct{}
	release  func() // closes replaced, once
	mu       sync.Mutex
	closed   bool
	calls    sync.WaitGroup // in flight
	looking  chan struct{}  // closed when the look under way has ended, nil without one

	// fills are those of all pools; recovering is locked while what was cut off is settled.
	fills      *fills
	recovering sync.Mutex

	// reach is what the last look at the storage came to.
	reach atomic.Pointer[error]
}

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
func (d *Daemon) newPool(ctx context.Context, conf config.Pool, driver volume.Driver) (*pool, error) {
	mountRoot := filepath.Join(d.boot.RunDir, "mounts", conf.Name)
	var p *pool // before anybody can call
	h, err := volume.NewHandler(ctx, driver, volume.Options{
		Logger:           d.log.With(slog.String("pool", conf.Name)),
		Observe:          d.metrics.observer(conf.Name),
		MountRoot:        mountRoot,
		GuardMountpoints: true,
		Ledger:           filepath.Join(d.boot.RunDir, "ledger", conf.Name+".jsonl"),
		Linger:           conf.Linger,
		MountGrace:       orNone(conf.MountGrace),
		Refresh:          orNone(conf.Refresh),
		Trash:            conf.TrashKeep > 0,
		// A driver that has an option of this name for something else is no Cloner, or takes
		// absolute paths.
		CloneOption: cloneOption,
		MayRemove:   d.mayRemove(conf.Name),
		MayUse:      d.fills.mayUse(conf.Name),
		MakeOption:  makeOption,
		Make: func(ctx context.Context, name string, opts map[string]string) error {
			return d.create(ctx, p, name, opts)
		},
		Removed: d.fills.removed(conf.Name),
		Own:     d.ownOptions(conf.Name),
	})
	if err != nil {
		return nil, fmt.Errorf("pool %q: %w", conf.Name, join(err, closeDriver(ctx, driver)))
	}
	p = &pool{
		conf: conf, handler: h, server: sdk.New(sdk.Options{}, h), replaced: make(chan struct{}),
		mountRoot: mountRoot, asking: make(chan struct{}, askers), claims: &d.claims, hooks: d.beginHooks, fills: d.fills,
		advice: func() catalog.Advice { return catalog.Advice{} }, ownMount: ownMount + rand.Text() + "-",
	}
	if a, ok := driver.(catalog.Adviser); ok {
		p.advice = a.Advice
	}
	p.release = sync.OnceFunc(func() { close(p.replaced) })
	p.ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.usage = usage.NewCache(p.ctx, d.log.With(slog.String("pool", conf.Name))) //nolint:contextcheck // the pool outlives the call
	p.finish(ctx, d.fills)
	p.emptyTrash(d.log)
	return p, nil
}

// cloneOption is the option of a volume that is made of another one.
const cloneOption = "from"

// orNone makes of a time of nothing what the SDK takes for it: there, zero is the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// close lets no more calls in, waits for those in flight, and lets go of the driver. Mounts
// stay, for the containers that run on. To close it again does nothing. ctx bounds it.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	if again {
		return nil
	}
	p.stop()
	p.usage.Close(ctx)
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
		return fmt.Errorf("pool %q: %w", p.conf.Name, joined{err})
	}
	return nil
}

// ended tells whether close has been called.
func (p *pool) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
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

// errPoolEnds ends what is done in a pool that a reload changes or takes away.
var errPoolEnds = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the configuration of the pool has changed"), "give the command again")

// within returns a context that ends with the pool too: what would outlast it could neither unmount
// nor remove what it has made.
func (p *pool) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.ctx, func() { cancel(errPoolEnds) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

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
