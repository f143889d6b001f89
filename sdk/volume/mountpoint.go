package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// statTime bounds the look at a mountpoint whose file system may answer no more.
const statTime = 5 * time.Second

// mountpoints makes and removes the directories on which drivers mount. It removes
// with rmdir(2) alone, which takes no data with it whatever may have gone wrong.
type mountpoints struct {
	root string
}

func newMountpoints(root string) mountpoints {
	if root != "" {
		root = filepath.Clean(root)
	}
	return mountpoints{root}
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
	err := os.Mkdir(p, 0o700)
	if err == nil {
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
	return p, nil
}

// remove removes the mountpoint if nothing is mounted there any more.
func (m mountpoints) remove(mountpoint string) error {
	if !m.ours(mountpoint) {
		return nil
	}
	mounted, err := isMount(mountpoint)
	if err != nil {
		return err
	}
	if mounted {
		return fmt.Errorf("mountpoint %q: still a mount", mountpoint)
	}
	if err := syscall.Rmdir(mountpoint); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mountpoint %q: %w", mountpoint, err)
	}
	return nil
}

// check says what is wrong with a mountpoint that is in use: nothing mounted there any
// more, or a file system that does not answer. gone tells that it is the former.
func (m mountpoints) check(ctx context.Context, mountpoint string) (gone bool, err error) {
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
	done := make(chan error, 1)
	go func() {
		fi, err := os.Stat(mountpoint)
		if err == nil && !fi.IsDir() {
			err = errors.New("not a directory")
		}
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return errors.Is(err, fs.ErrNotExist), errdefs.Errorf(errdefs.ErrUnavailable, "mountpoint %q: %w", mountpoint, err)
	}
	return false, nil
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
		names = append(names, e.Name())
	}
	return names, nil
}
