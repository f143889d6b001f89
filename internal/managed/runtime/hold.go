package runtime

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// HoldTime is how long a caller is kept waiting for a plugin that is started again. It is as long as an engine
	// tries: one that is hung up on after it gives up, and does not call again, which it would without a body.
	HoldTime = 30 * time.Second
	// maxHeld is how many callers are kept waiting.
	maxHeld = 512
	// late is how long a socket is still listened on after it has lost its name: who has found it is about to connect.
	late = time.Second
	// acceptPause is how long a holder waits that could not let a caller in.
	acceptPause = 10 * time.Millisecond

	holdName = "hold"
)

// holder keeps those waiting who call a plugin that is not there.
type holder struct {
	ln    *net.UnixListener
	dial  func(context.Context) (net.Conn, error)
	up    chan struct{} // closed when the plugin is there again
	gone  chan struct{} // closed when nobody will come
	slots chan struct{}
	calls sync.WaitGroup
}

// hold listens in the directory work; like, if it is there, is the socket whose owner and mode it takes.
func hold(ctx context.Context, work, like string, dial func(context.Context) (net.Conn, error)) (*holder, error) {
	ln, err := listenIn(work, holdName)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(work, holdName)
	if fi, err := os.Lstat(like); err == nil && fi.Mode().Type() == fs.ModeSocket {
		_ = os.Chmod(path, fi.Mode().Perm())
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			_ = os.Chown(path, int(st.Uid), int(st.Gid))
		}
	} else {
		_ = os.Chmod(path, 0o660)
	}
	h := &holder{ln: ln, dial: dial, up: make(chan struct{}), gone: make(chan struct{}), slots: make(chan struct{}, maxHeld)}
	go h.accept(context.WithoutCancel(ctx))
	return h, nil
}

func (h *holder) accept(ctx context.Context) {
	for {
		c, err := h.ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as for want of a descriptor
			time.Sleep(acceptPause)
			continue
		}
		select {
		case h.slots <- struct{}{}:
			h.calls.Go(func() {
				h.serve(ctx, c)
				<-h.slots
			})
		default:
			_ = c.Close()
		}
	}
}

func (h *holder) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	timer := time.NewTimer(HoldTime)
	defer timer.Stop()
	select {
	case <-h.up:
	case <-h.gone:
		return
	case <-timer.C:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, HoldTime)
	defer cancel()
	to, err := h.dial(ctx)
	if err != nil {
		return
	}
	defer to.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(to, c)
	}()
	pass(c, to)
	<-done
}

// pass copies until the one side has no more to say, and tells the other.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if w, ok := to.(*net.UnixConn); ok && err == nil {
		_ = w.CloseWrite()
		return
	}
	_ = to.Close()
	_ = from.Close()
}

// release lets the callers through. The plugin's own socket has the name by now.
func (h *holder) release() {
	close(h.up)
	time.AfterFunc(late, func() { _ = h.ln.Close() })
}

// drop hangs up on the callers.
func (h *holder) drop() {
	close(h.gone)
	_ = h.ln.Close()
}
