package dir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
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

func identityOf(st *unix.Stat_t) identity { return identity{st.Dev, st.Ino} }

// pool is the pool's directory, opened for one call and not longer: a directory that
// is held open keeps its disk from being unmounted. Whatever happens to the path
// meanwhile, the call stays in the directory that was looked at.
type pool struct {
	dir  *os.File
	fd   int      // of dir
	kept *os.Root // nil until it is asked for
}

// root returns the directory as an [os.Root]. Calls that only look do without.
func (p *pool) root() (*os.Root, error) {
	if p.kept == nil {
		root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", p.fd)) // the path may be another directory by now
		if err != nil {
			return nil, err
		}
		p.kept = root
	}
	return p.kept, nil
}

func (p *pool) close() {
	_ = p.dir.Close()
	if p.kept != nil {
		_ = p.kept.Close()
	}
}

// pool opens the pool's directory and makes sure that it is the one known. One that
// is not there, or is another, such as the empty directory below a disk that is not
// mounted, is ErrUnavailable: its volumes are not gone, and nothing is written to it.
func (d *driver) pool() (*pool, error) {
	fd, err := unix.Open(d.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		if err = d.fail("", err); errdefs.Class(err) == nil {
			err = errdefs.As(errdefs.ErrUnavailable, err)
		}
		return nil, errdefs.Hint(err, "mount the disk that it lies on, or make it: mkdir -p "+d.path)
	}
	p := &pool{dir: os.NewFile(uintptr(fd), d.path), fd: fd}
	var st unix.Stat_t
	if err = unix.Fstat(p.fd, &st); err == nil {
		err = d.recognise(p, identityOf(&st))
	}
	if err != nil {
		p.close()
		return nil, d.fail("", err)
	}
	return p, nil
}

// recognise compares what was opened with what is known. A directory with the same
// device and inode is the same; with others, the marker decides, because a disk that
// was unplugged and came back has another device number.
func (d *driver) recognise(p *pool, now identity) error {
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
	root, err := p.root()
	if err != nil {
		return err
	}
	var m marker
	err = state.Read(root, markerName, markerVersion, &m)
	switch {
	case errors.Is(err, errdefs.ErrNotFound) && (id != "" || d.known != identity{}):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "another directory is there than the pool's, without its %s", markerName),
			"mount the disk that the pool lies on; to begin anew in this directory, stop the daemon and remove "+d.memo.File())
	case errors.Is(err, errdefs.ErrNotFound):
		if m, err = d.mark(p, root); err != nil {
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

// mark makes the marker of a pool that has none. On a file system that is read-only
// there is none then; if another host is faster, its marker counts.
func (d *driver) mark(p *pool, root *os.Root) (marker, error) {
	m := marker{ID: newID(), Created: time.Now().UTC().Truncate(time.Second)}
	temp := d.hidden(newKind)
	err := state.Create(root, temp, markerVersion, m)
	if errors.Is(err, syscall.EROFS) {
		return marker{}, nil
	}
	if err != nil {
		return m, err
	}
	err = root.Link(temp, markerName)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = state.Read(root, markerName, markerVersion, &m)
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EOPNOTSUPP): // no hard links here
		err = root.Rename(temp, markerName)
	}
	if rerr := root.Remove(temp); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	if err == nil {
		err = p.dir.Sync()
	}
	return m, err
}

// fail says what went wrong in the pool, with a class. what is the file below the
// pool's path, or empty for the directory itself.
func (d *driver) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok && errdefs.Class(err) == nil {
		err = pe.Err
	}
	path := d.path
	if what != "" {
		path += "/" + what
	}
	return d.classify(fmt.Errorf("%s: %w", path, err))
}

// classify gives err a class that is never ErrNotFound: that a volume is gone is said
// by [errNoVolume] alone, and not by a file that was missing on the way.
func (d *driver) classify(err error) error {
	if err = state.Classify(err); errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s", err.Error()) // %s and no %w: the class must not survive
	}
	return err
}

// newID returns a random UUID (RFC 9562, section 5.4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
