package conn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ServedBy returns the ID of the process that listens at a socket (unix(7), SO_PEERCRED).
func ServedBy(ctx context.Context, socket string) (pid int, err error) {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", SocketPath(socket))
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cause error
	if err := raw.Control(func(fd uintptr) { cred, cause = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if cause != nil {
		return 0, cause
	}
	if cred.Pid <= 1 { // it is in another PID namespace, or the socket was made by init for it
		return 0, fmt.Errorf("process %d", cred.Pid)
	}
	return int(cred.Pid), nil
}

// Capable reports whether a process has a capability (proc_pid_status(5), CapEff).
func Capable(pid int, capability uint) (has, known bool) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false, false
	}
	for line := range bytes.Lines(status) {
		if text, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			set, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 16, 64)
			return err == nil && set&(1<<capability) != 0, err == nil
		}
	}
	return false, false
}
