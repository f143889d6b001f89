package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
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
		return s.d.made.of(ctx, backups{s.d}, t.Repository, func(b backup.Backup) bool {
			return b.Pool == s.conf.Name && b.Volume == name && b.Labels[schedule.Label] == of
		})
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

// made remembers what backups there are in each repository, as to open one takes a second and
// there may be many volumes. The zero value knows none.
type made struct {
	mu    sync.Mutex
	lists map[string]*madeIn
}

// madeIn are the backups in one repository.
type madeIn struct {
	reading sync.Mutex // held by the one who asks the repository
	mu      sync.Mutex
	at      time.Time // when it was asked
	all     []backup.Backup
	err     error // what it answered, and
	failed  time.Time
	freed   time.Time
}

// madeTime is for how long a list is believed. What this daemon does is in it at once; this is
// for what others do.
const madeTime = 10 * time.Minute

// madeAgain is how long nobody asks again, after a repository could not be read.
const madeAgain = 30 * time.Second

func (m *made) in(repository string) *madeIn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lists == nil {
		m.lists = map[string]*madeIn{}
	}
	if m.lists[repository] == nil {
		m.lists[repository] = &madeIn{}
	}
	return m.lists[repository]
}

// add adds one that has just been made.
func (m *made) add(repository string, b backup.Backup) {
	l := m.in(repository)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.has(b.ID) { // somebody may have read it in the repository already
		l.all = append(l.all, b)
	}
}

// has tells whether a backup is in the list. mu is held.
func (l *madeIn) has(id string) bool {
	return slices.ContainsFunc(l.all, func(b backup.Backup) bool { return b.ID == id })
}

// forget has the repository asked the next time.
func (m *made) forget(repository string) {
	l := m.in(repository)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = time.Time{}
}

// freeTime is how often schedules have room freed in a repository.
const freeTime = 24 * time.Hour

// freeNow tells whether it is time to free room.
func (m *made) freeNow(repository string, now time.Time) bool {
	l := m.in(repository)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.freed) < freeTime {
		return false
	}
	l.freed = now
	return true
}

// of returns the backups of this host that want says.
func (m *made) of(ctx context.Context, b backups, repository string, want func(backup.Backup) bool) ([]schedule.Taken, error) {
	l := m.in(repository)
	l.reading.Lock()
	defer l.reading.Unlock()
	l.mu.Lock()
	all, fresh, failed := l.all, time.Since(l.at) < madeTime, l.err
	if time.Since(l.failed) >= madeAgain {
		failed = nil
	}
	l.mu.Unlock()
	p, err := b.place(repository)
	if err != nil {
		return nil, err
	}
	if !fresh && failed != nil {
		return nil, failed
	}
	if !fresh {
		at := time.Now()
		err := b.with(ctx, repository, func(ctx context.Context, r *backup.Repository, _ backup.Place) (err error) {
			all, err = r.List(ctx)
			return err
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err, l.failed = err, time.Now(); err != nil {
			return nil, err
		}
		for _, b := range l.all { // made while it was read
			if b.Ended.After(at) && !slices.ContainsFunc(all, func(x backup.Backup) bool { return x.ID == b.ID }) {
				all = append(all, b)
			}
		}
		l.all, l.at = all, at
	}
	var taken []schedule.Taken
	for _, b := range all {
		if b.Host == p.Host && want(b) {
			taken = append(taken, schedule.Taken{Name: b.ID, At: b.Started})
		}
	}
	return taken, nil
}
