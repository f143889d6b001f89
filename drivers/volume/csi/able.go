package csi

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// permitted refuses to grow ext4 where the process that would do so lacks the capability: the storage would have made
// the volume larger by then, and no mount of it would succeed on this host any more.
func (d *driver) permitted(ctx context.Context, facts conn.Facts) error {
	pid, err := servedBy(ctx, d.run.Endpoint())
	if err != nil {
		return nil //nolint:nilerr // it is asked again by the call itself
	}
	if has, known := capable(pid, unix.CAP_SYS_RESOURCE); has || !known {
		return nil
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "%s (process %d) lacks the capability CAP_SYS_RESOURCE, and could not grow ext4; nothing was changed", facts.Name, pid),
		"give it that capability, or copy the data to a larger volume")
}

// servedBy is the process that listens at a socket (unix(7), SO_PEERCRED).
func servedBy(ctx context.Context, socket string) (int, error) {
	dialer := net.Dialer{Timeout: time.Second}
	c, err := dialer.DialContext(ctx, "unix", strings.TrimPrefix(strings.TrimPrefix(socket, "unix:"), "//"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, syscall.SO_PEERCRED) })
	if cerr != nil {
		err = cerr
	}
	if err != nil {
		return 0, err
	}
	if cred.Pid <= 0 {
		return 0, fmt.Errorf("process %d", cred.Pid)
	}
	return int(cred.Pid), nil
}

// capable tells whether a process has a capability (proc_pid_status(5), CapEff).
func capable(pid, capability int) (has, known bool) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false, false
	}
	for line := range bytes.Lines(status) {
		if text, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			set, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 16, 64)
			return set&(1<<capability) != 0, err == nil
		}
	}
	return false, false
}
