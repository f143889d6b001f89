// Package restore restores backups into volumes, so that what a crash leaves is never taken for one
// that is whole.
package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/backups"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Service restores backups: to new volumes, in the place of old ones, and for engines that make a
// volume of one.
type Service struct {
	Options

	mu       sync.Mutex
	settling map[*pool.Pool]bool // the pools of which what was cut off is being settled
}

// Options are what the service stands on.
type Options struct {
	Pools   *pool.Set
	Backups *backups.Service
	Fills   *fill.Fills
	// MayRemove refuses to have what is in a volume of a pool replaced.
	MayRemove func(pool string) func(ctx context.Context, name string) error
	// CreateWait is how long the creation of a volume from a backup waits for it; 0 is as long as
	// engines allow.
	CreateWait time.Duration
	// Life ends when the daemon stops.
	Life context.Context //nolint:containedctx // that of the daemon
	Log  *slog.Logger
}

// New returns a service.
func New(o Options) *Service {
	o.CreateWait = cmp.Or(o.CreateWait, defaultCreateWait)
	return &Service{Options: o, settling: map[*pool.Pool]bool{}}
}

// Restore implements [control.Backups].
func (v *Service) Restore(ctx context.Context, req control.BackupRestoreRequest, progress func(control.Progress)) (c control.BackupRestore, err error) {
	err = v.Backups.With(ctx, req.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		one, err := r.Pick(ctx, backup.Wanted{Of: req.ID, At: req.At, Pool: req.Pool})
		if err != nil {
			return err
		}
		p, err := v.Pools.Enter(ctx, cmp.Or(req.Pool, one.Pool))
		if err != nil {
			return err
		}
		defer p.Leave()
		ctx, done := p.Within(ctx)
		defer done()
		to := req.To
		if to == "" {
			to = one.Volume
		}
		ctx, release, err := p.Claims.Take(ctx, p.Conf.Name, to, pool.Changing, fmt.Sprintf("restore of backup %.12s", one.ID))
		if err != nil {
			return err
		}
		defer release()
		c = control.BackupRestore{Backup: backups.ToControl(one, place), Pool: p.Conf.Name, Volume: to}
		s := restoring{v, p, r, place, one, backups.Teller(to, progress)}
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
		v.Log.InfoContext(ctx, "backup restored", slog.String("repository", place.Name), slog.String("backup", one.ID), slog.String("volume", to))
		return nil
	})
	return c, err
}

// restoring is a backup that is restored into a pool.
type restoring struct {
	v     *Service
	p     *pool.Pool
	r     *backup.Repository
	place backup.Place
	one   backup.Backup
	tell  func(backup.Progress)
}

// begin begins a fill of a volume from the backup.
func (s restoring) begin(name, kind, beside string) (*fill.Fill, error) {
	return s.v.Fills.Begin(s.p.Conf.Name, name, fill.Facts{Kind: kind, Repository: s.place.Name, Backup: s.one.ID, Beside: beside})
}

// fill writes the backup into a volume, whose directory prepare has looked at.
func (s restoring) fill(ctx context.Context, f *fill.Fill, name string, prepare func(dir string) error) error {
	return s.p.Mounted(f.Context(ctx), name, func(ctx context.Context, dir string) error {
		restore, err := s.r.Ready(ctx, s.one.ID) // before anything is lost for it
		if err != nil {
			return err
		}
		if err := prepare(dir); err != nil {
			return fmt.Errorf("volume %q: %w", name, err)
		}
		_, err = restore(ctx, dir, f.Tell(s.tell))
		return err
	})
}

// toNew makes a volume of a backup. Where that fails there is none.
func (s restoring) toNew(ctx context.Context, to string, opts map[string]string) error {
	return s.made(ctx, to, opts, func(f *fill.Fill) error { return s.fill(ctx, f, to, f.TakeEmpty) })
}

// made makes a volume, which must not be there, and has do fill it. Where that fails there is
// none.
func (s restoring) made(ctx context.Context, to string, opts map[string]string, do func(f *fill.Fill) error) error {
	f, err := s.begin(to, fill.New, "")
	if err != nil {
		return err
	}
	defer func() { f.Stopped(err) }()
	if _, err = s.p.Handler.Get(ctx, to); !errors.Is(err, errdefs.ErrNotFound) {
		if err == nil {
			err = errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "volume %q: exists", to), "restore to another name, or --in-place")
		}
		return errdefs.Join(err, f.Abandon())
	}
	// Who hangs up is heard of when it is made: a driver makes it to the end all the same, and then
	// somebody has to remove it.
	if err = s.p.Handler.Create(f.Context(context.WithoutCancel(ctx)), to, opts); err != nil {
		return errdefs.Join(err, f.Abandon())
	}
	if err = do(f); err != nil {
		return errdefs.Join(err, discardNew(ctx, s.p, f, to))
	}
	return f.End()
}

// Discard destroys a volume that did not become whole, or the one beside, and forgets its fill.
// Where it cannot, that is done later.
func Discard(ctx context.Context, p *pool.Pool, f *fill.Fill, name string) error {
	if err := p.Handler.Destroy(f.Context(context.WithoutCancel(ctx)), name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	if f.Kind == fill.InPlace {
		return f.Abandon()
	}
	return f.End()
}

// discardNew is Discard of a volume that was made for its fill, or was believed to be: where there is
// data in it that is not the fill's it stays.
func discardNew(ctx context.Context, p *pool.Pool, f *fill.Fill, name string) error {
	ctx = context.WithoutCancel(ctx)
	if v, err := p.Handler.Get(ctx, name); err == nil && !f.OwnsData() && !v.External { // else no data goes with it
		err := p.Mounted(f.Context(ctx), name, func(_ context.Context, dir string) error { return fill.Empty(dir) })
		if err != nil {
			return f.Abandon()
		}
	}
	return Discard(ctx, p, f, name)
}

// paths brings back some files of a backup, each at once.
func (s restoring) paths(ctx context.Context, to string, req control.BackupRestoreRequest) error {
	write := func(ctx context.Context, prepare func(dir string) error) error {
		return s.p.Mounted(ctx, to, func(ctx context.Context, dir string) error {
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
	if _, err := s.p.Handler.Get(ctx, to); errors.Is(err, errdefs.ErrNotFound) && req.To != "" {
		return s.made(ctx, to, req.Options, func(f *fill.Fill) error { return write(f.Context(ctx), f.TakeEmpty) })
	} else if err != nil {
		return err
	}
	return write(ctx, func(string) error { return nil })
}
