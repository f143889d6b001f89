package pool

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ownMount begins the mount IDs of the daemon's own; what follows is of one run of one pool.
const ownMount = "remora-daemon-"

// Mounted does something while a volume is mounted.
func (p *Pool) Mounted(ctx context.Context, name string, do func(ctx context.Context, dir string) error) (err error) {
	id := p.own + rand.Text()
	dir, err := p.Handler.Mount(ctx, name, id)
	if err != nil {
		return err
	}
	defer func() { err = errdefs.Join(err, p.Handler.Unmount(context.WithoutCancel(ctx), name, id)) }()
	return do(ctx, dir)
}

// IsOwn tells whether a mount ID is one of a daemon, for itself and not for an engine or a person.
func IsOwn(mountID string) bool { return strings.HasPrefix(mountID, ownMount) }

// TakeBack unmounts what a daemon before this one had mounted for itself when it was killed.
func (p *Pool) TakeBack(ctx context.Context) {
	for v, err := range p.Handler.List(ctx) {
		if err != nil || p.ctx.Err() != nil {
			return
		}
		for _, m := range v.Mounts {
			if !IsOwn(m.ID) || strings.HasPrefix(m.ID, p.own) {
				continue
			}
			if err := p.Handler.Unmount(ctx, v.Name, m.ID); err != nil {
				p.Log.WarnContext(ctx, "what a daemon that was killed had mounted for itself is still mounted", slog.Any("error", err))
			}
		}
	}
}

// Beside runs work beside the caller, as one of few and as part of the pool's life. It tells
// whether it does.
func (p *Pool) Beside(ctx context.Context, work func()) bool {
	select {
	case p.asking <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if !p.Enter() {
		<-p.asking
		return false
	}
	go func() {
		defer p.Leave()
		defer func() { <-p.asking }()
		work()
	}()
	return true
}
