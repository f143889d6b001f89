package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Restore implements [control.Backups].
func (b backups) Restore(ctx context.Context, req control.BackupRestoreRequest, progress func(control.Progress)) (c control.BackupRestore, err error) {
	err = b.with(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		one, err := r.Inspect(ctx, req.ID)
		if err != nil {
			return err
		}
		pool := req.Pool
		if pool == "" {
			pool = one.Pool
		}
		p, err := volumes(b).enter(ctx, pool)
		if err != nil {
			return err
		}
		defer p.leave()
		to := req.To
		if to == "" {
			to = one.Volume
		}
		ctx, release, err := b.d.claims.take(ctx, p.conf.Name, to, changing, fmt.Sprintf("restore of backup %.12s", one.ID))
		if err != nil {
			return err
		}
		defer release()
		tell := teller(to, progress)
		switch {
		case len(req.Paths) > 0:
			err = p.restorePaths(ctx, r, one, to, req, tell)
		case req.To != "":
			err = p.restoreNew(ctx, r, one, to, req.Options, tell)
		default:
			if err = b.d.protected().mayRemove(p.conf.Name)(ctx, one.Volume); err != nil {
				return fmt.Errorf("volume %q: %w", one.Volume, err)
			}
			err = p.restoreInPlace(ctx, r, place, one, tell)
		}
		if err != nil {
			return err
		}
		b.d.log.InfoContext(ctx, "backup restored", slog.String("repository", place.Name), slog.String("backup", one.ID), slog.String("volume", to))
		c = control.BackupRestore{Backup: backupToControl(one, place), Pool: p.conf.Name, Volume: to}
		return nil
	})
	return c, err
}

// restoreNew makes a volume of a backup. Where that fails there is none.
func (p *pool) restoreNew(ctx context.Context, r *backup.Repository, one backup.Backup, to string, opts map[string]string, tell func(backup.Progress)) error {
	if _, err := p.handler.Get(ctx, to); err == nil {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "volume %q: exists", to), "restore to another name, or --in-place")
	} else if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	if err := p.handler.Create(ctx, to, opts); err != nil {
		return err
	}
	err := p.mounted(ctx, to, func(ctx context.Context, dir string) error {
		if err := empty(dir); err != nil {
			return fmt.Errorf("volume %q: %w", to, err)
		}
		_, err := r.Restore(ctx, one.ID, dir, tell)
		return err
	})
	if err != nil {
		return join(err, p.handler.Destroy(context.WithoutCancel(ctx), to))
	}
	return nil
}

// empty refuses a directory that holds more than what a new file system does.
func empty(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name() != lostFound {
			return errdefs.Errorf(errdefs.ErrExists, "new, and not empty: it has %q", e.Name())
		}
	}
	return nil
}

// lostFound is the directory that a file system makes for itself.
const lostFound = "lost+found"

// restoreInPlace makes a volume what it was in a backup. All of the backup is read before the
// first old file goes; a restore that is cut off after that is to be done again.
func (p *pool) restoreInPlace(ctx context.Context, r *backup.Repository, place backup.Place, one backup.Backup, tell func(backup.Progress)) error {
	v, err := p.handler.Get(ctx, one.Volume)
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.Hint(err, "restore it to a new volume: --to "+one.Volume)
	}
	if err != nil {
		return err
	}
	if len(v.Mounts) > 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "volume %q: mounted %d times", one.Volume, len(v.Mounts)), "stop the containers that use it first")
	}
	checked, err := backup.Verify(ctx, place, []string{one.ID}, nil)
	if err != nil {
		return err
	}
	if len(checked.Damaged) > 0 {
		return fmt.Errorf("backup %.8s: damaged, and the volume is left as it is: %w", one.ID, checked.Damaged[0].Err)
	}
	return p.mounted(ctx, one.Volume, func(ctx context.Context, dir string) error {
		v, err := p.handler.Get(ctx, one.Volume)
		if err != nil {
			return err
		}
		if len(v.Mounts) > 1 { // somebody was faster
			return errdefs.Errorf(errdefs.ErrInUse, "volume %q: mounted while the backup was read", one.Volume)
		}
		if err := removeAll(dir); err != nil {
			return fmt.Errorf("volume %q: %w", one.Volume, err)
		}
		_, err = r.Restore(ctx, one.ID, dir, tell)
		return err
	})
}

// removeAll removes all that is in a directory.
func removeAll(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name() == lostFound {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// restorePaths brings back some files of a backup, each at once.
func (p *pool) restorePaths(ctx context.Context, r *backup.Repository, one backup.Backup, to string, req control.BackupRestoreRequest, tell func(backup.Progress)) error {
	if _, err := p.handler.Get(ctx, to); errors.Is(err, errdefs.ErrNotFound) && req.To != "" {
		if err := p.handler.Create(ctx, to, req.Options); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return p.mounted(ctx, to, func(ctx context.Context, dir string) error {
		for _, name := range req.Paths {
			if err := r.RestorePath(ctx, one.ID, name, dir, tell); err != nil {
				return err
			}
		}
		return nil
	})
}
