package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// makeOption is the option of a volume that is made of a backup: REPOSITORY/ID or
// REPOSITORY/VOLUME, which is the newest.
const makeOption = "backup"

// errTwoSources refuses a volume that is to be made of a backup and of something else.
func errTwoSources(name string) error {
	return errdefs.Errorf(errdefs.ErrInvalid, "volume %q: options %q and %q: want one of them", name, makeOption, cloneOption)
}

// defaultCreateWait is how long the creation of a volume from a backup waits for it. An engine
// waits two minutes.
const defaultCreateWait = 75 * time.Second

// errGivenUp is the cause of the end of a fill whose volume is removed.
var errGivenUp = errdefs.Errorf(context.Canceled, "given up")

// retryFirst and retryMost are when a fill that could not reach its repository is tried again.
const (
	retryFirst = 20 * time.Second
	retryMost  = time.Hour
)

// create makes a volume of a backup, or waits for one that is being made. What takes longer than
// an engine waits goes on without it; until the volume is whole it cannot be mounted.
func (d *Daemon) create(ctx context.Context, p *pool, name string, opts map[string]string) error {
	ref := opts[makeOption]
	repo, of, ok := strings.Cut(ref, "/")
	if !ok || repo == "" || of == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "volume %q: option %q: %q: want REPOSITORY/ID or REPOSITORY/VOLUME", name, makeOption, ref)
	}
	if opts[cloneOption] != "" {
		return errTwoSources(name)
	}
	if _, err := (backups{d}).place(repo); err != nil {
		return fmt.Errorf("volume %q: option %q: %w", name, makeOption, err)
	}
	opts = maps.Clone(opts)
	delete(opts, makeOption)
	if f := d.fills.get(p.conf.Name, name); f == nil {
		_, err := p.handler.Get(ctx, name)
		if err == nil {
			return p.handler.Create(ctx, name, opts) // adopted, as any that is there
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	f, err := d.fills.begin(p.conf.Name, name, fillFacts{Kind: fillCreate, Repository: repo, Of: ref})
	if err != nil {
		under := d.fills.get(p.conf.Name, name)
		if under == nil || !under.joins(ref) {
			return err
		}
		return d.await(ctx, under)
	}
	d.begin(p, f, opts) //nolint:contextcheck // it is part of the pool's life, not of the call's
	return d.await(ctx, f)
}

// joins tells whether a fill that runs is one that was asked for.
func (f *fill) joins(ref string) bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.running && f.Kind == fillCreate && f.Of == ref
}

// await waits for a fill as long as an engine may be kept waiting.
func (d *Daemon) await(ctx context.Context, f *fill) error {
	f.of.mu.Lock()
	f.waiting++
	done := f.done
	f.of.mu.Unlock()
	defer func() {
		f.of.mu.Lock()
		defer f.of.mu.Unlock()
		f.waiting--
	}()
	late := time.NewTimer(d.createWait)
	defer late.Stop()
	select {
	case <-done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return errdefs.Errorf(errdefs.ErrUnavailable, "volume %q: %w; it goes on, and the volume can be mounted when it is whole: remora volume ls", f.name, f.refusal())
}

// begin has a fill run in the background, as part of the pool's life.
func (d *Daemon) begin(p *pool, f *fill, opts map[string]string) {
	ctx, cancel := context.WithCancelCause(f.context(p.ctx))
	f.of.mu.Lock()
	f.stop = cancel
	f.of.mu.Unlock()
	if !p.enter() {
		cancel(nil)
		f.stopped(errStopping)
		return
	}
	go func() {
		defer p.leave()
		defer cancel(nil)
		err := d.make(ctx, p, f, opts)
		f.stopped(d.settleMade(ctx, p, f, err))
	}()
}

// make restores a backup into a volume, which is made if it is not there.
func (d *Daemon) make(ctx context.Context, p *pool, f *fill, opts map[string]string) error {
	return (backups{d}).with(ctx, f.Repository, func(ctx context.Context, r *backup.Repository, place backup.Place) error {
		_, of, _ := strings.Cut(f.Of, "/")
		if f.Backup != "" { // chosen before a crash
			of = f.Backup
		}
		one, err := r.Pick(ctx, backup.Wanted{Of: of, Pool: p.conf.Name})
		if err == nil {
			err = f.change(func(facts *fillFacts) { facts.Backup, facts.Error = one.ID, "" })
		}
		if err != nil {
			return fmt.Errorf("volume %q: option %q: %w", f.name, makeOption, err)
		}
		v, err := p.handler.Get(ctx, f.name)
		switch {
		case errors.Is(err, errdefs.ErrNotFound):
			if err := f.change(func(facts *fillFacts) { facts.Made = true }); err != nil {
				return err
			}
			if err := p.handler.Create(ctx, f.name, opts); err != nil {
				return err
			}
		case err != nil:
			return err
		case !f.owns(v):
			return fmt.Errorf("volume %q: %w", f.name, errNotOurs)
		}
		s := restoring{d: d, p: p, r: r, place: place, one: one}
		if err := s.fill(ctx, f, f.name, f.takeEmpty); err != nil {
			return err
		}
		d.log.InfoContext(ctx, "volume made of a backup", slog.String("pool", f.pool), slog.String("volume", f.name), slog.String("backup", one.ID))
		return nil
	})
}

// owns tells whether a volume is the one that a fill has made, and not one that somebody else has
// made, or brought back, under its name before it came to that.
func (f *fill) owns(v volume.Volume) bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.Made && (v.CreatedAt.IsZero() || !v.CreatedAt.Before(f.Began.Truncate(time.Second)))
}

