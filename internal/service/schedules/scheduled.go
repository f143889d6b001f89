package schedules

import (
	"context"
	"errors"
	"log/slog"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// scheduled is a pool as schedules see it.
type scheduled struct {
	*pool.Pool
	of *Service
}

var _ schedule.Pool = scheduled{}

// Able implements [schedule.Pool].
func (s scheduled) Able() bool { return volume.Can[volume.Snapshotter](s.Handler) }

// Volumes implements [schedule.Pool].
func (s scheduled) Volumes() []schedule.Volume {
	var all []schedule.Volume
	for v, err := range s.Handler.List(s.Context()) { // from memory
		if err != nil {
			break
		}
		if s.of.Fills.Word(s.Conf.Name, v.Name) != "" {
			continue // it is not whole
		}
		all = append(all, schedule.Volume{Name: v.Name, CreatedAt: v.CreatedAt, Schedules: s.of.wishes.of(s.Conf.Name, v.Name)})
	}
	return all
}

// within does something in the pool, which ends when the pool does.
func (s scheduled) within(ctx context.Context, do func(context.Context) error) error {
	if !s.Enter() {
		return schedule.ErrClosed
	}
	defer s.Leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.Context(), func() { cancel(schedule.ErrClosed) })() //nolint:contextcheck // it ends with either
	err := do(ctx)
	if err != nil && s.Context().Err() != nil {
		return errdefs.As(schedule.ErrClosed, err)
	}
	return err
}

// Taken implements [schedule.Pool].
func (s scheduled) Taken(ctx context.Context, t schedule.Task, of, name string) (taken []schedule.Taken, err error) {
	if t.Repository != "" {
		all, err := s.of.Backups.Of(ctx, t.Repository)
		for _, b := range all {
			if b.Pool == s.Conf.Name && b.Volume == name && b.Labels[schedule.Label] == of {
				taken = append(taken, schedule.Taken{Name: b.ID, At: b.Started})
			}
		}
		return taken, err
	}
	err = s.within(ctx, func(ctx context.Context) error {
		all, err := s.Handler.Snapshots(ctx, name)
		for _, x := range all {
			if x.Labels[schedule.Label] == of {
				taken = append(taken, schedule.Taken{Name: x.Name, At: x.CreatedAt})
			}
		}
		return err
	})
	return taken, err
}

// Take implements [schedule.Pool].
func (s scheduled) Take(ctx context.Context, t schedule.Task, of, name string) (done bool, err error) {
	labels := map[string]string{schedule.Label: of}
	err = s.within(ctx, func(ctx context.Context) error {
		if t.Repository == "" {
			made, err := s.of.Snapshots.Take(ctx, s.Pool, control.SnapshotCreateRequest{Volume: name, Labels: labels})
			done = made != ""
			return err
		}
		one, err := s.of.Backups.Create(ctx, control.BackupCreateRequest{
			Repository: t.Repository, Pool: s.Conf.Name, Name: name, Labels: labels,
		}, func(control.Progress) {})
		done = one.ID != ""
		for _, text := range one.Errors {
			err = errdefs.Join(err, errors.New(text))
		}
		for _, w := range one.Warnings {
			s.of.Log.WarnContext(ctx, "scheduled backup", slog.String("schedule", of), slog.String("warning", w))
		}
		return err
	})
	return done, err
}

// Remove implements [schedule.Pool].
func (s scheduled) Remove(ctx context.Context, t schedule.Task, name string, gone []schedule.Taken) error {
	if t.Repository != "" {
		return s.of.Backups.RemoveTaken(ctx, t.Repository, gone)
	}
	return s.within(ctx, func(ctx context.Context) error {
		var errs []error
		for _, x := range gone {
			err := s.Handler.RemoveSnapshot(ctx, name, x.Name)
			if err != nil && !errors.Is(err, errdefs.ErrNotFound) { // somebody was faster
				errs = append(errs, err)
			}
		}
		return errdefs.Join(errs...)
	})
}
