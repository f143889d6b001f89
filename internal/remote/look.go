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
	pending map[place]*look
}

// place is what is looked at: a mount by its number, as a look at one that hangs may outlast it, and what is mounted at the same
// mountpoint after it is not to be judged by that. A mount that somebody looks at keeps its number.
type place struct {
	mountpoint string
	mount      int
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
// One look at a mount runs at a time. Who comes while it runs takes part in it.
func (x *Looks) At(ctx context.Context, mountpoint string) error {
	at := place{mountpoint: mountpoint}
	if m, ok, err := At(mountpoint); err == nil && ok {
		at.mount = m.ID
	}
	l := x.begin(at)
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

func (x *Looks) begin(at place) *look {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l, ok := x.pending[at]; ok {
		return l
	}
	if x.pending == nil {
		x.pending = map[place]*look{}
	}
	l := &look{done: make(chan struct{})}
	x.pending[at] = l
	go func() {
		err := statfs(at.mountpoint)
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.pending, at)
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
