package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// defaultCreateWait is how long the creation of a volume from a backup waits for it. An engine
// waits two minutes.
const defaultCreateWait = 75 * time.Second

// MakeVolume makes a volume of a backup, or waits for one that is being made. What takes longer than
// an engine waits goes on without it; until the volume is whole it cannot be mounted.
func (v *Service) MakeVolume(ctx context.Context, p *pool.Pool, name string, opts map[string]string) error {
	ref := opts[pool.BackupOption]
	repo, of, ok := strings.Cut(ref, "/")
	if !ok || repo == "" || of == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "volume %q: option %q: %q: want REPOSITORY/ID or REPOSITORY/VOLUME", name, pool.BackupOption, ref)
	}
	if opts[pool.CloneOption] != "" {
		return pool.ErrTwoSources(name)
	}
	if _, err := v.Backups.Place(repo); err != nil {
		return fmt.Errorf("volume %q: option %q: %w", name, pool.BackupOption, err)
	}
	opts = maps.Clone(opts)
	delete(opts, pool.BackupOption)
	if f := v.Fills.Get(p.Conf.Name, name); f == nil {
		_, err := p.Handler.Get(ctx, name)
		if err == nil {
			return p.Handler.Create(ctx, name, opts) // adopted, as any that is there
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	f, err := v.Fills.Begin(p.Conf.Name, name, fill.Facts{Kind: fill.Create, Repository: repo, Of: ref})
	if err != nil {
		under := v.Fills.Get(p.Conf.Name, name)
		if under == nil || !under.Joins(ref) {
			return err
		}
		return under.Await(ctx, v.CreateWait)
	}
	v.begin(p, f, opts) //nolint:contextcheck // it is part of the pool's life, not of the call's
	return f.Await(ctx, v.CreateWait)
}

// begin has a fill run in the background, as part of the pool's life.
func (v *Service) begin(p *pool.Pool, f *fill.Fill, opts map[string]string) {
	ctx, cancel := context.WithCancelCause(f.Context(p.Context()))
	f.Runs(cancel)
	if !p.Enter() {
		cancel(nil)
		f.Stopped(pool.ErrStopping)
		return
	}
	go func() {
		defer p.Leave()
		defer cancel(nil)
		err := v.make(ctx, p, f, opts)
		f.Stopped(v.settleMade(ctx, p, f, err))
	}()
}

// make restores a backup into a volume, which is made if it is not there.
func (v *Service) make(ctx context.Context, p *pool.Pool, f *fill.Fill, opts map[string]string) error {
	return v.Backups.With(ctx, f.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		_, of, _ := strings.Cut(f.Of, "/")
		if f.Backup != "" { // chosen before a crash
			of = f.Backup
		}
		one, err := r.Pick(ctx, backup.Wanted{Of: of, Pool: p.Conf.Name})
		if err == nil {
			err = f.Change(func(facts *fill.Facts) { facts.Backup, facts.Error = one.ID, "" })
		}
		if err != nil {
			return fmt.Errorf("volume %q: option %q: %w", f.Name, pool.BackupOption, err)
		}
		vol, err := p.Handler.Get(ctx, f.Name)
		switch {
		case errors.Is(err, errdefs.ErrNotFound):
			if err := f.Change(func(facts *fill.Facts) { facts.Made = true }); err != nil {
				return err
			}
			if err := p.Handler.Create(ctx, f.Name, opts); err != nil {
				return err
			}
			if vol, err = p.Handler.Get(ctx, f.Name); err != nil {
				return err
			}
		case err != nil:
			return err
		case !f.Owns(vol):
			return fmt.Errorf("volume %q: %w", f.Name, fill.ErrNotOurs)
		}
		s := restoring{v: v, p: p, r: r, place: place, one: one}
		prepare := f.TakeEmpty
		if vol.External { // others may have it too: what is there may be theirs, whatever this fill has seen
			prepare = fill.Empty
		}
		if err := s.fill(ctx, f, f.Name, prepare); err != nil {
			return err
		}
		v.Log.InfoContext(ctx, "volume made of a backup", slog.String("pool", f.Pool), slog.String("volume", f.Name), slog.String("backup", one.ID))
		return nil
	})
}

// settleMade decides what becomes of a volume that was made, or was not. Where somebody waits he is
// told, and it goes; where nobody does it stays, and says why it is not whole. One that has lost
// its repository, or its daemon, is filled again later.
func (v *Service) settleMade(ctx context.Context, p *pool.Pool, f *fill.Fill, err error) error {
	if err == nil {
		return f.End()
	}
	if p.Context().Err() != nil || v.Life.Err() != nil {
		return pool.ErrStopping
	}
	vol, gerr := p.Handler.Get(context.WithoutCancel(ctx), f.Name)
	if errors.Is(gerr, errdefs.ErrNotFound) {
		return errdefs.Join(err, f.End())
	}
	if gerr == nil && !f.Owns(vol) {
		return errdefs.Join(err, f.Abandon())
	}
	if f.Waited() {
		return errdefs.Join(err, discardNew(ctx, p, f, f.Name))
	}
	v.Log.ErrorContext(ctx, "volume is not whole", slog.String("pool", f.Pool), slog.String("volume", f.Name), slog.Any("error", err))
	class := errdefs.Class(err)
	return f.Failed(err, errors.Is(class, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded))
}

// resume goes on with a volume that an engine wanted and that is not whole.
func (v *Service) resume(p *pool.Pool, f *fill.Fill) {
	if !f.Again() {
		return
	}
	v.Log.Info("volume is restored again from the beginning, as that was cut off", slog.String("pool", f.Pool), slog.String("volume", f.Name))
	v.begin(p, f, nil)
}
