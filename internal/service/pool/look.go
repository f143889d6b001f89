package pool

import (
	"context"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// lookTime bounds how long anybody waits for one look at a pool's storage.
const lookTime = 5 * time.Second

// Look asks whether the pool's storage is in reach, and keeps the answer. One look runs at
// a time, whoever asks: storage that hangs may hold a thread for each.
func (p *Pool) Look(ctx context.Context) {
	p.mu.Lock()
	done := p.looking
	if done == nil && !p.closed {
		done = make(chan struct{})
		p.looking = done
		p.calls.Go(func() {
			err := p.Handler.Ping(p.ctx)
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.ctx.Err() == nil {
				p.reach.Store(&err)
			}
			p.looking = nil
			close(done)
		})
	}
	p.mu.Unlock()
	if done == nil {
		return
	}
	late := time.NewTimer(lookTime)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		err := errdefs.Errorf(errdefs.ErrUnavailable, "storage does not answer within %s", lookTime)
		p.reach.Store(&err)
	case <-ctx.Done():
	}
}

// Reachable returns what the last look came to.
func (p *Pool) Reachable() error {
	if err := p.reach.Load(); err != nil {
		return *err
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "storage has not been looked at yet")
}
