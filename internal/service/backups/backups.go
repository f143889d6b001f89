// Package backups answers the control API's questions about backups, makes them, and remembers which
// there are.
package backups

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Service answers the control API's questions about backups. What has changed in the configuration
// counts at once.
type Service struct {
	Options
	made *made
	// repositories keeps those open that are used.
	repositories *backup.Opener
}

// Options are what the service stands on.
type Options struct {
	Pools     *pool.Set
	Snapshots snapshot.Taker
	// Repositories are those of the configuration in force.
	Repositories func() []config.Repository
	StateDir     string
	// Life ends when the daemon stops.
	Life context.Context //nolint:containedctx // that of the daemon
	Log  *slog.Logger
}

// keepOpen is for how long a repository stays open that nobody uses.
const keepOpen = 5 * time.Minute

// New returns a service that remembers nothing yet. It has to be closed.
func New(o Options) *Service { return &Service{o, newMade(), backup.NewOpener(keepOpen)} }

// Close closes what is kept open.
func (b *Service) Close() { b.repositories.Close() }

// Place returns the repository that a request means.
func (b *Service) Place(name string) (backup.Place, error) {
	all := b.Repositories()
	names := make([]string, 0, len(all))
	var found *config.Repository
	for i, r := range all {
		names = append(names, r.Name)
		if r.Name == name || name == "" && len(all) == 1 {
			found = &all[i]
		}
	}
	switch {
	case found != nil:
	case len(all) == 0:
		return backup.Place{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "no repository is configured"),
			"add a table [repository.NAME] to the configuration, and remora reload")
	case name == "":
		return backup.Place{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "no repository named, and there is more than one: %s",
			strings.Join(names, ", ")), "name one with --repo")
	default:
		return backup.Place{}, errdefs.Errorf(errdefs.ErrNotFound, "repository %q: not found, there are: %s", name, strings.Join(names, ", "))
	}
	host, err := os.Hostname()
	if err != nil {
		return backup.Place{}, err
	}
	return backup.Place{Repository: *found, Host: host, Dir: filepath.Join(b.StateDir, "backup", found.Name)}, nil
}

// untilStop returns a context that ends with the daemon too: none of this is waited for.
func (b *Service) untilStop(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(b.Life, func() { cancel(pool.ErrStopping) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// With opens the repository that a request means for as long as do takes.
func (b *Service) With(ctx context.Context, name string, do func(ctx context.Context, r *backup.Repository, p backup.Place) error) error {
	p, err := b.Place(name)
	if err != nil {
		return err
	}
	ctx, cancel := b.untilStop(ctx)
	defer cancel()
	return b.repositories.With(ctx, p, func(r *backup.Repository) error { return do(ctx, r, p) })
}

// Init implements [control.Backups].
func (b *Service) Init(ctx context.Context, req control.BackupRepository) (control.BackupRepository, error) {
	p, err := b.Place(req.Repository)
	if err == nil {
		err = backup.Init(ctx, p)
	}
	if err != nil {
		return control.BackupRepository{}, err
	}
	b.made.forget(p.Name)
	b.Log.InfoContext(ctx, "repository made", slog.String("repository", p.Name), slog.String("url", p.URL.String()))
	return control.BackupRepository{Repository: p.Name, URL: p.URL.String()}, nil
}

// List implements [control.Backups].
func (b *Service) List(ctx context.Context, req control.BackupListRequest) (found []control.Backup, err error) {
	err = b.With(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, p backup.Place) error {
		all, err := r.List(ctx)
		for _, one := range all {
			if (req.Pool == "" || one.Pool == req.Pool) && (req.Name == "" || one.Volume == req.Name) {
				found = append(found, ToControl(one, p))
			}
		}
		return err
	})
	return found, err
}

// Inspect implements [control.Backups].
func (b *Service) Inspect(ctx context.Context, req control.BackupRequest) (c control.Backup, err error) {
	err = b.With(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, p backup.Place) error {
		one, err := r.Inspect(ctx, req.ID)
		c = ToControl(one, p)
		return err
	})
	return c, err
}

// Remove implements [control.Backups].
func (b *Service) Remove(ctx context.Context, req control.BackupRequest) error {
	return b.With(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, p backup.Place) error {
		one, err := r.Inspect(ctx, req.ID)
		if err == nil {
			err = r.Remove(ctx, one.ID)
		}
		b.made.forget(p.Name)
		if err == nil {
			b.Log.InfoContext(ctx, "backup removed", slog.String("repository", p.Name), slog.String("backup", one.ID), slog.String("volume", one.Volume))
		}
		return err
	})
}

