// Package bounded runs the verbs of a driver: one at a time for each object, within a
// limit of time, to their end even if the caller hangs up, and with panics as errors.
package bounded

import (
	"cmp"
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
	// Also are more keys that it needs. Who needs several names them in one order everywhere, the key of
	// Run as the first.
	Also []string
	// Explain, if not nil, puts what the verb is about in front of an error.
	Explain func(error) error
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
	return context.WithTimeoutCause(ctx, left, gaveUpError(limit))
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

// lockAll waits for all keys, one after the other, within one limit.
func (r *Runner) lockAll(ctx context.Context, keys []string, limit time.Duration) (unlock func(), err error) {
	if len(keys) == 1 {
		return r.lock(ctx, keys[0], limit)
	}
	start := time.Now()
	var held []func()
	unlock = func() {
		for _, free := range held {
			free()
		}
	}
	for _, key := range keys {
		free, err := r.lock(ctx, key, limit-time.Since(start))
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, free)
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

func (r *Runner) enter() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running++
}

func (r *Runner) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running--; r.running == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// gaveUpError is the cause of the end of a verb's time: the limit that has passed. Few verbs come
// to it, so its text is made only then.
type gaveUpError time.Duration

func (g gaveUpError) Error() string {
	return fmt.Sprintf("gave up after %s: the driver does not answer", time.Duration(g))
}

// Unwrap gives it its class.
func (gaveUpError) Unwrap() error { return context.DeadlineExceeded }

type result[T any] struct {
	value T
	err   error
}

// Run runs v when it has the key; an empty key is nobody's and need not be waited for.
// Where the limit passes, or the caller hangs up, it returns while v goes on, and keeps
// the key until it ends. A [Caller] is answered at the limit as well, but Run returns when
// v ends, with an error that says so.
func Run[T any](caller context.Context, r *Runner, key string, v Verb[T]) (T, error) {
	var zero T
	start, limit := time.Now(), cmp.Or(v.Limit, r.Limit)
	unlock := func() {}
	if key != "" {
		var err error
		if unlock, err = r.lockAll(caller, append([]string{key}, v.Also...), limit); err != nil {
			return zero, v.explain(fmt.Errorf("%s: %w", v.Name, err))
		}
	}
	left := limit - time.Since(start)
	work, cancel := within(context.WithoutCancel(caller), left, limit)
	j := &job[T]{verb: v, runner: r, caller: caller, work: work}
	if late := lateOf(caller); late != nil {
		defer unlock()
		defer cancel()
		return j.here(left+Settle, late)
	}
	return j.beside(left+Settle, func() { cancel(); unlock() })
}

// explain puts what v is about in front of err.
func (v Verb[T]) explain(err error) error {
	if err == nil || v.Explain == nil {
		return err
	}
	return v.Explain(err)
}

// job is a verb that has its key and runs.
type job[T any] struct {
	verb         Verb[T]
	runner       *Runner
	caller, work context.Context //nolint:containedctx // a job is one call, and ends with it
	parting      parting
}

// here runs the job in its caller's goroutine, which takes a tenth of the time of waking
// another.
func (j *job[T]) here(patience time.Duration, late func(error)) (T, error) {
	j.runner.enter()
	defer j.runner.leave()
	watch := time.AfterFunc(patience, func() {
		j.parting.abandon(func() { late(j.timeout()) })
	})
	defer watch.Stop()
	value, err := guard(j.work, j.runner, j.verb.Name, j.verb.Do)
	inTime, hungUp := j.parting.deliver(func() {}), j.caller.Err() != nil
	if err != nil || inTime && !hungUp {
		return value, j.verb.explain(readable(j.work, err))
	}
	j.undo(value)
	var zero T
	if !inTime {
		return zero, j.timeout()
	}
	return zero, j.hungUp()
}

// beside runs the job in a goroutine of its own, and release when it has ended.
func (j *job[T]) beside(patience time.Duration, release func()) (T, error) {
	done := make(chan result[T], 1)
	j.runner.enter()
	go func() {
		defer j.runner.leave()
		defer release()
		value, err := guard(j.work, j.runner, j.verb.Name, j.verb.Do)
		if !j.parting.deliver(func() { done <- result[T]{value, err} }) && err == nil {
			j.undo(value)
		}
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	var err error
	select {
	case res := <-done:
		return res.value, j.verb.explain(readable(j.work, res.err))
	case <-j.caller.Done():
		err = j.hungUp()
	case <-late.C:
		err = j.timeout()
	}
	if j.parting.abandon(func() {}) {
		var zero T
		return zero, err
	}
	res := <-done
	return res.value, j.verb.explain(readable(j.work, res.err))
}

func (j *job[T]) hungUp() error {
	return j.verb.explain(errdefs.Errorf(context.Canceled, "%s: the caller hung up: %w", j.verb.Name, context.Cause(j.caller)))
}

func (j *job[T]) timeout() error {
	return j.verb.explain(fmt.Errorf("%s: %w", j.verb.Name, context.Cause(j.work)))
}

// undo takes back what was done for a caller who is not there any more.
func (j *job[T]) undo(value T) {
	if j.verb.Undo == nil {
		return
	}
	_, _ = guard(context.WithoutCancel(j.caller), j.runner, "undo "+j.verb.Name, func(ctx context.Context) (struct{}, error) {
		j.verb.Undo(ctx, value)
		return struct{}{}, nil
	})
}

// Look runs an f that has no key, may run beside any other, and may ignore its context;
// it returns when that ends.
func Look[T any](ctx context.Context, r *Runner, f func(context.Context) (T, error)) (T, error) {
	done := make(chan result[T], 1)
	r.enter()
	go func() {
		defer r.leave()
		value, err := guard(ctx, r, "look", f)
		done <- result[T]{value, err}
	}()
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

// abandon runs f, and tells that it did, unless the result is there already.
func (p *parting) abandon(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delivered {
		return false
	}
	p.abandoned = true
	f()
	return true
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
			r.Log.ErrorContext(ctx, "panic", slog.String("verb", name), slog.String("panic", errdefs.Recovered(p)), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("%s: internal error: the driver panicked, its log says where", name)
		}
	}()
	return f(ctx)
}
