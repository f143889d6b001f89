package daemon

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
)

// lastBackups remembers when the volumes of this host were backed up last, so that to list them
// no repository has to be asked. What other tools do in a repository it learns within an hour.
type lastBackups struct {
	stale chan struct{} // full when the repositories are to be asked

	mu    sync.Mutex
	lists map[string]map[[2]string]time.Time // by repository, pool and volume
}

func newLastBackups() *lastBackups {
	return &lastBackups{stale: make(chan struct{}, 1), lists: map[string]map[[2]string]time.Time{}}
}

// forget has the repositories asked again soon.
func (l *lastBackups) forget() {
	select {
	case l.stale <- struct{}{}:
	default:
	}
}

// made takes note of a backup that was made.
func (l *lastBackups) made(repository string, b backup.Backup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lists[repository] == nil { // it could not be reached before
		l.forget()
		return
	}
	l.lists[repository][[2]string{b.Pool, b.Volume}] = b.Started
}

// add adds to volumes when they were backed up last.
func (l *lastBackups) add(all []*control.Volume, of []config.Repository) {
	if len(of) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range all {
		for _, r := range of {
			list, known := l.lists[r.Name]
			if !known {
				v.Unknown = append(v.Unknown, "LastBackup")
			}
			if at := list[[2]string{v.Pool, v.Name}]; at.After(v.LastBackup) {
				v.LastBackup = at
			}
		}
	}
}

// The times at which repositories are asked. One that cannot be reached is asked again sooner.
const (
	backupsEvery = time.Hour
	backupsAgain = 5 * time.Minute
)

// lookBackups asks the repositories of the configuration in force, until ctx ends.
func (d *Daemon) lookBackups(ctx context.Context) {
	for {
		wait := backupsEvery
		fresh := map[string]map[[2]string]time.Time{}
		for _, conf := range d.conf.Load().Repositories {
			list, err := d.listBackups(ctx, conf.Name)
			if err != nil {
				wait = backupsAgain
				d.log.DebugContext(ctx, "last backups are not known", slog.String("repository", conf.Name), slog.Any("error", err))
				continue
			}
			fresh[conf.Name] = list
		}
		d.last.mu.Lock()
		maps.Copy(d.last.lists, fresh)
		d.last.mu.Unlock()
		late := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			late.Stop()
			return
		case <-d.last.stale:
			late.Stop()
		case <-late.C:
		}
	}
}

func (d *Daemon) listBackups(ctx context.Context, repository string) (list map[[2]string]time.Time, err error) {
	list = map[[2]string]time.Time{}
	err = backups{d}.with(ctx, repository, func(ctx context.Context, r *backup.Repository, p backup.Place) error {
		all, err := r.List(ctx)
		for _, one := range all { // the oldest first
			if one.Host == p.Host {
				list[[2]string{one.Pool, one.Volume}] = one.Started
			}
		}
		return err
	})
	return list, err
}
