package pooldir

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"
)

// background is what goes on without a caller, until the pool is closed.
type background struct {
	sweeping sync.Mutex // held by the one who sweeps

	mu     sync.Mutex
	closed bool
	end    context.Context //nolint:containedctx // ends with the pool
	stop   context.CancelFunc
	work   sync.WaitGroup
}

// Go runs f in the background, with a context that ends when the pool is closed, and tells
// whether it does: not where the pool is closed already.
func (p *Pool) Go(ctx context.Context, f func(ctx context.Context)) bool {
	b := &p.background
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	if b.end == nil {
		b.end, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	}
	b.work.Go(func() { f(b.end) })
	return true
}

// Wait waits for what runs in the background.
func (p *Pool) Wait() { p.background.work.Wait() }

// Close stops what runs in the background, as far as it can be stopped, and waits for it. The
// deletion of leftovers goes on at the next start.
func (p *Pool) Close() error {
	b := &p.background
	b.mu.Lock()
	b.closed = true
	if b.stop != nil {
		b.stop()
	}
	b.mu.Unlock()
	p.Wait()
	return nil
}

// Sweep deletes leftovers in the background, unless another sweep is under way: the next who
// reads the pool finds them.
func (p *Pool) Sweep(ctx context.Context, names []string) {
	if len(names) == 0 || !p.background.sweeping.TryLock() {
		return
	}
	started := p.Go(ctx, func(ctx context.Context) {
		defer p.background.sweeping.Unlock()
		dir, err := p.Open(ctx)
		if err != nil {
			return
		}
		defer dir.Close()
		for _, name := range names {
			if release := p.claim(dir, name); release != nil {
				p.delete(ctx, dir, name)
				release()
			}
		}
	})
	if !started {
		p.background.sweeping.Unlock()
	}
}

func (p *Pool) delete(ctx context.Context, dir *Dir, name string) {
	if err := p.Delete(ctx, dir, name); err != nil && ctx.Err() == nil {
		p.Log.WarnContext(ctx, "a leftover cannot be deleted", slog.String("path", p.Path+"/"+name), slog.Any("error", err))
	}
}

// Remove renames the volume to a hidden name, which is the moment at which it is gone, and deletes
// it there. What a crash or an impatient caller leaves is deleted later.
func (p *Pool) Remove(ctx context.Context, name string) error {
	dir, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := p.Volume(dir, name); err != nil {
		return err
	}
	if err := p.Unused(ctx, dir, name); err != nil {
		return err
	}
	return p.destroy(ctx, dir, name)
}

// destroy takes a directory of the pool away in the manner of Remove.
func (p *Pool) destroy(ctx context.Context, dir *Dir, path string) error {
	gone := p.Hidden(Gone)
	err := dir.move(path, gone, func() error { return unix.Fsync(dir.FD) })
	if errors.Is(err, unix.ENOENT) {
		return ErrNoVolume // another host was faster
	}
	if err != nil {
		return p.Fail(path, err)
	}
	done := make(chan struct{})
	started := p.Go(ctx, func(ctx context.Context) {
		defer close(done)
		if dir, err := p.Open(ctx); err == nil {
			defer dir.Close()
			p.delete(ctx, dir, gone)
		}
	})
	if started {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return nil
}
