package remote

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ErrDead marks a mount whose program has gone, which no waiting will bring back.
var ErrDead = errors.New("the program that served the file system is gone")

// LookTime bounds one look at a mountpoint.
const LookTime = 5 * time.Second

// Looks asks mounted file systems whether they answer. The zero value is ready, and safe
// for concurrent use.
type Looks struct {
	mu      sync.Mutex
	pending map[string]*look
}

// look is one call of statfs(2). err is set when done is closed.
type look struct {
	done chan struct{}
	err  error
}

// At asks the file system at a mountpoint for its size (statfs(2)), which a remote one
// has to ask its server for. It is nil where there was an answer, and otherwise
// ErrUnavailable: no answer within [LookTime] or ctx, an error, or [ErrDead].
//
// One look at a mountpoint runs at a time. Who comes while it runs takes part in it.
func (x *Looks) At(ctx context.Context, mountpoint string) error {
	l := x.begin(mountpoint)
	late := time.NewTimer(LookTime)
	defer late.Stop()
	select {
	case <-l.done:
		return l.err
	case <-late.C:
		return errdefs.Errorf(errdefs.ErrUnavailable, "no answer within %s", LookTime)
	case <-ctx.Done():
		return errdefs.Errorf(errdefs.ErrUnavailable, "no answer: %w", context.Cause(ctx))
	}
}

func (x *Looks) begin(mountpoint string) *look {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l, ok := x.pending[mountpoint]; ok {
		return l
	}
	if x.pending == nil {
		x.pending = map[string]*look{}
	}
	l := &look{done: make(chan struct{})}
	x.pending[mountpoint] = l
	go func() {
		err := statfs(mountpoint)
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.pending, mountpoint)
		l.err = err
		close(l.done)
	}()
	return l
}

func statfs(mountpoint string) error {
	var st unix.Statfs_t
	err := unix.Statfs(mountpoint, &st)
	for err == unix.EINTR {
		err = unix.Statfs(mountpoint, &st)
	}
	switch err {
	case nil:
		return nil
	case unix.ENOTCONN, unix.ECONNABORTED: // fuse(4): no program, or a connection that was aborted
		return errdefs.As(errdefs.ErrUnavailable, ErrDead)
	case unix.EIO, unix.ESTALE, unix.ETIMEDOUT, unix.EHOSTDOWN, unix.EHOSTUNREACH:
		return errdefs.Errorf(errdefs.ErrUnavailable, "the server does not answer: %w", err)
	}
	return errdefs.As(errdefs.ErrUnavailable, err)
}
