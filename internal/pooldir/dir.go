package pooldir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Dir is the pool's directory, opened for one call and not longer: a directory that is held open
// keeps its disk from being unmounted. Whatever happens to the path meanwhile, the call stays in
// the directory that was looked at.
type Dir struct {
	File *os.File
	FD   int // of File

	identity identity
	root     *os.Root // nil until it is asked for
}

// Root returns the directory as an [os.Root]. Calls that only look do without.
func (d *Dir) Root() (*os.Root, error) {
	if d.root == nil {
		root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", d.FD)) // the path may be another directory by now
		if err != nil {
			return nil, err
		}
		d.root = root
	}
	return d.root, nil
}

// Close closes the directory.
func (d *Dir) Close() {
	_ = d.File.Close()
	if d.root != nil {
		_ = d.root.Close()
	}
}

// Batches yields what lies in the pool, so many entries at a time that memory has a bound
// whatever the number of volumes. An error is the last that it yields.
func (d *Dir) Batches(ctx context.Context, size int) iter.Seq2[[]fs.DirEntry, error] {
	return func(yield func([]fs.DirEntry, error) bool) {
		for {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			entries, err := d.File.ReadDir(size)
			if err != nil && !errors.Is(err, io.EOF) {
				yield(nil, err)
				return
			}
			if len(entries) == 0 || !yield(entries, nil) {
				return
			}
		}
	}
}

// Rename moves a directory of the pool to a name that is free. One that is not is EEXIST,
// ENOTEMPTY or ENOTDIR.
func (d *Dir) Rename(from, to string) error {
	err := unix.Renameat2(d.FD, from, d.FD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // NFS; a plain rename replaces an empty directory, no other
		err = unix.Renameat(d.FD, from, d.FD, to)
	}
	return err
}

// Publish renames what was built to the name of the volume and brings files, and then the name,
// to the disk. When it fails, aside has its old name again.
func (d *Dir) Publish(aside, name string, files ...int) error {
	return d.move(aside, name, func() error {
		for _, fd := range files {
			if err := unix.Fsync(fd); err != nil {
				return err
			}
		}
		return unix.Fsync(d.FD)
	})
}

// move renames, and renames back what cannot be brought to the disk: who reads an error finds
// all as it was.
func (d *Dir) move(from, to string, flush func() error) error {
	if err := d.Rename(from, to); err != nil {
		return err
	}
	err := flush()
	if err != nil {
		_ = unix.Renameat2(d.FD, to, d.FD, from, unix.RENAME_NOREPLACE)
	}
	return err
}

// Sync brings the names in directories of the pool to the disk.
func (d *Dir) Sync(dirs ...string) error {
	for _, dir := range dirs {
		f, err := d.open(dir)
		if err != nil {
			return err
		}
		err = f.Sync()
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) open(dir string) (*os.File, error) {
	fd, err := unix.Openat(d.FD, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// NothingMounted looks for mounts in a directory of the pool: what is mounted there is used, and
// deleting would go on in it.
func (d *Dir) NothingMounted(path string) error {
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d.FD)) // the kernel's own name for it
	if err != nil {
		return err
	}
	mounts, err := mount.List(real + "/" + path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		m := mounts[len(mounts)-1]
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "%s is mounted on %s", m.FSType, m.Mountpoint), "umount "+m.Mountpoint)
	}
	return nil
}

// ErrNoVolume says that the name is not one of a volume.
var ErrNoVolume = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

// CheckName refuses what is not one visible component of a path. The Handler has stricter rules;
// this one keeps the pool whole without it.
func CheckName(name string) error {
	if name == "" || len(name) > unix.NAME_MAX || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return errdefs.Errorf(errdefs.ErrInvalid, "name %q: not the name of a volume or snapshot", name)
	}
	return nil
}

// NewID returns a random UUID (RFC 9562, section 5.4).
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
