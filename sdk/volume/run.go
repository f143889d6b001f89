package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// settle is how much longer than its limit a driver may take to return an error of its
// own, which says more than ours.
const settle = time.Second

// verb is one kind of call to the driver.
type verb[T any] struct {
	name  string
	limit time.Duration
	do    func(context.Context) (T, error)
	// undo, if not nil, takes back a do that succeeded when nobody was waiting any more.
	undo func(context.Context)
}

// result is what one run of a verb came to.
type result[T any] struct {
	value T
	err   error
}

// run runs a verb, one at a time for each volume, within its limit. The verb goes on when
// the caller hangs up, since one half done helps nobody; and when it outlasts its limit,
// the caller is told so, and the verb keeps the volume to itself until it ends.
func run[T any](caller context.Context, h *Handler, volume string, v verb[T]) (T, error) {
	var zero T
	start := time.Now()
	ctx, cancel := h.limit(caller, v.limit)
	unlock, err := h.locks.Lock(ctx, volume)
	cancel()
	if err != nil {
		return zero, named(volume, fmt.Errorf("%s: another call for this volume has not ended: %w", v.name, err))
	}
	// The time spent waiting is gone: the engine's patience does not start anew.
	left := v.limit - time.Since(start)
	work, cancel := h.limit(context.WithoutCancel(caller), left)
	done := make(chan result[T], 1)
	var gone abandonment
	h.running.Go(func() {
		defer cancel()
		defer unlock()
		value, err := guard(work, h.log, v.name, v.do)
		if gone.deliver(func() { done <- result[T]{value, err} }) {
			return
		}
		if err == nil && v.undo != nil {
			_, _ = guard(context.WithoutCancel(caller), h.log, v.name, func(ctx context.Context) (struct{}, error) {
				v.undo(ctx)
				return struct{}{}, nil
			})
		}
	})
	late := time.NewTimer(left + settle)
	defer late.Stop()
	select {
	case r := <-done:
		return r.value, named(volume, readable(work, r.err))
	case <-caller.Done():
		err = errdefs.Errorf(context.Canceled, "%s: the caller hung up: %w", v.name, context.Cause(caller))
	case <-late.C:
		err = fmt.Errorf("%s: %w", v.name, context.Cause(work))
	}
	if gone.abandon() {
		return zero, named(volume, err)
	}
	r := <-done
	return r.value, named(volume, readable(work, r.err))
}

// abandonment decides which came first: the result, or the end of the caller's patience.
type abandonment struct {
	mu        sync.Mutex
	delivered bool
	abandoned bool
}

// deliver runs f unless the caller has gone, and tells whether it did.
func (a *abandonment) deliver(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.abandoned {
		return false
	}
	f()
	a.delivered = true
	return true
}

// abandon tells whether the caller may go; not when the result is there already.
func (a *abandonment) abandon() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.abandoned = !a.delivered
	return a.abandoned
}

// readable puts the cause that a user can read in front of a bare "context deadline
// exceeded".
func readable(work context.Context, err error) error {
	if cause := context.Cause(work); errors.Is(err, context.DeadlineExceeded) && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// guard runs f and makes an error of a panic.
func guard[T any](ctx context.Context, log *slog.Logger, verb string, f func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.ErrorContext(ctx, "panic", slog.String("verb", verb), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("%s: internal error: the driver panicked, its log says where", verb)
		}
	}()
	return f(ctx)
}

// inTime runs an f that may ignore its context, and returns when that ends.
func inTime[T any](ctx context.Context, h *Handler, f func(context.Context) (T, error)) (T, error) {
	done := make(chan result[T], 1)
	h.running.Go(func() {
		value, err := guard(ctx, h.log, "look", f)
		done <- result[T]{value, err}
	})
	select {
	case r := <-done:
		return r.value, readable(ctx, r.err)
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}
