// Package bounded runs the verbs of a driver: one at a time for each object, within a
// limit of time, to their end even if the caller hangs up, and with panics as errors.
package bounded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/keylock"
)

// Settle is how much longer than its limit a verb may take to return an error of its
// own, which says more than ours.
const Settle = time.Second

// Runner runs verbs for one Handler. Log is required, and so is Limit unless every verb
// has its own; neither is changed after the first use.
type Runner struct {
	// Limit bounds the wait for an object and the verb together.
	Limit time.Duration
	// Log is told of panics.
	Log *slog.Logger

	locks keylock.Locks

	mu      sync.Mutex
	running int
	idle    chan struct{} // closed when running falls to zero; nil while nobody waits for it
}

// Verb is one call to a driver.
type Verb[T any] struct {
	// Name stands in front of errors that are not the driver's own.
	Name string
	// Limit is in the place of the Runner's; 0 keeps that.
	Limit time.Duration
	// Do does it. Its context ends with the limit, not when the caller hangs up.
	Do func(context.Context) (T, error)
	// Undo, if not nil, takes back a Do that succeeded when nobody was waiting any more.
	// Its context has no limit yet.
	Undo func(context.Context, T)
}

// Context bounds ctx by the limit, with a cause that a user can read.
func (r *Runner) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	return within(ctx, r.Limit, r.Limit)
}

// within bounds ctx by what is left of limit.
func within(ctx context.Context, left, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, left,
		errdefs.Errorf(context.DeadlineExceeded, "gave up after %s: the driver does not answer", limit))
}

// Lock waits for key within the limit.
func (r *Runner) Lock(ctx context.Context, key string) (unlock func(), err error) {
	return r.lock(ctx, key, r.Limit)
}

func (r *Runner) lock(ctx context.Context, key string, limit time.Duration) (unlock func(), err error) {
	if unlock, ok := r.locks.TryLock(key); ok && ctx.Err() == nil {
		return unlock, nil
	} else if ok {
		unlock()
	}
	wait, cancel := context.WithTimeoutCause(ctx, limit,
		errdefs.Errorf(context.DeadlineExceeded, "gave up after %s", limit))
	defer cancel()
	unlock, err = r.locks.Lock(wait, key)
	if err != nil {
		return nil, fmt.Errorf("another call for it has not ended: %w", err)
	}
	return unlock, nil
}

// Wait waits until no verb runs any more, those included whose callers have gone. Where
// ctx ends first the error is its cause.
func (r *Runner) Wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		if r.running == 0 {
			r.mu.Unlock()
			return nil
		}
		if r.idle == nil {
			r.idle = make(chan struct{})
		}
		idle := r.idle
		r.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("calls still running in the driver: %w", context.Cause(ctx))
		}
	}
}

// start runs f beside the caller and counts it as running.
func (r *Runner) start(f func()) {
	r.mu.Lock()
	r.running++
	r.mu.Unlock()
	go func() {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.running--; r.running == 0 && r.idle != nil {
				close(r.idle)
				r.idle = nil
			}
		}()
		f()
	}()
}

type result[T any] struct {
	value T
	err   error
}

// Run runs v when it has the key; an empty key is nobody's and need not be waited for.
// Where the limit passes, or the caller hangs up, it returns while v goes on, and keeps
// the key until it ends.
func Run[T any](caller context.Context, r *Runner, key string, v Verb[T]) (T, error) {
	var zero T
	var err error
	start, limit := time.Now(), v.Limit
	if limit == 0 {
		limit = r.Limit
	}
	unlock := func() {}
	if key != "" {
		if unlock, err = r.lock(caller, key, limit); err != nil {
			return zero, fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	remaining := limit - time.Since(start)
	work, cancel := within(context.WithoutCancel(caller), remaining, limit)
	done := make(chan result[T], 1)
	var left parting
	r.start(func() {
		defer unlock()
		defer cancel()
		value, err := guard(work, r, v.Name, v.Do)
		if left.deliver(func() { done <- result[T]{value, err} }) || err != nil || v.Undo == nil {
			return
		}
		_, _ = guard(context.WithoutCancel(caller), r, "undo "+v.Name, func(ctx context.Context) (struct{}, error) {
			v.Undo(ctx, value)
			return struct{}{}, nil
		})
	})
	late := time.NewTimer(remaining + Settle)
	defer late.Stop()
	select {
	case res := <-done:
		return res.value, readable(work, res.err)
	case <-caller.Done():
		err = errdefs.Errorf(context.Canceled, "%s: the caller hung up: %w", v.Name, context.Cause(caller))
	case <-late.C:
		err = fmt.Errorf("%s: %w", v.Name, context.Cause(work))
	}
	if left.abandon() {
		return zero, err
	}
	res := <-done
	return res.value, readable(work, res.err)
}

// Look runs an f that has no key, may run beside any other, and may ignore its context;
// it returns when that ends.
func Look[T any](ctx context.Context, r *Runner, f func(context.Context) (T, error)) (T, error) {
	done := make(chan result[T], 1)
	r.start(func() {
		value, err := guard(ctx, r, "look", f)
		done <- result[T]{value, err}
	})
	select {
	case res := <-done:
		return res.value, readable(ctx, res.err)
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// parting decides which came first: the result, or the end of the caller's patience.
type parting struct {
	mu                   sync.Mutex
	delivered, abandoned bool
}

// deliver runs f unless the caller has gone, and tells whether it did.
func (p *parting) deliver(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.abandoned {
		return false
	}
	f()
	p.delivered = true
	return true
}

// abandon tells whether the caller may go; not when the result is there already.
func (p *parting) abandon() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abandoned = !p.delivered
	return p.abandoned
}

// readable puts the cause that a user can read in the place of a bare "context deadline
// exceeded".
func readable(work context.Context, err error) error {
	if cause := context.Cause(work); errors.Is(err, context.DeadlineExceeded) && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// guard runs f and makes an error of a panic.
func guard[T any](ctx context.Context, r *Runner, name string, f func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.Log.ErrorContext(ctx, "panic", slog.String("verb", name), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("%s: internal error: the driver panicked, its log says where", name)
		}
	}()
	return f(ctx)
}
