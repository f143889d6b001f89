package hook

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Runner runs hooks around snapshots. What has begun and not ended is written down in a file
// each, so that a daemon that was killed between the two runs the second when it is started.
type Runner struct {
	// Dir is where that is written down.
	Dir string
	// Engines returns those that are asked for containers.
	Engines func() []engine.Engine
	Log     *slog.Logger

	mu    sync.Mutex
	locks map[Event]chan struct{} // full while the hooks for a volume are between before and after
}

// under is what has begun.
type under struct {
	Event
	Hooks []string  `json:"hooks"`
	Since time.Time `json:"since"`
}

const underVersion = 1

// Begin runs what comes before a snapshot, and returns what has to be called after it, whatever
// came of it. Where it fails there is no such call to make: all that had begun has been ended
// already. For one volume a second one waits until the first has ended.
func (r *Runner) Begin(ctx context.Context, all []Hook, e Event) (end func(context.Context) error, err error) {
	var mine []Hook
	for _, h := range all {
		if h.IsFor(e) {
			mine = append(mine, h)
		}
	}
	if len(mine) == 0 {
		return func(context.Context) error { return nil }, nil
	}
	unlock, err := r.lock(ctx, e)
	if err != nil {
		return nil, err
	}
	file, err := r.note(e, mine)
	if err != nil {
		unlock()
		return nil, err
	}
	engines := r.Engines()
	begun := 0
	end = func(ctx context.Context) error {
		defer unlock()
		return r.end(ctx, engines, mine[:begun], e, file)
	}
	for _, h := range mine {
		begun++ // also of one that fails half way there may be something to end
		start := time.Now()
		if err := h.run(ctx, engines, before, e); err != nil {
			err = fmt.Errorf("volume %q: %w", e.Volume, err)
			return nil, joined(append([]error{err}, slices.DeleteFunc([]error{end(context.WithoutCancel(ctx))}, func(err error) bool { return err == nil })...))
		}
		r.Log.InfoContext(ctx, "hook before snapshot", slog.String("hook", h.Name), slog.String("pool", e.Pool), slog.String("volume", e.Volume), slog.Duration("took", time.Since(start)))
	}
	return end, nil
}

// end runs what comes after, the last first, and all of it whatever fails.
func (r *Runner) end(ctx context.Context, engines []engine.Engine, hooks []Hook, e Event, file string) error {
	var errs []error
	for _, h := range slices.Backward(hooks) {
		if err := h.run(ctx, engines, after, e); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", e.Volume, err))
		}
	}
	if err := r.forget(file); err != nil {
		errs = append(errs, err)
	}
	return joined(errs)
}

// lock waits for the hooks of a volume.
func (r *Runner) lock(ctx context.Context, e Event) (unlock func(), err error) {
	e.Schedule = ""
	r.mu.Lock()
	if r.locks == nil {
		r.locks = map[Event]chan struct{}{}
	}
	l := r.locks[e]
	if l == nil {
		l = make(chan struct{}, 1)
		r.locks[e] = l
	}
	r.mu.Unlock()
	select {
	case l <- struct{}{}:
		return sync.OnceFunc(func() { <-l }), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("volume %q: another snapshot with hooks has not ended: %w", e.Volume, context.Cause(ctx))
	}
}

// note writes down what begins.
func (r *Runner) note(e Event, hooks []Hook) (file string, err error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return "", state.Classify(err)
	}
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return "", state.Classify(err)
	}
	defer root.Close()
	u := under{Event: e, Since: time.Now()}
	for _, h := range hooks {
		u.Hooks = append(u.Hooks, h.Name)
	}
	file = strings.ToLower(rand.Text()) + ".json"
	return file, state.Write(root, file, underVersion, u)
}

func (r *Runner) forget(file string) error {
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return state.Remove(root, file)
}

// A container that is to run something after a restart may not be there yet.
const (
	recoverEvery = 10 * time.Second
	recoverTime  = 10 * time.Minute
)

// Recover runs what should have come after the snapshots that a daemon before this one did not
// live to end. It is called before the first Begin, and goes on by itself until it is done or
// ctx ends; then done is called.
func (r *Runner) Recover(ctx context.Context, all func() []Hook, done func()) {
	left := r.left(ctx)
	go func() {
		defer done()
		var wg sync.WaitGroup
		for file, u := range left {
			wg.Go(func() { r.recover(ctx, all, file, u) })
		}
		wg.Wait()
	}()
}

// left returns what is written down.
func (r *Runner) left(ctx context.Context) map[string]under {
	all, err := state.Left[under](r.Dir, underVersion)
	if err != nil {
		r.Log.ErrorContext(ctx, "what hooks have not ended cannot be read", slog.Any("error", err))
	}
	return all
}

func (r *Runner) recover(ctx context.Context, all func() []Hook, file string, u under) {
	log := r.Log.With(slog.String("pool", u.Pool), slog.String("volume", u.Volume), slog.Time("since", u.Since))
	for start := time.Now(); ; {
		var err error
		u.Hooks, err = r.recoverOnce(ctx, log, all(), file, u)
		switch {
		case ctx.Err() != nil: // the next start goes on
			return
		case err == nil:
			log.WarnContext(ctx, "snapshot was cut off; the hooks after it have been run now")
			return
		case time.Since(start) > recoverTime:
			log.ErrorContext(ctx, "snapshot was cut off, and a hook after it fails", slog.Any("error", err))
			if err := r.forget(file); err != nil {
				log.ErrorContext(ctx, "what hooks have ended cannot be forgotten", slog.Any("error", err))
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(recoverEvery):
		}
	}
}

// recoverOnce runs all that is missing, whatever fails of it, and returns the hooks that are worth another try.
func (r *Runner) recoverOnce(ctx context.Context, log *slog.Logger, all []Hook, file string, u under) (left []string, err error) {
	unlock, err := r.lock(ctx, u.Event)
	if err != nil {
		return u.Hooks, err
	}
	defer unlock()
	engines := r.Engines()
	var errs []error
	for _, name := range slices.Backward(u.Hooks) {
		i := slices.IndexFunc(all, func(h Hook) bool { return h.Name == name })
		if i < 0 {
			continue // is not in the configuration any more
		}
		switch err := all[i].run(ctx, engines, after, u.Event); {
		case err == nil:
		case errors.Is(err, errdefs.ErrUnavailable), errors.Is(err, errdefs.ErrNotFound):
			left, errs = append(left, name), append(errs, err)
		default:
			log.ErrorContext(ctx, "snapshot was cut off, and a hook after it fails", slog.Any("error", err))
		}
	}
	if len(errs) > 0 {
		slices.Reverse(left)
		return left, joined(errs)
	}
	return nil, r.forget(file)
}