// Verify implements [control.Backups].
func (b *Service) Verify(ctx context.Context, req control.BackupRequest, progress func(control.Progress)) (control.BackupVerify, error) {
	p, err := b.Place(req.Repository)
	if err != nil {
		return control.BackupVerify{}, err
	}
	var ids []string
	if req.ID != "" {
		ids = []string{req.ID}
	}
	ctx, cancel := b.untilStop(ctx)
	defer cancel()
	v, err := backup.Verify(ctx, p, ids, Teller(p.Name, progress))
	c := control.BackupVerify{Backups: v.Backups, Bytes: v.Bytes}
	for _, d := range v.Damaged {
		c.Damaged = append(c.Damaged, control.BackupDamaged{ID: d.Backup.ID, Volume: d.Backup.Volume, Files: d.Files, Error: errdefs.OneLine(d.Err.Error())})
		b.Log.ErrorContext(ctx, "backup is damaged", slog.String("repository", p.Name), slog.String("backup", d.Backup.ID),
			slog.String("volume", d.Backup.Volume), slog.Any("error", d.Err))
	}
	return c, err
}

// Prune implements [control.Backups].
func (b *Service) Prune(ctx context.Context, req control.BackupPruneRequest, progress func(control.Progress)) (c control.BackupPrune, err error) {
	c.Choices = []control.BackupChoice{}
	keep := backup.Keep{Last: req.Last, Hourly: req.Hourly, Daily: req.Daily, Weekly: req.Weekly, Monthly: req.Monthly, Yearly: req.Yearly}
	if _, err := backup.Choose(nil, keep, time.Now()); err != nil {
		return c, err
	}
	err = b.With(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, p backup.Place) error {
		all, err := r.List(ctx)
		if err != nil {
			return err
		}
		choices, err := backup.Choose(all, keep, time.Now())
		if err != nil {
			return err
		}
		var gone []string
		for _, one := range choices {
			if req.Pool != "" && one.Pool != req.Pool || req.Name != "" && one.Volume != req.Name || one.Host != p.Host {
				continue
			}
			c.Choices = append(c.Choices, control.BackupChoice{Backup: ToControl(one.Backup, p), Reasons: one.Reasons})
			if len(one.Reasons) == 0 {
				gone = append(gone, one.ID)
			}
		}
		if req.DryRun {
			return nil
		}
		defer b.made.forget(p.Name)
		if err := r.Remove(ctx, gone...); err != nil {
			return err
		}
		b.Log.InfoContext(ctx, "backups pruned", slog.String("repository", p.Name), slog.Int("removed", len(gone)))
		progress(control.Progress{Object: p.Name})
		if req.TakeOver {
			if err := r.TakeOver(ctx); err != nil {
				return err
			}
			b.Log.InfoContext(ctx, "repository taken over", slog.String("repository", p.Name))
		}
		err = r.Maintain(ctx)
		if errors.Is(err, errdefs.ErrDenied) {
			c.Warnings, err = append(c.Warnings, "no room was freed: "+strings.Join(append([]string{err.Error()}, errdefs.Hints(err)...), "; ")), nil
		}
		return err
	})
	return c, err
}

// Repair implements [control.Backups].
func (b *Service) Repair(ctx context.Context, req control.BackupRepairRequest, progress func(control.Progress)) (c control.BackupRepair, err error) {
	p, err := b.Place(req.Repository)
	if err != nil {
		return c, err
	}
	ctx, cancel := b.untilStop(ctx)
	defer cancel()
	defer b.made.forget(p.Name)
	defer b.repositories.Forget()
	done, err := backup.Repair(ctx, p, req.DryRun, Teller(p.Name, progress))
	if done.Damaged() {
		b.Log.WarnContext(ctx, "repository is damaged", slog.String("repository", p.Name), slog.Any("parts", done.Mended), slog.Any("indexes", done.Indexes),
			slog.Int("pieces", done.Pieces), slog.Bool("mended", err == nil && !req.DryRun))
	}
	return control.BackupRepair{Repository: p.Name, Mended: done.Mended, Indexes: done.Indexes, Pieces: done.Pieces, Copies: done.Copies}, err
}

