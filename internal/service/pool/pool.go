// Package pool is a configured driver at work: the [volume.Handler] in front of it, for as long as
// the configuration has it, and who works on which of its volumes.
package pool

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/usage"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Askers is how many calls about single volumes a pool makes at a time, whoever asks: on storage
// that hangs each may hold a thread.
const Askers = 4

// ErrStopping is what a daemon says that stops.
var ErrStopping = errdefs.Errorf(errdefs.ErrUnavailable, "daemon: stopping")

// Pool is one configured driver at work. Engines come to it under its name, by ServeHTTP.
type Pool struct {
	Options
	// Usage is what was counted of volumes.
	Usage *usage.Cache

	server *sdk.Server
	asking chan struct{}   // full while as many calls are under way as may be
	own    string          // begins the mount IDs of what this pool mounts for itself
	ctx    context.Context //nolint:containedctx // that of the pool's own life, which stop ends
	stop   context.CancelFunc

	// replaced is closed when the pool is closed and what comes after it, if anything, is
	// in its place.
	replaced chan struct{}
	release  func() // closes replaced, once
	mu       sync.Mutex
	closed   bool
	calls    sync.WaitGroup // in flight
	looking  chan struct{}  // closed when the look under way has ended, nil without one

	// reach is what the last look at the storage came to.
	reach atomic.Pointer[error]
}

// Options are what a pool is made of.
type Options struct {
	Conf    config.Pool
	Handler *volume.Handler
	// MountRoot is where the Handler mounts.
	MountRoot string
	// Beside are other plugins on the pool's socket.
	Beside []sdk.Plugin
	// Claims are those of all pools.
	Claims *Claims
	// Advice is what the driver says of the host; nil if it says nothing.
	Advice func() catalog.Advice
	// About is what the storage is served by; nil if there is nothing to say.
	About func() string
	Log   *slog.Logger
}

// New returns a pool that lives until it is closed.
func New(ctx context.Context, o Options) *Pool {
	if o.Advice == nil {
		o.Advice = func() catalog.Advice { return catalog.Advice{} }
	}
	if o.About == nil {
		o.About = func() string { return "" }
	}
	p := &Pool{
		Options: o, server: sdk.New(sdk.Options{}, append([]sdk.Plugin{o.Handler}, o.Beside...)...), asking: make(chan struct{}, Askers),
		own: ownMount + rand.Text() + "-", replaced: make(chan struct{}),
	}
	p.release = sync.OnceFunc(func() { close(p.replaced) })
	p.ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.Usage = usage.NewCache(p.ctx, o.Log) //nolint:contextcheck // the pool outlives the call
	return p
}

// ServeHTTP answers an engine.
func (p *Pool) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.server.ServeHTTP(w, r) }

// Name is the name under which engines know the pool.
func (p *Pool) Name() string { return p.Conf.Name }

// Context ends when the pool is closed.
func (p *Pool) Context() context.Context { return p.ctx }

// Close lets no more calls in, waits for those in flight, and lets go of the driver. Mounts
// stay, for the containers that run on. To close it again does nothing. ctx bounds it.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	if again {
		return nil
	}
	p.stop()
	p.Usage.Close(ctx)
	idle := make(chan struct{})
	go func() {
		p.calls.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	if err := p.Handler.Close(ctx); err != nil {
		return fmt.Errorf("pool %q: %w", p.Conf.Name, errdefs.Join(err))
	}
	return nil
}

// Ended tells whether Close has been called.
func (p *Pool) Ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Enter keeps the pool from being closed until Leave is called. It tells whether the pool
// is not closed already.
func (p *Pool) Enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.calls.Add(1)
	return true
}

// Leave undoes one Enter.
func (p *Pool) Leave() { p.calls.Done() }

// ErrChanged ends what is done in a pool that a reload changes or takes away.
var ErrChanged = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the configuration of the pool has changed"), "give the command again")

// Within returns a context that ends with the pool too: what would outlast it could neither unmount
// nor remove what it has made.
func (p *Pool) Within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.ctx, func() { cancel(ErrChanged) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Go runs what is part of the pool's life: its end waits for it.
func (p *Pool) Go(do func(ctx context.Context)) {
	p.calls.Go(func() { do(p.ctx) })
}

// Replaced is closed when the pool is closed and what comes after it is in its place.
func (p *Pool) Replaced() <-chan struct{} { return p.replaced }

// Release says that what comes after the pool is in its place.
func (p *Pool) Release() { p.release() }

// KeepsTrash tells whether what is removed can be brought back.
func (p *Pool) KeepsTrash() bool {
	return p.Conf.TrashKeep > 0 && volume.Can[volume.Trasher](p.Handler)
}

// Counts returns how many volumes the pool has, and how many are mounted.
func (p *Pool) Counts() (volumes, mounted int) {
	for v, err := range p.Handler.List(p.ctx) { // from memory
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
