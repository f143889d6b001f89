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
		one, err := r.Pick(ctx, backup.Wanted{Of: req.ID, At: req.At, Pool: req.Pool})
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
		ctx, done := p.within(ctx)
		defer done()
		to := req.To
		if to == "" {
			to = one.Volume
		}
		ctx, release, err := b.d.claims.take(ctx, p.conf.Name, to, changing, fmt.Sprintf("restore of backup %.12s", one.ID))
		if err != nil {
			return err
		}
		defer release()
		c = control.BackupRestore{Backup: backupToControl(one, place), Pool: p.conf.Name, Volume: to}
		s := restoring{b.d, p, r, place, one, teller(to, progress)}
		switch {
		case len(req.Paths) > 0:
			err = s.paths(ctx, to, req)
		case req.To != "":
			err = s.toNew(ctx, to, req.Options)
		default:
			err = s.inPlace(ctx, req.Purge, &c)
		}
		if err != nil {
			return err
		}
		b.d.log.InfoContext(ctx, "backup restored", slog.String("repository", place.Name), slog.String("backup", one.ID), slog.String("volume", to))
		return nil
	})
	return c, err
}

// restoring is a backup that is restored into a pool.
type restoring struct {
	d     *Daemon
	p     *pool
	r     *backup.Repository
	place backup.Place
	one   backup.Backup
	tell  func(backup.Progress)
}

// begin begins a fill of a volume from the backup.
func (s restoring) begin(name, kind, beside string) (*fill, error) {
	return s.d.fills.begin(s.p.conf.Name, name, fillFacts{Kind: kind, Repository: s.place.Name, Backup: s.one.ID, Beside: beside})
}

// fill writes the backup into a volume, whose directory prepare has looked at.
func (s restoring) fill(ctx context.Context, f *fill, name string, prepare func(dir string) error) error {
	return s.p.mounted(f.context(ctx), name, func(ctx context.Context, dir string) error {
		restore, err := s.r.Ready(ctx, s.one.ID) // before anything is lost for it
		if err != nil {
			return err
		}
		if err := prepare(dir); err != nil {
			return fmt.Errorf("volume %q: %w", name, err)
		}
		_, err = restore(ctx, dir, f.tell(s.tell))
		return err
	})
}

// toNew makes a volume of a backup. Where that fails there is none.
func (s restoring) toNew(ctx context.Context, to string, opts map[string]string) error {
	return s.made(ctx, to, opts, func(f *fill) error { return s.fill(ctx, f, to, f.takeEmpty) })
}

// made makes a volume, which must not be there, and has do fill it. Where that fails there is
// none.
func (s restoring) made(ctx context.Context, to string, opts map[string]string, do func(f *fill) error) error {
	f, err := s.begin(to, fillNew, "")
	if err != nil {
		return err
	}
	defer func() { f.stopped(err) }()
	if _, err = s.p.handler.Get(ctx, to); !errors.Is(err, errdefs.ErrNotFound) {
		if err == nil {
			err = errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "volume %q: exists", to), "restore to another name, or --in-place")
		}
		return join(err, f.abandon())
	}
	if err = s.p.handler.Create(f.context(ctx), to, opts); err != nil {
		return join(err, f.abandon())
	}
	if err = do(f); err != nil {
		return join(err, s.p.discardNew(ctx, f, to))
	}
	return f.end()
}

// discard destroys a volume that did not become whole, or the one beside, and forgets its fill.
// Where it cannot, that is done later.
func (p *pool) discard(ctx context.Context, f *fill, name string) error {
	if err := p.handler.Destroy(f.context(context.WithoutCancel(ctx)), name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	if f.Kind == fillInPlace {
		return f.abandon()
	}
	return f.end()
}

// discardNew is discard of a volume that was made for its fill, or was believed to be: where there is
// data in it that is not the fill's it stays.
func (p *pool) discardNew(ctx context.Context, f *fill, name string) error {
	ctx = context.WithoutCancel(ctx)
	f.of.mu.Lock()
	own := f.Own
	f.of.mu.Unlock()
	if v, err := p.handler.Get(ctx, name); err == nil && !own && !v.External { // else no data goes with it
		err := p.mounted(f.context(ctx), name, func(_ context.Context, dir string) error { return empty(dir) })
		if err != nil {
			return f.abandon()
		}
	}
	return p.discard(ctx, f, name)
}

// takeEmpty makes sure of a directory that is to be filled: it is empty, or has what this fill, cut
// off before, has written to it.
func (f *fill) takeEmpty(dir string) error {
	f.of.mu.Lock()
	own := f.Own
	f.of.mu.Unlock()
	if own {
		return removeAll(dir)
	}
	if err := empty(dir); err != nil {
		return err
	}
	return f.change(func(facts *fillFacts) { facts.Own = true })
}

// errNotOurs says that a volume which was to be made by a restore is somebody else's: nothing in
// it may be touched.
var errNotOurs = errdefs.Errorf(errdefs.ErrExists, "it was not made for this")

// empty refuses a directory that holds more than what a new file system does.
func empty(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name() != lostFound {
			return fmt.Errorf("new, and not empty, as it has %q: %w", e.Name(), errNotOurs)
		}
	}
	return nil
}

// lostFound is the directory that a file system makes for itself.
const lostFound = "lost+found"

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

// paths brings back some files of a backup, each at once.
func (s restoring) paths(ctx context.Context, to string, req control.BackupRestoreRequest) error {
	write := func(ctx context.Context, prepare func(dir string) error) error {
		return s.p.mounted(ctx, to, func(ctx context.Context, dir string) error {
			if err := prepare(dir); err != nil {
				return fmt.Errorf("volume %q: %w", to, err)
			}
			for _, name := range req.Paths {
				if err := s.r.RestorePath(ctx, s.one.ID, name, dir, s.tell); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if _, err := s.p.handler.Get(ctx, to); errors.Is(err, errdefs.ErrNotFound) && req.To != "" {
		return s.made(ctx, to, req.Options, func(f *fill) error { return write(f.context(ctx), f.takeEmpty) })
	} else if err != nil {
		return err
	}
	return write(ctx, func(string) error { return nil })
}