// Teller tells the progress of a backup as the control API has it.
func Teller(object string, progress func(control.Progress)) func(backup.Progress) {
	return func(p backup.Progress) { progress(control.Progress{Object: object, Done: p.Done, Total: p.Total}) }
}

// ToControl is a backup as the control API has it.
func ToControl(b backup.Backup, p backup.Place) control.Backup {
	return control.Backup{
		ID: b.ID, Repository: p.Name, Host: b.Host, Pool: b.Pool, Volume: b.Volume, Kind: string(b.Kind), Started: b.Started, Ended: b.Ended,
		PointInTime: b.PointInTime, Size: b.Size, Files: b.Files, Skipped: b.Skipped, Stored: b.Stored, Labels: b.Labels,
	}
}

// Create implements [control.Backups].
func (b *Service) Create(ctx context.Context, req control.BackupCreateRequest, progress func(control.Progress)) (c control.Backup, err error) {
	p, err := b.Pools.Enter(ctx, req.Pool)
	if err != nil {
		return c, err
	}
	defer p.Leave()
	ctx, done := p.Within(ctx)
	defer done()
	ctx, release, err := b.Claim(ctx, p, req)
	if err != nil {
		return c, b.Pools.Elsewhere(ctx, err, req.Pool, req.Name)
	}
	defer release()
	return b.Store(ctx, p, req, nil, progress)
}

// Claim claims a volume, which has to be there, for a backup.
func (b *Service) Claim(ctx context.Context, p *pool.Pool, req control.BackupCreateRequest) (context.Context, func(), error) {
	if _, err := p.Handler.Get(ctx, req.Name); err != nil {
		return ctx, nil, err
	}
	at, err := b.Place(req.Repository)
	if err != nil {
		return ctx, nil, err
	}
	return p.Claims.Take(ctx, p.Conf.Name, req.Name, pool.BackingUp, fmt.Sprintf("backup to %q", at.Name))
}

// Store backs up a volume that is claimed, from what has been prepared for it or, with nil, a
// snapshot that it makes if the driver can.
func (b *Service) Store(ctx context.Context, p *pool.Pool, req control.BackupCreateRequest, from *snapshot.Prepared, progress func(control.Progress)) (c control.Backup, err error) {
	err = b.With(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		var one backup.Backup
		store := func(ctx context.Context, dir string, still bool) (err error) {
			one, err = r.Create(ctx, backup.Request{
				Pool: p.Conf.Name, Volume: req.Name, Dir: dir, PointInTime: still, Kind: backup.Kind(req.Kind), Reread: req.Reread,
				Labels: req.Labels, Tell: Teller(req.Name, progress),
			})
			return err
		}
		var warnings []string
		beside, err := b.Snapshots.Still(ctx, p, req, from, func(ctx context.Context, dir string, still bool) error {
			if !still {
				v, err := p.Handler.Get(ctx, req.Name)
				if err != nil {
					return err
				}
				if len(v.Mounts) > 1 { // this one is ours
					warnings = append(warnings, fmt.Sprintf("volume %q: in use, and the driver %q has no snapshots: the backup is not of one moment", req.Name, p.Conf.Driver))
				}
			}
			return store(ctx, dir, still)
		})
		c = ToControl(one, place)
		c.Warnings = warnings
		if beside != nil {
			c.Errors = append(c.Errors, errdefs.OneLine(beside.Error()))
		}
		if one.ID != "" {
			b.made.add(place.Name, one)
			b.Log.InfoContext(ctx, "backup made", slog.String("repository", place.Name), slog.String("backup", one.ID), slog.String("volume", req.Name),
				slog.Int64("bytes", one.Size), slog.Int64("stored", one.Stored))
		}
		return err
	})
	return c, err
}
