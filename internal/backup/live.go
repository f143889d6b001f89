package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/fs/localfs"
	"golang.org/x/sys/unix"
)

// live is a volume that others write to while it is read. What was a file or a directory may be a
// symbolic link to one of the host's by the time it is opened, or a pipe that nobody writes to: such
// a one counts as gone.
type live struct {
	top  *os.File
	root *os.Root // for kernels without openat2(2)
}

// openLive returns a directory as one that is written to. close is to be called after its last use.
func openLive(dir string) (d kopiafs.Directory, closed func(), err error) {
	of, err := localfs.Directory(dir)
	if err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	top, err := root.Open(".")
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return liveDirectory{of, live{top, root}, "."}, func() { _, _ = top.Close(), root.Close() }, nil
}

// open opens what has a name, if no symbolic link is on the way to it.
func (l live) open(name string, flags int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(int(l.top.Fd()), name, &how)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), name), nil
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // before Linux 5.6, or below an old seccomp filter
		return l.root.OpenFile(name, flags|unix.O_NONBLOCK, 0) // links within it are followed
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO):
		err = fs.ErrNotExist
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: err}
}

// entry makes of an entry one that is opened so.
func (l live) entry(e kopiafs.Entry, name string) kopiafs.Entry {
	switch e := e.(type) {
	case kopiafs.Directory:
		return liveDirectory{e, l, name}
	case kopiafs.File:
		return liveFile{e, l, name}
	case kopiafs.Symlink:
		return liveSymlink{e, l, name}
	}
	return e
}

// at returns the entry of a name in an open directory.
func (l live) at(dir *os.File, above, name string) (kopiafs.Entry, error) {
	e, err := localfs.NewEntry(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
	if err != nil {
		return nil, err
	}
	return l.entry(e, path.Join(above, name)), nil
}

type liveDirectory struct {
	kopiafs.Directory
	live live
	name string
}

// Child implements [kopiafs.Directory].
func (d liveDirectory) Child(_ context.Context, name string) (kopiafs.Entry, error) {
	f, err := d.live.open(d.name, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	e, err := d.live.at(f, d.name, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = kopiafs.ErrEntryNotFound
	}
	return e, err
}

// Iterate implements [kopiafs.Directory].
func (d liveDirectory) Iterate(context.Context) (kopiafs.DirectoryIterator, error) {
	f, err := d.live.open(d.name, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &liveIterator{of: d, f: f}, nil
}

type liveIterator struct {
	of    liveDirectory
	f     *os.File
	names []string
}

// Close implements [kopiafs.DirectoryIterator].
func (i *liveIterator) Close() { _ = i.f.Close() }

// Next implements [kopiafs.DirectoryIterator].
func (i *liveIterator) Next(context.Context) (kopiafs.Entry, error) {
	for {
		if len(i.names) == 0 {
			names, err := i.f.Readdirnames(100)
			if errors.Is(err, io.EOF) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			i.names = names
		}
		name := i.names[0]
		i.names = i.names[1:]
		e, err := i.of.live.at(i.f, i.of.name, name)
		if !errors.Is(err, fs.ErrNotExist) { // or it has been removed
			return e, err
		}
	}
}

type liveFile struct {
	kopiafs.File
	live live
	name string
}

// Open implements [kopiafs.File].
func (f liveFile) Open(context.Context) (kopiafs.Reader, error) {
	opened, err := f.live.open(f.name, 0)
	if err != nil {
		return nil, err
	}
	fi, err := opened.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return liveReader{opened, f}, nil
}

type liveSymlink struct {
	kopiafs.Symlink
	live live
	name string
}

// Readlink implements [kopiafs.Symlink].
func (s liveSymlink) Readlink(context.Context) (string, error) {
	dir, err := s.live.open(path.Dir(s.name), unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), path.Base(s.name), target)
	if errors.Is(err, unix.EINVAL) { // it is no link any more
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: s.name, Err: err}
	}
	return string(target[:n]), nil
}

type liveReader struct {
	*os.File
	of liveFile
}

// Entry implements [kopiafs.Reader].
func (r liveReader) Entry() (kopiafs.Entry, error) {
	fi, err := r.Stat()
	return liveStat{r.of, fi}, err
}

// liveStat is a file as it is by now.
type liveStat struct {
	liveFile
	now fs.FileInfo
}

func (s liveStat) Size() int64        { return s.now.Size() }
func (s liveStat) ModTime() time.Time { return s.now.ModTime() }
func (s liveStat) Mode() fs.FileMode  { return s.now.Mode() }
