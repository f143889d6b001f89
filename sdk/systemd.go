package sdk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// firstFD is the number of the first descriptor that systemd hands over
// (sd_listen_fds(3), SD_LISTEN_FDS_START).
const firstFD = 3

// ActivatedListener is a listener that systemd made for this process.
type ActivatedListener struct {
	net.Listener
	// Name is FileDescriptorName= of the socket unit; its default is the unit's name.
	Name string
}

// SystemdListeners returns the listeners that systemd handed over by socket activation
// (sd_listen_fds(3)), none when it handed over none. It takes the variables out of the
// environment, so that neither a second call nor a child process takes them again.
// Closing such a listener leaves the socket in place: it is systemd's.
func SystemdListeners() ([]ActivatedListener, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, key := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(key); err != nil {
			return nil, err
		}
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("systemd: LISTEN_FDS is %q", count)
	}
	return fromFDs(firstFD, n, strings.Split(names, ":"))
}

// fromFDs makes listeners of n descriptors from first on.
func fromFDs(first, n int, names []string) ([]ActivatedListener, error) {
	var all []ActivatedListener
	for i := range n {
		fd := first + i
		syscall.CloseOnExec(fd)
		name := ""
		if i < len(names) {
			name = names[i]
		}
		f := os.NewFile(uintptr(fd), name)
		l, err := net.FileListener(f)
		err = errors.Join(err, f.Close())
		if err != nil {
			for _, a := range all {
				err = errors.Join(err, a.Close())
			}
			return nil, fmt.Errorf("systemd: socket %d %q: %w", i, name, err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		all = append(all, ActivatedListener{Listener: l, Name: name})
	}
	return all, nil
}
