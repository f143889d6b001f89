package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ownMount begins the mount IDs of the daemon's own; what follows is of one run of one pool.
const ownMount = "remora-daemon-"

// finish finishes what a daemon before this one had decided: a volume that was whole takes its
// place before an engine can ask for it.
func (p *pool) finish(ctx context.Context, s *fills) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	s.load(ctx, p.conf.Name)
	for _, f := range s.left(p.conf.Name) {
		if f.Kind == fillInPlace && f.Whole {
			p.settle(ctx, s, f, nil)
		}
	}
}

// recover undoes, finishes or goes on with what was cut off. What cannot be done now, as where the
// storage is out of reach, is tried again at the next look.
func (p *pool) recover(ctx context.Context, d *Daemon) {
	if !p.enter() {
		return
	}
	defer p.leave()
	if !p.recovering.TryLock() {
		return
	}
	defer p.recovering.Unlock()
	p.takeBack(ctx, d.log)
	for _, f := range d.fills.left(p.conf.Name) {
		if p.ctx.Err() != nil {
			return
		}
		p.settle(ctx, d.fills, f, d)
	}
}

// takeBack unmounts what a daemon before this one had mounted for itself when it was killed.
func (p *pool) takeBack(ctx context.Context, log *slog.Logger) {
	for v, err := range p.handler.List(ctx) {
		if err != nil || p.ctx.Err() != nil {
			return
		}
		for _, m := range v.Mounts {
			if !strings.HasPrefix(m.ID, ownMount) || strings.HasPrefix(m.ID, p.ownMount) {
				continue
			}
			if err := p.handler.Unmount(ctx, v.Name, m.ID); err != nil {
				log.WarnContext(ctx, "what a daemon that was killed had mounted for itself is still mounted",
					slog.String("pool", p.conf.Name), slog.Any("error", err))
			}
		}
	}
}

// settle does with one fill that was cut off what its kind says.
func (p *pool) settle(ctx context.Context, s *fills, f *fill, d *Daemon) {
	log := s.log.With(slog.String("pool", f.pool), slog.String("volume", f.name))
	name := f.name
	if f.Kind == fillInPlace {
		name = f.Beside
	}
	v, err := p.handler.Get(ctx, name)
	for _, m := range v.Mounts { // of a process that is dead
		if strings.HasPrefix(m.ID, ownMount) {
			err = join(err, p.handler.Unmount(ctx, name, m.ID))
		}
	}
	gone := errors.Is(err, errdefs.ErrNotFound)
	switch {
	case f.Kind == fillInPlace && f.Whole:
		if err = p.takePlace(ctx, f); err == nil {
			log.InfoContext(ctx, "restore in place finished, that had been cut off")
		}
	case f.Kind == fillInPlace:
		if err = p.giveUp(ctx, f); err == nil {
			log.WarnContext(ctx, "restore in place had been cut off: the volume is as it was")
		}
	case err != nil && !gone: // it cannot be looked at now
	case f.Kind == fillProof && f.Dir != "":
		if err = os.RemoveAll(f.Dir); err == nil {
			err = f.end()
		}
	case gone:
		err = f.end()
	case f.Kind == fillNew && !v.CreatedAt.IsZero() && v.CreatedAt.Before(f.Began.Truncate(1e9)):
		err = f.end() // it is another one
	case f.Kind == fillProof:
		err = p.discard(ctx, f, name)
	case f.Kind == fillNew:
		if err = p.discardNew(ctx, f, name); err == nil {
			log.WarnContext(ctx, "restore had been cut off: its volume is removed")
		}
	case f.Kind == fillCreate && f.Error == "" && d != nil:
		d.resume(p, f) //nolint:contextcheck // it is part of the pool's life
	}
	if err != nil {
		log.WarnContext(ctx, "what was cut off of a restore is still there", slog.Any("error", err))
	}
}
