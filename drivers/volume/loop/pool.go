package loop

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
)

// pool is the pool's directory, opened for one call.
type pool struct {
	*os.Root
	dir *pooldir.Dir
}

func (d *driver) pool(ctx context.Context) (pool, error) {
	dir, err := d.Open(ctx)
	if err != nil {
		return pool{}, err
	}
	p, err := in(dir)
	if err != nil {
		dir.Close()
		return pool{}, d.Fail("", err)
	}
	return p, nil
}

// in returns the pool whose directory is open.
func in(dir *pooldir.Dir) (pool, error) {
	root, err := dir.Root()
	return pool{root, dir}, err
}

func (p pool) close() { p.dir.Close() }

func (d *driver) hasVolume(dir *pooldir.Dir, name string) error {
	p, err := in(dir)
	if err != nil {
		return d.Fail("", err)
	}
	_, err = p.facts(name)
	return err
}

// delete deletes a directory of the pool. A file system may take seconds to free a large image,
// and cannot be asked to stop.
func (d *driver) delete(_ context.Context, dir *pooldir.Dir, name string) error {
	p, err := in(dir)
	if err != nil {
		return err
	}
	return p.RemoveAll(name)
}

// canClone tells whether files of the pool can share their blocks (ioctl_ficlone(2)). known is
// false where the pool cannot be looked at.
func (d *driver) canClone(ctx context.Context) (can, known bool) {
	p, err := d.pool(ctx)
	if err != nil {
		return false, false
	}
	defer p.close()
	var files [2]int
	for i := range files {
		fd, err := unix.Openat(p.dir.FD, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false, true // too old a file system, or one that cannot be written to
		}
		defer unix.Close(fd)
		files[i] = fd
	}
	if _, err := unix.Pwrite(files[0], make([]byte, sizeUnit), 0); err != nil {
		return false, false
	}
	return unix.IoctlFileClone(files[1], files[0]) == nil, true
}
