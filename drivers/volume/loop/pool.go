package loop

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// markerName is the file that says which pool a directory is.
const markerName = ".remora-pool.json"

const markerVersion = 1

// marker is the content of that file.
type marker struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// identity is what the kernel knows a directory by.
type identity struct{ dev, ino uint64 }

// pool is the pool's directory, opened for one call and not longer: a directory that is
// held open keeps its disk from being unmounted. Whatever happens to the path meanwhile, the
// call stays in the directory that was looked at.
type pool struct {
	*os.Root
	dir *os.File
}

func (p *pool) close() {
	_ = p.dir.Close()
	_ = p.Root.Close()
}

// pool opens the pool's directory and makes sure that it is the one known. One that is not
// there, or is another, such as the empty directory below a disk that is not mounted, is
// ErrUnavailable: its volumes are not gone, and nothing is written to it.
func (d *driver) pool() (*pool, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		if err = d.fail("", err); errdefs.Class(err) == nil {
			err = errdefs.As(errdefs.ErrUnavailable, err)
		}
		return nil, errdefs.Hint(err, "mount the disk that it lies on, or make it: mkdir -p "+d.path)
	}
	dir, err := root.Open(".")
	if err != nil {
		_ = root.Close()
		return nil, d.fail("", err)
	}
	p := &pool{root, dir}
	if err := d.recognise(p); err != nil {
		p.close()
		return nil, d.fail("", err)
	}
	return p, nil
}

// recognise compares what was opened with what is known. A directory with the same device
// and inode is the same; with others, the marker decides, because a disk that was unplugged
// and came back has another device number.
func (d *driver) recognise(p *pool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(p.dir.Fd()), &st); err != nil {
		return err
	}
	now := identity{st.Dev, st.Ino}
	d.mu.Lock()
	defer d.mu.Unlock()
	if now == d.known {
		return nil
	}
	id := d.id
	if id == "" {
		var err error
		if id, err = d.memo.Read(d.path); err != nil {
			return err
		}
	}
	var m marker
	err := state.Read(p.Root, markerName, markerVersion, &m)
	switch {
	case errors.Is(err, errdefs.ErrNotFound) && (id != "" || d.known != identity{}):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "another directory is there than the pool's, without its %s", markerName),
			"mount the disk that the pool lies on; to begin anew in this directory, stop the daemon and remove "+d.memo.File())
	case errors.Is(err, errdefs.ErrNotFound):
		if m, err = d.mark(p); err != nil {
			return err
		}
	case err != nil:
		return errdefs.As(errdefs.ErrUnavailable, err)
	case id != "" && id != m.ID:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "another pool is there, with ID %s instead of %s", m.ID, id),
			"mount the right disk; to take this one, stop the daemon and remove "+d.memo.File())
	}
	if m.ID != "" && m.ID != id {
		if err := d.memo.Write(d.path, m.ID); err != nil {
			d.log.Warn("the pool's ID is not remembered", slog.Any("error", err))
		}
	}
	d.known, d.id = now, m.ID
	return nil
}

// mark makes the marker of a pool that has none. On a file system that is read-only there is
// none then; if another host is faster, its marker counts.
func (d *driver) mark(p *pool) (marker, error) {
	m := marker{ID: newID(), Created: now()}
	temp := d.hidden(newKind)
	err := state.Create(p.Root, temp, markerVersion, m)
	if errors.Is(err, syscall.EROFS) {
		return marker{}, nil
	}
	if err != nil {
		return m, err
	}
	err = p.Link(temp, markerName)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = state.Read(p.Root, markerName, markerVersion, &m)
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EOPNOTSUPP): // no hard links here
		err = p.Rename(temp, markerName)
	}
	if rerr := p.Remove(temp); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	if err == nil {
		err = p.dir.Sync()
	}
	return m, err
}

// canClone tells whether files of the pool can share their blocks (ioctl_ficlone(2)). known is
// false where the pool cannot be looked at.
func (d *driver) canClone() (can, known bool) {
	p, err := d.pool()
	if err != nil {
		return false, false
	}
	defer p.close()
	var files [2]int
	for i := range files {
		fd, err := unix.Openat(int(p.dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
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

// rename moves a directory of the pool to a name that is free.
func (p *pool) rename(from, to string) error {
	err := unix.Renameat2(int(p.dir.Fd()), from, int(p.dir.Fd()), to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // NFS; a plain rename replaces an empty directory, no other
		err = unix.Renameat(int(p.dir.Fd()), from, int(p.dir.Fd()), to)
	}
	return err
}

// fail says what went wrong in the pool, with a class that is never ErrNotFound: that a
// volume is gone is said by [errNoVolume] alone, and not by a file that was missing on the
// way. what is the file below the pool's path, or empty for the directory itself.
func (d *driver) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	if errdefs.Class(err) == nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		} else if le, ok := errors.AsType[*os.LinkError](err); ok {
			err = le.Err
		}
	}
	path := d.path
	if what != "" {
		path += "/" + what
	}
	err = state.Classify(fmt.Errorf("%s: %w", path, err))
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s", err.Error()) // %s and no %w: the class must not survive
	}
	return err
}

// checkName refuses what is not one visible component of a path. The Handler has stricter
// rules; this one keeps the pool whole without it.
func checkName(name string) error {
	if name == "" || len(name) > unix.NAME_MAX || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return errdefs.Errorf(errdefs.ErrInvalid, "name %q: not the name of a volume or snapshot", name)
	}
	return nil
}

// newID returns a random UUID (RFC 9562, section 5.4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
