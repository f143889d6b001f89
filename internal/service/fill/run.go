package fill

import (
	"context"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// errGivenUp is the cause of the end of a fill whose volume is removed.
var errGivenUp = errdefs.Errorf(context.Canceled, "given up")

// retryFirst and retryMost are when a fill that could not reach its repository is tried again.
const (
	retryFirst = 20 * time.Second
	retryMost  = time.Hour
)

// Joins tells whether a fill that runs is one that was asked for.
func (f *Fill) Joins(ref string) bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.running && f.Kind == Create && f.Of == ref
}

// Await waits for a fill as long as an engine may be kept waiting.
func (f *Fill) Await(ctx context.Context, most time.Duration) error {
	f.of.mu.Lock()
	f.waiting++
	done := f.done
	f.of.mu.Unlock()
	defer func() {
		f.of.mu.Lock()
		defer f.of.mu.Unlock()
		f.waiting--
	}()
	late := time.NewTimer(most)
	defer late.Stop()
	select {
	case <-done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return errdefs.Errorf(errdefs.ErrUnavailable, "volume %q: %w; it goes on, and the volume can be mounted when it is whole: remora volume ls", f.Name, f.refusal())
}

// Runs says what ends a fill that runs in the background.
func (f *Fill) Runs(stop context.CancelCauseFunc) {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.stop = stop
}

// Again takes up a fill that was cut off, and tells whether it is the one to do it.
func (f *Fill) Again() bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if f.running || f.of.all[[2]string{f.Pool, f.Name}] != f || time.Now().Before(f.again) {
		return false
	}
	f.running, f.done, f.err, f.since, f.progress = true, make(chan struct{}), nil, time.Now(), backup.Progress{}
	return true
}

// Failed keeps why a fill is not whole: for good, or if it is to be tried later until then.
func (f *Fill) Failed(err error, later bool) error {
	if !later {
		return errdefs.Join(err, f.Change(func(facts *Facts) { facts.Error = errdefs.OneLine(err.Error()) }))
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.tries++
	f.again = time.Now().Add(min(retryFirst<<min(f.tries, 10), retryMost))
	f.last = errdefs.OneLine(err.Error())
	return err
}

// Owns tells whether a volume is the one that a fill has made, and not one that somebody else has
// made, or brought back, under its name before it came to that.
func (f *Fill) Owns(v volume.Volume) bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.Made && (v.CreatedAt.IsZero() || !v.CreatedAt.Before(f.Began.Truncate(time.Second)))
}

// OwnsData tells whether all that is in the volume is the fill's.
func (f *Fill) OwnsData() bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.Own
}

// Waited tells whether somebody waits for a fill.
func (f *Fill) Waited() bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.waiting > 0
}

// GiveUp ends the fill of a volume that somebody removes, if it runs in the background.
func (s *Fills) GiveUp(ctx context.Context, pool, name string) {
	f := s.Get(pool, name)
	if f == nil {
		return
	}
	s.mu.Lock()
	stop, done := f.stop, f.done
	running := f.running && f.Kind == Create
	s.mu.Unlock()
	if !running || stop == nil {
		return
	}
	stop(errGivenUp)
	select {
	case <-done:
	case <-ctx.Done():
	}
}
