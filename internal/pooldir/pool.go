package pooldir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// MarkerName is the file that says which pool a directory is.
const MarkerName = ".remora-pool.json"

const markerVersion = 1

// marker is the content of that file.
type marker struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// identity is what the kernel knows a directory by.
type identity struct{ dev, ino uint64 }

func identityOf(st *unix.Stat_t) identity { return identity{uint64(st.Dev), st.Ino} } //nolint:unconvert // 32 bits on some machines

// Pool is a directory of the host that has one for each volume. A driver embeds it, and has with
// it what is the same whatever a volume is made of: Remove, Ping, Space, the trash and Close.
type Pool struct {
	// Path is where the directory is.
	Path string
	// Key is what the memo knows the pool by; Path where it is empty.
	Key  string
	Memo Memo
	// Host is in the names of what is half made; see [Host]. It is empty where no two hosts have
	// the pool at a time.
	Host string
	Log  *slog.Logger

	// Attach, if it is not nil, is called where the path does not have the directory that is
	// known, and may bring it there.
	Attach func(ctx context.Context) error
	// Check, if it is not nil, refuses a directory that cannot be a pool. seen tells that one was
	// seen there before.
	Check func(dir *Dir, seen bool) error
	// Found, if it is not nil, is called for a directory that is the pool's, before its first use.
	Found func(dir *Dir)

	// Volume is an error where what has the name is no volume.
	Volume func(dir *Dir, name string) error
	// Unused is an error where something in a directory of the pool is in use.
	Unused func(ctx context.Context, dir *Dir, path string) error
	// Delete deletes what has the name in the pool, which may be nothing, or only half there.
	Delete func(ctx context.Context, dir *Dir, name string) error

	mu    sync.Mutex
	known identity // of the directory; zero before it was seen
	id    string   // in the marker; empty before it was seen

	background background
}

// Is tells whether st is of the directory that was recognised.
func (p *Pool) Is(st *unix.Stat_t) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known != identity{} && identityOf(st) == p.known
}

// ID returns what the marker says, empty before it was seen.
func (p *Pool) ID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// Open opens the pool's directory and makes sure that it is the one known. One that is not
// there, or is another, such as the empty directory below a disk that is not mounted, is
// ErrUnavailable: its volumes are not gone, and nothing is written to it.
func (p *Pool) Open(ctx context.Context) (*Dir, error) {
	dir, known, err := p.open()
	if !known && p.Attach != nil {
		if err == nil {
			dir.Close()
		}
		if err := p.Attach(ctx); err != nil {
			return nil, err
		}
		dir, known, err = p.open()
	}
	if err != nil {
		if err = p.Fail("", err); errdefs.Class(err) == nil {
			err = errdefs.As(errdefs.ErrUnavailable, err)
		}
		return nil, errdefs.Hint(err, "mount the disk that it lies on, or make it: mkdir -p "+p.Path)
	}
	if !known {
		if err := p.recognise(dir); err != nil {
			dir.Close()
			return nil, p.Fail("", err)
		}
	}
	return dir, nil
}

func (p *Pool) open() (dir *Dir, known bool, err error) {
	fd, err := unix.Open(p.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, false, err
	}
	return &Dir{FD: fd, File: os.NewFile(uintptr(fd), p.Path), identity: identityOf(&st)}, p.Is(&st), nil
}

// recognise compares what was opened with what is known. A directory with the same device and
// inode is the same; with others, the marker decides, because a disk that was unplugged and came
// back has another device number.
func (p *Pool) recognise(dir *Dir) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if dir.identity == p.known {
		return nil // another call was faster
	}
	id := p.id
	if id == "" {
		var err error
		if id, err = p.Memo.Read(p.key()); err != nil {
			return err
		}
	}
	if p.Check != nil {
		if err := p.Check(dir, id != ""); err != nil {
			return err
		}
	}
	root, err := dir.Root()
	if err != nil {
		return err
	}
	var m marker
	err = state.Read(root, MarkerName, markerVersion, &m)
	switch {
	case errors.Is(err, errdefs.ErrNotFound) && (id != "" || p.known != identity{}):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "another directory is there than the pool's, without its %s", MarkerName),
			"mount the disk that the pool lies on; to begin anew in this directory, stop the daemon and remove "+p.Memo.File())
	case errors.Is(err, errdefs.ErrNotFound):
		if m, err = p.mark(dir, root); err != nil {
			return err
		}
	case err != nil:
		return errdefs.As(errdefs.ErrUnavailable, err)
	case id != "" && id != m.ID:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "another pool is there, with ID %s instead of %s", m.ID, id),
			"mount the right disk; to take this one, stop the daemon and remove "+p.Memo.File())
	}
	if m.ID != "" && m.ID != id {
		if err := p.Memo.Write(p.key(), m.ID); err != nil {
			p.Log.Warn("the pool's ID is not remembered", slog.Any("error", err))
		}
	}
	if p.Found != nil {
		p.Found(dir)
	}
	p.known, p.id = dir.identity, m.ID
	return nil
}

func (p *Pool) key() string {
	if p.Key != "" {
		return p.Key
	}
	return p.Path
}

// mark makes the marker of a pool that has none. On a file system that is read-only there is none
// then; if another host is faster, its marker counts.
func (p *Pool) mark(dir *Dir, root *os.Root) (marker, error) {
	m := marker{ID: NewID(), Created: time.Now().UTC().Truncate(time.Second)}
	temp := p.Hidden(New)
	err := state.Create(root, temp, markerVersion, m)
	if errors.Is(err, unix.EROFS) {
		return marker{}, nil
	}
	if err != nil {
		return m, err
	}
	err = root.Link(temp, MarkerName)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = state.Read(root, MarkerName, markerVersion, &m)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP): // no hard links here
		err = root.Rename(temp, MarkerName)
	}
	if rerr := root.Remove(temp); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	if err == nil {
		err = dir.File.Sync()
	}
	return m, err
}

// Fail says what went wrong in the pool, with a class. what is the file below the pool's path, or
// empty for the directory itself.
func (p *Pool) Fail(what string, err error) error {
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
	path := p.Path
	if what != "" {
		path += "/" + what
	}
	return Classify(fmt.Errorf("%s: %w", path, err))
}

// Classify gives err a class that is never ErrNotFound: that a volume is gone is said by
// [ErrNoVolume] alone, and not by a file that was missing on the way.
func Classify(err error) error {
	if err = state.Classify(err); errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s", err.Error()) // %s and no %w: the class must not survive
	}
	return err
}

// Ping looks whether the pool's directory is there, is the one it was, and can be written to.
func (p *Pool) Ping(ctx context.Context) error {
	dir, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Faccessat(dir.FD, ".", unix.W_OK|unix.X_OK, 0); err != nil {
		return errdefs.As(errdefs.ErrUnavailable, p.Fail("", err))
	}
	return nil
}

// Space is that of the file system on which the pool lies, as far as it is not kept for root.
func (p *Pool) Space(ctx context.Context) (volume.Space, error) {
	dir, err := p.Open(ctx)
	if err != nil {
		return volume.Space{}, err
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir.FD, &st); err != nil {
		return volume.Space{}, p.Fail("", err)
	}
	return volume.Space{Free: int64(st.Bavail) * st.Bsize, Total: int64(st.Blocks) * st.Bsize}, nil
}
