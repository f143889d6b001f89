package restore

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// finishTime bounds what is finished of a pool before it is served.
const finishTime = 10 * time.Second

// Finish finishes what a daemon before this one had decided: a volume that was whole takes its
// place before an engine can ask for it.
func (v *Service) Finish(ctx context.Context, p *pool.Pool) {
	ctx, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	v.Fills.Load(ctx, p.Conf.Name)
	for _, f := range v.Fills.Left(p.Conf.Name) {
		if f.Kind == fill.InPlace && f.Whole {
			v.settle(ctx, p, f, false)
		}
	}
}

// Recover undoes, finishes or goes on with what was cut off. What cannot be done now, as where the
// storage is out of reach, is tried again at the next look.
func (v *Service) Recover(ctx context.Context, p *pool.Pool) {
	if !p.Enter() {
		return
	}
	defer p.Leave()
	if !v.alone(p) {
		return
	}
	defer v.done(p)
	p.TakeBack(ctx)
	for _, f := range v.Fills.Left(p.Conf.Name) {
		if p.Context().Err() != nil {
			return
		}
		v.settle(ctx, p, f, true)
	}
}

// alone tells whether nobody else settles what was cut off in a pool; done has to be called then.
func (v *Service) alone(p *pool.Pool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.settling[p] {
		return false
	}
	v.settling[p] = true
	return true
}

func (v *Service) done(p *pool.Pool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.settling, p)
}

// settle does with one fill that was cut off what its kind says.
func (v *Service) settle(ctx context.Context, p *pool.Pool, f *fill.Fill, resume bool) {
	log := v.Log.With(slog.String("pool", f.Pool), slog.String("volume", f.Name))
	name := f.Name
	if f.Kind == fill.InPlace {
		name = f.Beside
	}
	vol, err := p.Handler.Get(ctx, name)
	for _, m := range vol.Mounts { // of a process that is dead
		if pool.IsOwn(m.ID) {
			err = errdefs.Join(err, p.Handler.Unmount(ctx, name, m.ID))
		}
	}
	gone := errors.Is(err, errdefs.ErrNotFound)
	switch {
	case f.Kind == fill.InPlace && f.Whole:
		if err = takePlace(ctx, p, f); err == nil {
			log.InfoContext(ctx, "restore in place finished, that had been cut off")
		}
	case f.Kind == fill.InPlace:
		if err = giveUp(ctx, p, f); err == nil {
			log.WarnContext(ctx, "restore in place had been cut off: the volume is as it was")
		}
	case err != nil && !gone: // it cannot be looked at now
	case f.Kind == fill.Proof && f.Dir != "":
		if err = os.RemoveAll(f.Dir); err == nil {
			err = f.End()
		}
	case gone:
		err = f.End()
	case f.Kind == fill.New && !vol.CreatedAt.IsZero() && vol.CreatedAt.Before(f.Began.Truncate(1e9)):
		err = f.End() // it is another one
	case f.Kind == fill.Proof:
		err = Discard(ctx, p, f, name)
	case f.Kind == fill.New:
		if err = discardNew(ctx, p, f, name); err == nil {
			log.WarnContext(ctx, "restore had been cut off: its volume is removed")
		}
	case f.Kind == fill.Create && f.Error == "" && resume:
		v.resume(p, f) //nolint:contextcheck // it is part of the pool's life
	}
	if err != nil {
		log.WarnContext(ctx, "what was cut off of a restore is still there", slog.Any("error", err))
	}
}
