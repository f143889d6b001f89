// Package trash empties the trash of a pool: what has been in it for long enough goes, and
// what has not goes all the same when room is short, the oldest first and one at a time.
//
// What lies in the trash, and since when, the driver knows; nothing is remembered here.
package trash

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

const (
	// every is how often the trash is looked through, and spaceEvery how often it is looked
	// whether room is short.
	every      = time.Hour
	spaceEvery = time.Minute
	// fresh is how long nothing is purged that somebody has just removed, and may be about to
	// miss.
	fresh = time.Minute
	// settle is how long after a start nothing expires: a host whose clock is ahead at boot has it set by then.
	settle = 10 * time.Minute
)

// Store is a pool with a trash, such as a [volume.Handler].
type Store interface {
	Trashed(ctx context.Context) ([]volume.Trashed, error)
	Purge(ctx context.Context, id string) error
	Space(ctx context.Context) (volume.Space, error)
}

// Purger empties the trash of one pool. All its fields are required but MinFree.
type Purger struct {
	Store Store
	// Keep is how long a volume is kept in the trash.
	Keep time.Duration
	// MinFree is how much of the storage, in percent, has to be free for that; 0 does not look.
	MinFree float64
	Log     *slog.Logger

	// spaceless is set when the driver cannot tell how much room there is.
	spaceless bool
}

// Run looks through the trash now and then until ctx ends.
func (p *Purger) Run(ctx context.Context) {
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	due := time.NewTimer(min(settle, p.Keep))
	defer due.Stop()
	for {
		if p.short(ctx) {
			p.sweep(ctx, false)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-due.C:
			p.sweep(ctx, true)
			due.Reset(max(spaceEvery, min(every, p.Keep)))
		}
	}
}

// sweep purges what is due: for want of room, and what has expired where that may be looked at.
func (p *Purger) sweep(ctx context.Context, expired bool) {
	all, err := p.Store.Trashed(ctx)
	if err != nil {
		if ctx.Err() == nil {
			p.Log.WarnContext(ctx, "trash cannot be looked through", slog.Any("error", err))
		}
		return
	}
	for _, t := range all {
		age := time.Since(t.RemovedAt)
		old := expired && age >= p.Keep
		reason := "expired"
		if !old {
			reason = "room is short"
		}
		if ctx.Err() != nil || age < fresh || !old && !p.short(ctx) {
			return // those behind it are younger
		}
		before := p.free(ctx)
		err := p.Store.Purge(ctx, t.ID)
		switch {
		case errors.Is(err, errdefs.ErrNotFound): // somebody was faster
			continue
		case err != nil:
			p.Log.WarnContext(ctx, "volume in the trash cannot be purged", slog.String("volume", t.Name), slog.String("id", t.ID), slog.Any("error", err))
			continue
		}
		p.Log.InfoContext(ctx, "volume in the trash purged", slog.String("volume", t.Name), slog.String("id", t.ID),
			slog.Duration("age", age), slog.String("reason", reason))
		// Storage may give the room back only later: then the next must not die for it.
		if !old && p.free(ctx) <= before {
			return
		}
	}
}

// short tells whether less is free than there has to be.
func (p *Purger) short(ctx context.Context) bool {
	s, ok := p.space(ctx)
	return ok && float64(s.Free) < float64(s.Total)*p.MinFree/100
}

func (p *Purger) free(ctx context.Context) int64 {
	s, _ := p.space(ctx)
	return s.Free
}

func (p *Purger) space(ctx context.Context) (s volume.Space, ok bool) {
	if p.MinFree <= 0 || p.spaceless {
		return s, false
	}
	s, err := p.Store.Space(ctx)
	p.spaceless = errors.Is(err, errdefs.ErrUnsupported)
	return s, err == nil && s.Total > 0
}
