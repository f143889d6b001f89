package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// scheduled is a pool as schedules see it.
type scheduled struct {
	*pool
	d *Daemon
}

var _ schedule.Pool = scheduled{}

// Name implements [schedule.Pool].
func (s scheduled) Name() string { return s.conf.Name }

// Able implements [schedule.Pool].
func (s scheduled) Able() bool { return volume.Can[volume.Snapshotter](s.handler) }

// Volumes implements [schedule.Pool].
func (s scheduled) Volumes() []schedule.Volume {
	var all []schedule.Volume
	for v, err := range s.handler.List(s.ctx) { // from memory
		if err != nil {
			break
		}
		if s.fills.word(s.conf.Name, v.Name) != "" {
			continue // it is not whole
		}
		all = append(all, schedule.Volume{Name: v.Name, CreatedAt: v.CreatedAt, Schedules: s.d.asked.of(s.conf.Name, v.Name)})
	}
	return all
}

// within does something in the pool, which ends when the pool does.
func (s scheduled) within(ctx context.Context, do func(context.Context) error) error {
	if !s.enter() {
		return schedule.ErrClosed
	}
	defer s.leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(schedule.ErrClosed) })() //nolint:contextcheck // it ends with either
	err := do(ctx)
	if err != nil && s.ctx.Err() != nil {
		return errdefs.As(schedule.ErrClosed, err)
	}
	return err
}

// Taken implements [schedule.Pool].
func (s scheduled) Taken(ctx context.Context, t schedule.Task, of, name string) (taken []schedule.Taken, err error) {
	if t.Repository != "" {
		all, err := s.d.made.of(ctx, backups{s.d}, t.Repository)
		for _, b := range all {
			if b.Pool == s.conf.Name && b.Volume == name && b.Labels[schedule.Label] == of {
				taken = append(taken, schedule.Taken{Name: b.ID, At: b.Started})
			}
		}
		return taken, err
	}
	err = s.within(ctx, func(ctx context.Context) error {
		all, err := s.handler.Snapshots(ctx, name)
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
			made, err := s.takeSnapshot(ctx, control.SnapshotCreateRequest{Volume: name, Labels: labels})
			done = made != ""
			return err
		}
		one, err := backups{s.d}.Create(ctx, control.BackupCreateRequest{
			Repository: t.Repository, Pool: s.conf.Name, Name: name, Labels: labels,
		}, func(control.Progress) {})
		done = one.ID != ""
		for _, text := range one.Errors {
			err = join(err, errors.New(text))
		}
		for _, w := range one.Warnings {
			s.d.log.WarnContext(ctx, "scheduled backup", slog.String("schedule", of), slog.String("warning", w))
		}
		return err
	})
	return done, err
}

// Remove implements [schedule.Pool].
func (s scheduled) Remove(ctx context.Context, t schedule.Task, name string, gone []schedule.Taken) error {
	if t.Repository != "" {
		return s.d.removeBackups(ctx, t.Repository, gone)
	}
	return s.within(ctx, func(ctx context.Context) error {
		var errs []error
		for _, x := range gone {
			err := s.handler.RemoveSnapshot(ctx, name, x.Name)
			if err != nil && !errors.Is(err, errdefs.ErrNotFound) { // somebody was faster
				errs = append(errs, err)
			}
		}
		return join(errs...)
	})
}

// removeBackups removes backups that are still there, and once a day frees room, if this is the
// host that does that.
func (d *Daemon) removeBackups(ctx context.Context, repository string, gone []schedule.Taken) error {
	defer d.made.forget(repository)
	return backups{d}.with(ctx, repository, func(ctx context.Context, r *backup.Repository, p backup.Place) error {
		all, err := r.List(ctx)
		if err != nil {
			return err
		}
		var ids []string
		for _, b := range all {
			if slices.ContainsFunc(gone, func(x schedule.Taken) bool { return x.Name == b.ID }) {
				ids = append(ids, b.ID)
			}
		}
		if err := r.Remove(ctx, ids...); err != nil {
			return err
		}
		d.log.InfoContext(ctx, "backups removed that are not kept", slog.String("repository", p.Name), slog.Any("backups", ids))
		if !d.made.freeNow(repository, time.Now()) {
			return nil
		}
		if err := r.Maintain(ctx); !errors.Is(err, errdefs.ErrDenied) {
			return err
		}
		return nil
	})
}
