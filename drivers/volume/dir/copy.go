package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxCopyDepth bounds how deep a tree may be that is copied: two directories are open
// for each level.
const maxCopyDepth = 512

// inode is what the kernel knows a file by.
type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} } //nolint:unconvert // 32 bits on some machines

// copier copies one tree.
type copier struct {
	pool  inode            // must not lie in the tree
	top   int              // of the copy
	links map[inode]string // where the first name of a file with several is, from top
}

// copyTree copies what is in the directory from into dst, and gives dst its owner, mode,
// times and attributes: files with their holes, sharing blocks where the file system can
// (ioctl_ficlonerange(2)), symbolic links as they are, hard links among themselves,
// pipes, sockets and devices. What is mounted below is copied too. When it returns nil
// the copy is on the disk.
func copyTree(ctx context.Context, from string, dst *os.File, pool int) error {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		if pe, ok := errors.AsType[*os.PathError](err); ok {
			err = pe.Err
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
		return err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(pool, &st); err != nil {
		return err
	}
	c := &copier{pool: inodeOf(&st), top: int(dst.Fd()), links: make(map[inode]string)}
	if err := c.dir(ctx, src, dst, "", 0); err != nil {
		return err
	}
	return unix.Syncfs(c.top)
}

func (c *copier) dir(ctx context.Context, src, dst *os.File, path string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	switch {
	case inodeOf(&st) == c.pool:
		return errdefs.Errorf(errdefs.ErrInvalid, "the pool itself lies in it")
	case depth > maxCopyDepth:
		return errdefs.Errorf(errdefs.ErrInvalid, "more than %d directories deep", maxCopyDepth)
	}
	for {
		names, err := src.Readdirnames(512)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := c.entry(ctx, src, dst, name, path, depth); err != nil {
				return err
			}
		}
	}
	return copyMeta(int(src.Fd()), int(dst.Fd()), &st)
}

// entry copies one name of a directory. Errors name it by its path from the top.
func (c *copier) entry(ctx context.Context, src, dst *os.File, name, above string, depth int) error {
	from, to, path := int(src.Fd()), int(dst.Fd()), name
	if above != "" {
		path = above + "/" + name
	}
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return nil // gone since it was listed
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		return c.subdir(ctx, src, dst, name, path, depth) // its errors have their path
	}
	if st.Nlink > 1 {
		if first, ok := c.links[inodeOf(&st)]; ok {
			if err := unix.Linkat(c.top, first, to, name, 0); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		}
		c.links[inodeOf(&st)] = path
	}
	var err error
	switch kind {
	case unix.S_IFREG:
		err = copyFile(ctx, from, to, name)
	case unix.S_IFLNK:
		err = copySymlink(from, to, name, &st)
	default:
		err = copySpecial(to, name, &st)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (c *copier) subdir(ctx context.Context, src, dst *os.File, name, path string, depth int) error {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if err := unix.Mkdirat(int(dst.Fd()), name, 0o700); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	to, err := unix.Openat(int(dst.Fd()), name, flags, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	dstDir := os.NewFile(uintptr(to), name)
	defer dstDir.Close()
	from, err := unix.Openat(int(src.Fd()), name, flags, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	srcDir := os.NewFile(uintptr(from), name)
	defer srcDir.Close()
	return c.dir(ctx, srcDir, dstDir, path, depth+1)
}

// copySymlink makes the link again. A link has no mode.
func copySymlink(from, to int, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
		return err
	}
	return ownAndDate(to, name, st)
}

// copySpecial makes a pipe, a socket or a device again.
func copySpecial(to int, name string, st *unix.Stat_t) error {
	if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
		return err
	}
	if err := ownAndDate(to, name, st); err != nil {
		return err
	}
	return unix.Fchmodat(to, name, st.Mode&0o7777, 0) // after the owner, and past the umask
}

func ownAndDate(to int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
