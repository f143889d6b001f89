package rbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *attachment) isLost() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// The waits between two looks at an image that is attached: whether it can be read, which costs
// one read from the store, and whether the lock is still ours, which costs a command.
const (
	lookEvery  = 3 * time.Second
	claimEvery = 5 * time.Minute
	lookLimit  = 4 * time.Second
)

// watch looks at an attachment in the background, once at a time. One that the kernel does not
// answer for is waited for, and no other is begun.
func (p *provider) watch(a *attachment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.looking || !a.Locked || time.Since(a.looked) < lookEvery {
		return
	}
	a.looking = true
	go func() {
		lost := p.lost(a)
		a.mu.Lock()
		a.looking, a.looked, a.lost = false, time.Now(), lost
		a.mu.Unlock()
		if lost { // whoever waits for it gets an error
			defer p.alone(a.ID)()
			ctx, cancel := context.WithTimeout(p.life, p.c.Timeout)
			defer cancel()
			_ = p.wayOf(a).close(ctx, a, true) // and again before the image is next attached
		}
	}()
}

// reading is a read of an image that is under way.
type reading struct {
	done chan struct{}
	err  error
}

// read reads the first bytes of an image from where they lie, past all caches. While the cluster is out
// of reach the kernel keeps who reads, and cannot be told to let go: whoever asks again waits for the
// same read.
func (p *provider) read(ctx context.Context, a *attachment) error {
	a.mu.Lock()
	r := a.reading
	if r == nil {
		r = &reading{done: make(chan struct{})}
		a.reading = r
		go func() {
			_, r.err = run.Output(p.life, nil, "dd", "if="+p.wayOf(a).file(a), "of=/dev/null", "bs=4096", "count=1", "iflag=direct", "status=none")
			a.mu.Lock()
			a.reading = nil
			a.mu.Unlock()
			close(r.done)
		}()
	}
	a.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return errdefs.Errorf(errdefs.ErrUnavailable, "image %s: a read is not answered: %w", a.Image, context.Cause(ctx))
	}
}

// lost tells whether an image is certainly not this host's any more: its client gets errors or no
// answer, or a while has passed, and the lock is another's; or its program has ended.
func (p *provider) lost(a *attachment) bool {
	ctx, cancel := context.WithTimeout(p.life, lookLimit)
	defer cancel()
	err := p.read(ctx, a)
	if err == nil && time.Since(a.claimed) < claimEvery {
		return false
	}
	if err != nil && a.PID != 0 && !alive(a.PID, a.Dir) {
		p.log.Error("the program that shows an image has ended", slog.String("image", a.Image), slog.Any("read", err))
		return true
	}
	ctx, cancel = context.WithTimeout(p.life, 2*p.c.Timeout)
	defer cancel()
	locks, lerr := p.locks(ctx, a.Image)
	if lerr != nil { // nothing is known
		return false
	}
	for _, l := range locks {
		if c, ok := l.claim(); ok && c.Nonce == a.Nonce {
			a.claimed = time.Now()
			return false
		}
	}
	p.log.Error("the lock of an image that is attached here is gone", slog.String("image", a.Image), slog.Any("locks", locks), slog.Any("read", err))
	return true
}

// alive tells whether a process is the one that was started for a directory.
func alive(pid int, dir string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(line), dir)
}

// kill ends it, and waits until it is gone.
func kill(ctx context.Context, pid int, dir string) error {
	for alive(pid, dir) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return errdefs.As(errdefs.ErrUnavailable, err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errdefs.Errorf(errdefs.ErrUnavailable, "process %d does not end", pid)
		}
	}
	return nil
}
