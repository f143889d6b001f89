package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// statTime bounds the look at a mountpoint whose file system may answer no more.
const statTime = 5 * time.Second

// mountpoints makes and removes the directories on which drivers mount. It removes
// with rmdir(2) alone, which takes no data with it whatever may have gone wrong.
type mountpoints struct {
	root  string
	guard bool // nothing can be written below what is mounted; see protect
	looks *looks
}

func newMountpoints(root string, guard bool) mountpoints {
	if root != "" {
		root = filepath.Clean(root)
	}
	return mountpoints{root, guard, &looks{pending: map[string]*look{}}}
}

func (m mountpoints) open() error {
	if m.root == "" {
		return nil
	}
	if !filepath.IsAbs(m.root) {
		return errdefs.Errorf(errdefs.ErrInvalid, "mount root %q: path is not absolute", m.root)
	}
	if err := os.MkdirAll(m.root, 0o700); err != nil {
		return fmt.Errorf("mount root %q: %w", m.root, err)
	}
	real, err := filepath.EvalSymlinks(m.root)
	if err == nil && real != m.root {
		err = errdefs.Errorf(errdefs.ErrInvalid, "path leads through a symbolic link to %q", real)
	}
	if err != nil {
		return fmt.Errorf("mount root %q: %w", m.root, err)
	}
	return nil
}

// path returns the mountpoint of a volume, which may not exist; empty without a root.
func (m mountpoints) path(name string) string {
	if m.root == "" {
		return ""
	}
	return filepath.Join(m.root, name)
}

// ours tells whether a mountpoint is one that make made.
func (m mountpoints) ours(mountpoint string) bool {
	return m.root != "" && filepath.Dir(mountpoint) == m.root
}

// make returns the mountpoint of a volume: an empty directory, or a mount already.
func (m mountpoints) make(name string) (string, error) {
	p := m.path(name)
	if p == "" {
		return "", nil
	}
	if !m.ours(p) || name == "." {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "mountpoint %q: not directly below the mount root", p)
	}
	err := os.Mkdir(p, 0o700)
	if err == nil {
		m.protect(p)
		return p, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("mountpoint: %w", err)
	}
	mounted, err := isMount(p)
	if err != nil || mounted {
		return p, err
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		return "", fmt.Errorf("mountpoint: %w", err)
	}
	if len(entries) > 0 {
		return "", errdefs.Hint(fmt.Errorf("mountpoint %q: not a mount, and not empty", p),
			"something wrote below the mountpoint while nothing was mounted there; move it away")
	}
	m.protect(p)
	return p, nil
}

// remove removes the mountpoint if nothing is mounted there any more. That is for the
// kernel to say (rmdir(2), EBUSY): to read the mount table takes ten times as long, and
// more with every container.
func (m mountpoints) remove(mountpoint string) error {
	if !m.ours(mountpoint) {
		return nil
	}
	err := m.rmdir(mountpoint)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		m.looks.forget(mountpoint)
		return nil
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("mountpoint %q: still a mount", mountpoint)
	}
	return fmt.Errorf("mountpoint %q: %w", mountpoint, err)
}

// absolute refuses a mountpoint that means another directory to another process.
func (mountpoints) absolute(mountpoint string) error {
	if !filepath.IsAbs(mountpoint) {
		return fmt.Errorf("mountpoint %q: path is not absolute", mountpoint)
	}
	return nil
}

// check says what is wrong with a mountpoint that is in use: nothing mounted there any
// more, or a file system that does not answer. gone tells that it is the former, or that
// the program that served it has ended (fuse(4), ENOTCONN), so that the driver has to be
// asked again: no waiting brings it back. Of a mountpoint of ours the mount table says
// whether it is a mount; of a driver's own it need not be one, and has to be the directory
// that it was, as far as that is known.
func (m mountpoints) check(ctx context.Context, mountpoint string, was place) (gone bool, err error) {
	if err := m.absolute(mountpoint); err != nil {
		return false, err
	}
	if m.ours(mountpoint) {
		mounted, err := isMount(mountpoint)
		if err != nil {
			return false, err
		}
		if !mounted {
			return true, errdefs.Errorf(errdefs.ErrUnavailable, "mountpoint %q: nothing is mounted there any more", mountpoint)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statTime, fmt.Errorf("no answer within %s", statTime))
	defer cancel()
	l := m.looks.at(mountpoint)
	select {
	case <-l.done:
		err = l.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		gone = errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTCONN)
		return gone, errdefs.Errorf(errdefs.ErrUnavailable, "mountpoint %q: %w", mountpoint, err)
	}
	if !m.ours(mountpoint) && was != (place{}) && l.place != was {
		return true, errdefs.Errorf(errdefs.ErrUnavailable, "mountpoint %q: another directory is there than was mounted", mountpoint)
	}
	return false, nil
}

// answers asks a file system for its size. Unlike stat(2), which kernel and FUSE programs
// answer out of their memory for a while, that has to be asked of whoever has the data.
func answers(mountpoint string) error {
	var st syscall.Statfs_t
	err := syscall.Statfs(mountpoint, &st)
	for errors.Is(err, syscall.EINTR) {
		err = syscall.Statfs(mountpoint, &st)
	}
	switch {
	case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, fs.ErrPermission):
		return nil // that, too, is an answer
	case err != nil:
		return &fs.PathError{Op: "statfs", Path: mountpoint, Err: err}
	}
	return nil
}

// looks are the calls of stat(2) and statfs(2) that are under way, one for each mountpoint: on a file
// system that answers no more each holds a thread for ever.
type looks struct {
	mu      sync.Mutex
	pending map[string]*look
}

// look is one of them. The rest is set when done is closed.
type look struct {
	done  chan struct{}
	place place
	err   error
}

// at looks at a mountpoint, or takes part in a look that has begun.
func (x *looks) at(mountpoint string) *look {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l, ok := x.pending[mountpoint]; ok {
		return l
	}
	l := &look{done: make(chan struct{})}
	x.pending[mountpoint] = l
	go func() {
		fi, err := os.Stat(mountpoint)
		if err == nil && !fi.IsDir() {
			err = errors.New("not a directory")
		}
		if err == nil {
			l.place = placeOf(fi)
			err = answers(mountpoint)
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.pending[mountpoint] == l {
			delete(x.pending, mountpoint)
		}
		l.err = err
		close(l.done)
	}()
	return l
}

// forget has the next look at a mountpoint be a new one: one that hangs is of what was mounted there before.
func (x *looks) forget(mountpoint string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.pending, mountpoint)
}

// found returns the names of the mountpoints that exist.
func (m mountpoints) found() ([]string, error) {
	if m.root == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(m.root)
	if err != nil {
		return nil, fmt.Errorf("mount root %q: %w", m.root, err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Name() != snapshotsName {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
