package fill

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ofFill marks a context as that of a fill, which may do with its volume what others may not.
type ofFill struct{}

func (f *Fill) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, ofFill{}, f)
}

// MayUse refuses a volume that is not whole to all but its own fill.
func (s *Fills) MayUse(pool string) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		f := s.all[[2]string{pool, name}]
		if f == nil || ctx.Value(ofFill{}) == f {
			return nil
		}
		return f.refusal()
	}
}

// MayRemove refuses the removal of a volume that is being filled.
func (s *Fills) MayRemove(pool string) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		f := s.all[[2]string{pool, name}]
		if f == nil || ctx.Value(ofFill{}) == f || !f.running && !f.pending() {
			return nil
		}
		return f.refusal()
	}
}

// Removed forgets what is known of a volume that somebody removed.
func (s *Fills) Removed(pool string) func(context.Context, string) {
	return func(ctx context.Context, name string) {
		f := s.Get(pool, name)
		if f == nil || f.Name != name || ctx.Value(ofFill{}) == f {
			return
		}
		if err := f.End(); err != nil {
			s.log.ErrorContext(ctx, "removed volume is still taken for one that is being restored", slog.Any("error", err))
		}
	}
}

// refusal says why a volume cannot be used now. Engines show a person the text alone.
func (f *Fill) refusal() error {
	what := "from " + cmp.Or(f.Of, "backup "+shortID(f.Backup))
	switch {
	case f.Kind == Proof:
		return errdefs.Errorf(errdefs.ErrInUse, "is for the proof of a backup, and goes by itself")
	case f.running:
		return errdefs.Errorf(errdefs.ErrInUse, "is being restored %s: %s", what, f.percent())
	case f.pending():
		return errdefs.Errorf(errdefs.ErrUnavailable, "a restore %s was cut off, and is being undone", what)
	case f.Kind == Create && f.Error == "":
		return errdefs.Errorf(errdefs.ErrUnavailable, "is being restored %s, which is tried again: %s", what, cmp.Or(f.last, "it was cut off"))
	case f.Error == "":
		return errdefs.Errorf(errdefs.ErrUnavailable, "only partly restored %s, as that was cut off: restore it again, or remove it", what)
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "only partly restored %s: %s: restore it again, or remove it", what, f.Error)
}

// percent says how far a fill has come, and how long it will take.
func (f *Fill) percent() string {
	p := f.progress
	if p.Total == 0 {
		return "begun"
	}
	part := float64(p.Done) / float64(p.Total)
	text := fmt.Sprintf("%.0f %%", 100*part)
	if took := time.Since(f.since); part > 0 && took > time.Second {
		text += fmt.Sprintf(", %s left", time.Duration(float64(took)*(1-part)/part).Round(time.Second))
	}
	return text
}

// Word says in a word or two what a list shows of a volume; empty for one that is whole.
func (s *Fills) Word(pool, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[[2]string{pool, name}]
	switch {
	case f == nil:
		return ""
	case f.Kind == Proof:
		return "proof"
	case f.running && f.progress.Total > 0:
		return fmt.Sprintf("restoring %.0f %%", 100*float64(f.progress.Done)/float64(f.progress.Total))
	case f.running:
		return "restoring"
	}
	return "partial"
}

// Tell takes progress, and hands it on.
func (f *Fill) Tell(next func(backup.Progress)) func(backup.Progress) {
	return func(p backup.Progress) {
		f.of.mu.Lock()
		f.progress = p
		f.of.mu.Unlock()
		if next != nil {
			next(p)
		}
	}
}

func shortID(id string) string { return fmt.Sprintf("%.12s", id) }
