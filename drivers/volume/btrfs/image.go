package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// image is the file that holds the file system of a pool.
type image struct {
	path       string
	own        bool  // at the default place, the directory of which is made
	size       int64 // wanted; 0 is as it is
	mountpoint string
	label      string // of the file system

	mu     sync.Mutex // of what follows
	closed bool
	// file is open, with a shared lock, from the first time that the image was mounted:
	// who gets an exclusive one knows that no other driver uses it.
	file *os.File
}

// asideImage is the form of the name under which an image is made.
var asideImage = regexp.MustCompile(`^\.remora-new-[0-9a-f]{16}\.img$`)

// checkSize refuses a size below that of the image, before anything is touched.
func (im *image) checkSize() error {
	fi, err := os.Stat(im.path)
	if err != nil {
		return nil //nolint:nilerr // mounting tells what it is
	}
	if im.size != 0 && im.size < fi.Size() {
		err := errdefs.Errorf(errdefs.ErrInvalid, "size %s: the image %s has %s already, and cannot shrink", catalog.Bytes(im.size), im.path, catalog.Bytes(fi.Size()))
		return errdefs.Hint(err, "set size to what it has, or more; or make a new pool and copy the volumes")
	}
	return nil
}

// open opens the image, which may have to be made first. known tells that there was one:
// then one that is missing is on a disk that is away.
func (im *image) open(ctx context.Context, known bool) (*os.File, error) {
	if im.own {
		if err := os.MkdirAll(filepath.Dir(im.path), 0o700); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(im.path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if known {
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "the image of the pool is not there")
		}
		if err := im.make(ctx); err != nil {
			return nil, fmt.Errorf("make it: %w", err)
		}
		file, err = os.OpenFile(im.path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := isImage(file); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// isImage looks for the magic number of a btrfs. What is anything else is never formatted.
func isImage(file *os.File) error {
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	magic := make([]byte, 8)
	if fi.Mode().IsRegular() {
		_, _ = file.ReadAt(magic, 0x10040) // one that is shorter has another magic
	}
	if string(magic) != "_BHRfS_M" {
		err := errdefs.Errorf(errdefs.ErrInvalid, "there is something that is not an image of a btrfs")
		return errdefs.Hint(err, "move it away to have an image made")
	}
	return nil
}

// make makes the image aside and gives it its name when it is whole.
func (im *image) make(ctx context.Context) (err error) {
	dir := filepath.Dir(im.path)
	im.sweep(dir)
	size := im.size
	if size == 0 {
		if size, err = defaultSize(dir); err != nil {
			return err
		}
	}
	size &^= loopBlock - 1
	aside := filepath.Join(dir, pooldir.HiddenName(pooldir.New, "")+".img")
	file, err := os.OpenFile(aside, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	defer func() {
		if err != nil {
			_ = os.Remove(aside)
		}
	}()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	_ = setNocow(int(file.Fd()), true) // where the host has a btrfs too, once is enough
	if err := file.Truncate(size); err != nil {
		return err
	}
	if _, err := run.Output(ctx, nil, "mkfs.btrfs", "--quiet", "--nodiscard", "--label", im.label, aside); err != nil {
		return errdefs.Hint(err, "btrfs-progs has the program")
	}
	if err := file.Sync(); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, im.path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system that cannot; a link replaces nothing either
		if err = os.Link(aside, im.path); err == nil {
			_ = os.Remove(aside)
		}
	}
	if err != nil {
		return err
	}
	parent, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// sweep deletes images that a crash left half made.
func (im *image) sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !asideImage.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(path)
		}
		_ = file.Close()
	}
}

// defaultSize is half of what is free, in whole GiB.
func defaultSize(dir string) (int64, error) {
	free, err := freeBelow(dir)
	return max(free/2>>30, 1) << 30, err
}

func freeBelow(dir string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return int64(st.Bavail) * st.Bsize, err
}

// enlarge gives the file the size that is wanted; what is on it follows in grow.
func (im *image) enlarge(file *os.File) error {
	fi, err := file.Stat()
	if err != nil || im.size <= fi.Size() {
		return err
	}
	if err := file.Truncate(im.size &^ (loopBlock - 1)); err != nil {
		return err
	}
	return file.Sync()
}

// grow makes device and file system as large as the file, if they are smaller.
func (im *image) grow(file, dev *os.File) error {
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	top, err := os.Open(im.mountpoint)
	if err != nil {
		return err
	}
	defer top.Close()
	size, err := deviceSize(int(top.Fd()))
	if err != nil || size >= fi.Size()&^(loopBlock-1) {
		return err
	}
	if err := unix.IoctlSetInt(int(dev.Fd()), iocLoopCapacity, 0); err != nil {
		return fmt.Errorf("%s: grow: %w", dev.Name(), err)
	}
	if err := growToDevice(int(top.Fd())); err != nil {
		return fmt.Errorf("grow the file system: %w", err)
	}
	return nil
}
