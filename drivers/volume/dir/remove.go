package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxDepth bounds how many directories are open at a time while a tree is deleted.
const maxDepth = 64

// deleteTree deletes what is called name in the directory parent, which may be nothing.
// It follows no symbolic link and enters nothing that is mounted, which is ErrInUse.
func deleteTree(ctx context.Context, parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	top, err := openBelow(parent, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	defer top.Close()
	if err := empty(ctx, top, int(top.Fd()), 0); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// empty deletes everything in dir. Directories that lie deeper than maxDepth are moved
// up to the top of the tree, where they are met again: a tree may be deeper than the
// number of files that a process may have open.
func empty(ctx context.Context, dir *os.File, top, depth int) error {
	fd := int(dir.Fd())
	for {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		seen := 0
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			names, err := dir.Readdirnames(512)
			if errors.Is(err, unix.ENOENT) {
				return nil // somebody else deletes too, and was faster
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if len(names) == 0 {
				break
			}
			seen += len(names)
			for _, name := range names {
				if err := deleteEntry(ctx, fd, name, top, depth); err != nil {
					return err
				}
			}
		}
		if seen == 0 { // not sooner: a file system may skip names while others are deleted
			return nil
		}
	}
}

func deleteEntry(ctx context.Context, dir int, name string, top, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return fmt.Errorf("%s: %w", name, err)
	case depth == maxDepth:
		if err := unix.Renameat(dir, name, top, "deep-"+pooldir.NewID()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	sub, err := openBelow(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer sub.Close()
	if err := empty(ctx, sub, top, depth+1); err != nil {
		return fmt.Errorf("%s/%w", name, err)
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// openBelow opens a directory without following a symbolic link or crossing a mount.
func openBelow(parent int, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_XDEV})
	if errors.Is(err, unix.EXDEV) {
		return nil, errdefs.Errorf(errdefs.ErrInUse, "something is mounted there")
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before Linux 5.6, or below an old seccomp filter
		fd, err = openSameDevice(parent, name, flags)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openSameDevice is openBelow for kernels without openat2(2). It does not see a bind
// mount of the same file system; the list of mounts was looked at before.
func openSameDevice(parent int, name string, flags int) (int, error) {
	fd, err := unix.Openat(parent, name, flags, 0)
	if err != nil {
		return -1, err
	}
	var above, below unix.Stat_t
	if err = errors.Join(unix.Fstat(parent, &above), unix.Fstat(fd, &below)); err == nil && above.Dev != below.Dev {
		err = errdefs.Errorf(errdefs.ErrInUse, "something is mounted there")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