// settleMade decides what becomes of a volume that was made, or was not. Where somebody waits he is
// told, and it goes; where nobody does it stays, and says why it is not whole. One that has lost
// its repository, or its daemon, is filled again later.
func (d *Daemon) settleMade(ctx context.Context, p *pool, f *fill, err error) error {
	if err == nil {
		return f.end()
	}
	if p.ctx.Err() != nil || d.life.Err() != nil {
		return errStopping
	}
	v, gerr := p.handler.Get(context.WithoutCancel(ctx), f.name)
	if errors.Is(gerr, errdefs.ErrNotFound) {
		return join(err, f.end())
	}
	if gerr == nil && !f.owns(v) {
		return join(err, f.abandon())
	}
	f.of.mu.Lock()
	waited := f.waiting > 0
	f.of.mu.Unlock()
	if waited {
		return join(err, p.discardNew(ctx, f, f.name))
	}
	d.log.ErrorContext(ctx, "volume is not whole", slog.String("pool", f.pool), slog.String("volume", f.name), slog.Any("error", err))
	if class := errdefs.Class(err); errors.Is(class, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		f.of.mu.Lock()
		f.tries++
		f.again = time.Now().Add(min(retryFirst<<min(f.tries, 10), retryMost))
		f.last = errdefs.OneLine(err.Error())
		f.of.mu.Unlock()
		return err
	}
	return join(err, f.change(func(facts *fillFacts) { facts.Error = errdefs.OneLine(err.Error()) }))
}

// resume goes on with a volume that an engine wanted and that is not whole.
func (d *Daemon) resume(p *pool, f *fill) {
	f.of.mu.Lock()
	if f.running || f.of.all[[2]string{f.pool, f.name}] != f || time.Now().Before(f.again) {
		f.of.mu.Unlock()
		return
	}
	f.running, f.done, f.err, f.since, f.progress = true, make(chan struct{}), nil, time.Now(), backup.Progress{}
	f.of.mu.Unlock()
	d.log.Info("volume is restored again from the beginning, as that was cut off", slog.String("pool", f.pool), slog.String("volume", f.name))
	d.begin(p, f, nil)
}

// giveUpFill ends the fill of a volume that somebody removes.
func (d *Daemon) giveUpFill(ctx context.Context, p *pool, name string) {
	f := d.fills.get(p.conf.Name, name)
	if f == nil {
		return
	}
	f.of.mu.Lock()
	stop, done := f.stop, f.done
	running := f.running && f.Kind == fillCreate
	f.of.mu.Unlock()
	if !running || stop == nil {
		return
	}
	stop(errGivenUp)
	select {
	case <-done:
	case <-ctx.Done():
	}
}
