package backups

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
)

// made remembers which backups of this host there are in each repository, as to open one takes a
// second and there may be many volumes. Schedules ask it, and who lists volumes.
type made struct {
	stale chan struct{} // full when the repositories are to be asked

	mu    sync.Mutex
	lists map[string]*madeIn
}

func newMade() *made {
	return &made{stale: make(chan struct{}, 1), lists: map[string]*madeIn{}}
}

// madeIn are the backups in one repository.
type madeIn struct {
	reading sync.Mutex // held by the one who asks the repository

	mu     sync.Mutex
	at     time.Time // when it was asked; zero to have it asked the next time
	known  bool      // it has answered once
	all    []backup.Backup
	last   map[[2]string]time.Time // the newest, by pool and volume
	err    error                   // what it answered, and
	failed time.Time
	freed  time.Time
}

const (
	// madeTime is for how long a list is believed by who acts on it. What this daemon does is in it
	// at once; this is for what others do.
	madeTime = 10 * time.Minute
	// madeAgain is how long nobody asks again, after a repository could not be read.
	madeAgain = 30 * time.Second
	// freeTime is how often schedules have room freed in a repository.
	freeTime = 24 * time.Hour
)

func (m *made) in(repository string) *madeIn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lists[repository] == nil {
		m.lists[repository] = &madeIn{}
	}
	return m.lists[repository]
}

// look has the repositories asked soon.
func (m *made) look() {
	select {
	case m.stale <- struct{}{}:
	default:
	}
}

// add adds one that has just been made.
func (m *made) add(repository string, b backup.Backup) {
	l := m.in(repository)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.ContainsFunc(l.all, func(x backup.Backup) bool { return x.ID == b.ID }) { // somebody may have read it already
		l.set(append(l.all, b))
	}
	if !l.known { // it could not be reached before
		m.look()
	}
}

// set replaces the list. mu is held.
func (l *madeIn) set(all []backup.Backup) {
	l.all, l.last = all, map[[2]string]time.Time{}
	for _, b := range all {
		of := [2]string{b.Pool, b.Volume}
		if b.Started.After(l.last[of]) {
			l.last[of] = b.Started
		}
	}
}

// forget has a repository asked again: what is remembered of it may not be so any more.
func (m *made) forget(repository string) {
	l := m.in(repository)
	l.mu.Lock()
	l.at, l.failed = time.Time{}, time.Time{}
	l.mu.Unlock()
	m.look()
}

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

// Of returns the backups of this host, from memory where that is young enough.
func (b *Service) Of(ctx context.Context, repository string) ([]backup.Backup, error) {
	l := b.made.in(repository)
	l.reading.Lock()
	defer l.reading.Unlock()
	l.mu.Lock()
	all, fresh, failed := l.all, l.known && time.Since(l.at) < madeTime, l.err
	if time.Since(l.failed) >= madeAgain {
		failed = nil
	}
	l.mu.Unlock()
	switch {
	case fresh:
		return all, nil
	case failed != nil:
		return nil, failed
	}
	at := time.Now()
	err := b.With(ctx, repository, func(ctx context.Context, r *backup.Repository, p backup.Place) (err error) {
		all, err = r.List(ctx)
		all = slices.DeleteFunc(all, func(b backup.Backup) bool { return b.Host != p.Host })
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
	l.set(all)
	l.at, l.known = at, true
	return all, nil
}

// AddLast adds to volumes when they were backed up last. No repository is asked for that.
func (b *Service) AddLast(all []*control.Volume) {
	for _, r := range b.Repositories() {
		l := b.made.in(r.Name)
		l.mu.Lock()
		for _, v := range all {
			if !l.known {
				v.Unknown = append(v.Unknown, "LastBackup")
			}
			if at := l.last[[2]string{v.Pool, v.Name}]; at.After(v.LastBackup) {
				v.LastBackup = at
			}
		}
		l.mu.Unlock()
	}
}

// The times at which all repositories are asked. One that cannot be reached is asked again sooner.
const (
	backupsEvery = time.Hour
	backupsAgain = 5 * time.Minute
)

// Look asks the repositories of the configuration in force, until ctx ends.
func (b *Service) Look(ctx context.Context) {
	for {
		wait := backupsEvery
		for _, conf := range b.Repositories() {
			if _, err := b.Of(ctx, conf.Name); err != nil {
				wait = backupsAgain
				b.Log.DebugContext(ctx, "last backups are not known", slog.String("repository", conf.Name), slog.Any("error", err))
			}
		}
		late := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			late.Stop()
			return
		case <-b.made.stale:
			late.Stop()
		case <-late.C:
		}
	}
}

// Forget has the repositories of a new configuration asked, whatever was known of their names.
func (b *Service) Forget() {
	b.repositories.Forget()
	for _, r := range b.Repositories() {
		b.made.forget(r.Name)
	}
}

// RemoveTaken removes backups of a schedule that are still there, and once a day frees room, if this
// is the host that does that.
func (b *Service) RemoveTaken(ctx context.Context, repository string, gone []schedule.Taken) error {
	defer b.made.forget(repository)
	return b.With(ctx, repository, func(ctx context.Context, r *backup.Repository, p backup.Place) error {
		all, err := r.List(ctx)
		if err != nil {
			return err
		}
		var ids []string
		for _, one := range all {
			if slices.ContainsFunc(gone, func(x schedule.Taken) bool { return x.Name == one.ID }) {
				ids = append(ids, one.ID)
			}
		}
		if err := r.Remove(ctx, ids...); err != nil {
			return err
		}
		b.Log.InfoContext(ctx, "backups removed that are not kept", slog.String("repository", p.Name), slog.Any("backups", ids))
		if !b.made.freeNow(repository, time.Now()) {
			return nil
		}
		if err := r.Maintain(ctx); !errors.Is(err, errdefs.ErrDenied) {
			return err
		}
		return nil
	})
}
