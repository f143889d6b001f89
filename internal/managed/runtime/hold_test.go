package runtime

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHoldWithoutDescriptors: who could not be let in once is let in later.
func TestHoldWithoutDescriptors(t *testing.T) {
	dir := t.TempDir()
	plugin, err := listenIn(dir, "plugin")
	noErr(t, err)
	defer plugin.Close()
	go func() {
		c, err := plugin.Accept()
		for err != nil && !errors.Is(err, net.ErrClosed) { // it has no descriptor either
			time.Sleep(time.Millisecond)
			c, err = plugin.Accept()
		}
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.Close()
	}()
	h, err := hold(t.Context(), dir, "", func(ctx context.Context) (net.Conn, error) { return dialIn(ctx, dir, "plugin") })
	noErr(t, err)
	caller, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	noErr(t, err)
	defer unix.Close(caller)
	var was syscall.Rlimit
	noErr(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	none := was
	none.Cur = 3
	noErr(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
	err = unix.Connect(caller, &unix.SockaddrUnix{Name: dir + "/" + holdName})
	time.Sleep(100 * time.Millisecond)
	noErr(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
	noErr(t, err)
	h.release()
	noErr(t, unix.SetsockoptTimeval(caller, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	buf := make([]byte, 10)
	n, err := unix.Read(caller, buf)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(caller, buf)
	}
	if err != nil || string(buf[:max(n, 0)]) != "hello" {
		t.Errorf("the caller is told %q, %v", buf[:max(n, 0)], err)
	}
}
