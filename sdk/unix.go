package sdk

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// PluginDir is where engines look for the sockets of plugins. It is a constant in
// the engine (moby pkg/plugins/discovery_unix.go).
const PluginDir = "/run/docker/plugins"

// DefaultSocketMode is the mode of a socket where none is given: root alone, which is
// who dockerd is.
const DefaultSocketMode fs.FileMode = 0o600

// maxSocketPath is the longest path that fits sun_path of sockaddr_un (unix(7)).
const maxSocketPath = 107

// UnixSocket says where a plugin's unix socket is, and whose it is. Name or Path is
// required, the rest may be zero.
type UnixSocket struct {
	// Name is the plugin's name: the socket is Name.sock in PluginDir, where engines
	// find it without another word.
	Name string
	// Path is a place of your choice instead; an engine finds it there by a .spec file
	// (see [Announce]), Podman by its containers.conf.
	Path string
	// Owner and Group are names or numbers; empty leaves what the process has.
	Owner, Group string
	// Mode of the socket; 0 is DefaultSocketMode.
	Mode fs.FileMode
}

// ListenUnix listens on the socket that u describes. A stale socket, one on which
// nobody listens, is replaced without a gap; a live one is never taken: that is
// ErrInUse. The socket has its owner and mode before anyone can see it. Closing the
// listener removes the socket, unless somebody else's lies there by then.
func ListenUnix(u UnixSocket) (net.Listener, error) {
	path, err := u.path()
	if err != nil {
		return nil, err
	}
	uid, gid, err := u.ids()
	if err != nil {
		return nil, err
	}
	mode := u.Mode
	if mode == 0 {
		mode = DefaultSocketMode
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // engines and Podman's users must be able to look in
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	defer unlock()
	if err := free(path); err != nil {
		return nil, err
	}
	l, err := bindAside(path, mode, uid, gid)
	if err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	return l, nil
}

func (u UnixSocket) path() (string, error) {
	path := u.Path
	switch {
	case path == "" && u.Name == "":
		return "", errdefs.Errorf(errdefs.ErrInvalid, "socket: neither a name nor a path is given")
	case path == "":
		if err := checkName(u.Name); err != nil {
			return "", err
		}
		path = filepath.Join(PluginDir, u.Name+".sock")
	case !filepath.IsAbs(path):
		return "", errdefs.Errorf(errdefs.ErrInvalid, "socket %q: path is not absolute", path)
	}
	if len(path) > maxSocketPath {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "socket %q: path is longer than the %d bytes that the kernel takes", path, maxSocketPath)
	}
	return path, nil
}

// ids returns the numbers of the owner and group, -1 for one that is to stay.
func (u UnixSocket) ids() (uid, gid int, err error) {
	uid, gid = -1, -1
	if u.Owner != "" {
		uid, err = number(u.Owner, func(name string) (string, error) {
			x, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return x.Uid, nil
		})
	}
	if err == nil && u.Group != "" {
		gid, err = number(u.Group, func(name string) (string, error) {
			x, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return x.Gid, nil
		})
	}
	return uid, gid, err
}

func number(name string, look func(string) (string, error)) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	text, err := look(name)
	if err != nil {
		return -1, errdefs.Errorf(errdefs.ErrInvalid, "socket owner %q: %w", name, err)
	}
	return strconv.Atoi(text)
}

// lockDir keeps other listeners of this package out of dir, so that of two which find
// the same stale socket the second does not take the first one's.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil { //nolint:gosec // a descriptor fits an int
		return nil, errors.Join(fmt.Errorf("lock %q: %w", dir, err), d.Close())
	}
	return func() { _ = d.Close() }, nil // closing ends the lock; nothing was written
}

// free returns nil when path may be taken: nothing is there, or a socket on which
// nobody listens.
func free(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %q: %w", path, err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return errdefs.Errorf(errdefs.ErrExists, "socket %q: something that is no socket is there already", path)
	}
	// It does not wait: where the listener's queue is full, connect(2) says EAGAIN.
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_ = c.Close() // only asked whether somebody is there
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "socket %q: another process listens there", path),
		"stop that process, or give this one another name")
}

// bindAside binds a socket in a directory that nobody else may enter, gives it its
// owner and mode, and moves it over path.
func bindAside(path string, mode fs.FileMode, uid, gid int) (_ *unixListener, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".remora-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if rErr := os.Remove(dir); err == nil && rErr != nil {
			err = rErr
		}
	}()
	// The name is kept short: sun_path bounds this path as well.
	aside := filepath.Join(dir, "s")
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Close(fd) }()
	short := fmt.Sprintf("/proc/self/fd/%d/s", fd)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	ul := &unixListener{UnixListener: l, path: path}
	for _, step := range []func() error{
		func() error { return os.Chmod(aside, mode) },
		func() error { return os.Lchown(aside, uid, gid) },
		func() (err error) { ul.self, err = os.Lstat(aside); return err },
		func() error { return os.Rename(aside, path) },
	} {
		if err := step(); err != nil {
			_ = os.Remove(aside) // it may be gone already
			return nil, errors.Join(err, l.Close())
		}
	}
	return ul, nil
}

// unixListener removes its socket when it is closed, if it is still its own.
type unixListener struct {
	*net.UnixListener
	path string
	self fs.FileInfo
	once sync.Once
	err  error
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	l.once.Do(func() {
		if fi, err := os.Lstat(l.path); err == nil && os.SameFile(fi, l.self) {
			l.err = os.Remove(l.path)
		}
		l.err = errors.Join(l.UnixListener.Close(), l.err)
	})
	return l.err
}
