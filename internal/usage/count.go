// Package usage finds out how large a directory tree is by counting its files, for storage
// that does not know, and remembers it for a while.
package usage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
)

// batch is how many names of a directory are read at a time.
const batch = 1024

// inode is a file that has several names.
type inode struct{ dev, ino uint64 }

// Count returns how many bytes the tree at dir takes on its file system, as du(1) does: what
// is allocated counts, a file with several names counts once, and another file system that is
// mounted below does not count. progress, if not nil, is told of the files so far now and
// then. Files that go while they are counted are passed over.
func Count(ctx context.Context, dir string, progress func(files int64)) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, state.Classify(fmt.Errorf("count files: %w", err))
	}
	defer root.Close()
	top, err := root.Stat(".")
	if err != nil {
		return 0, state.Classify(fmt.Errorf("count files: %w", err))
	}
	st := top.Sys().(*syscall.Stat_t)
	c := &counter{root: root, dev: st.Dev, seen: map[inode]bool{}, used: st.Blocks * blockSize, progress: progress, todo: []string{"."}}
	for len(c.todo) > 0 {
		next := c.todo[len(c.todo)-1]
		c.todo = c.todo[:len(c.todo)-1]
		if err := c.directory(ctx, next); err != nil {
			return 0, fmt.Errorf("count files: %w", err)
		}
	}
	return c.used, nil
}

// blockSize is the unit of st_blocks (stat(2)).
const blockSize = 512

type counter struct {
	root     *os.Root
	dev      uint64
	seen     map[inode]bool
	used     int64
	files    int64
	progress func(files int64)
	todo     []string // directories, relative to root
}

func (c *counter) directory(ctx context.Context, dir string) error {
	f, err := c.root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0) // a pipe in its place would be opened for ever
	if vanished(err) {
		return nil
	}
	if err != nil {
		return state.Classify(err)
	}
	defer f.Close()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		names, err := f.Readdirnames(batch)
		for _, name := range names {
			if err := c.entry(int(f.Fd()), dir, name); err != nil {
				return state.Classify(fmt.Errorf("%s: %w", path.Join(dir, name), err))
			}
		}
		c.files += int64(len(names))
		if c.progress != nil && len(names) > 0 {
			c.progress(c.files)
		}
		switch {
		case errors.Is(err, io.EOF), vanished(err):
			return nil
		case err != nil:
			return state.Classify(err)
		}
	}
}

func (c *counter) entry(fd int, dir, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); vanished(err) {
		return nil
	} else if err != nil {
		return err
	}
	directory := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if directory && st.Dev != c.dev {
		return nil
	}
	if id := (inode{st.Dev, st.Ino}); !directory && st.Nlink > 1 {
		if c.seen[id] {
			return nil
		}
		c.seen[id] = true
	}
	c.used += st.Blocks * blockSize
	if directory {
		c.todo = append(c.todo, path.Join(dir, name))
	}
	return nil
}

// vanished tells whether an error is that of a file that has gone, or of a directory in whose
// place there is something else.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
