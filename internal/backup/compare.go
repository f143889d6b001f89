package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync/atomic"
	"syscall"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot/snapshotfs"
	"golang.org/x/sys/unix"
)

// OpenUncached is [Open] for one who wants to know what the repository itself has, and not what this
// host remembers of it.
func OpenUncached(ctx context.Context, p Place) (*Repository, error) {
	r, err := p.open(ctx, uncached)
	return r, p.explain(err)
}

// Compared says what was compared.
type Compared struct {
	Files, Bytes int64
	// Differences is how many files and directories are not as in the backup; First says of one
	// of them what is different.
	Differences int
	First       error
}

// Compare reads what lies in dir, from the disk and not from memory, and the backup whose ID
// begins with id, and says where the two differ: names, kinds, sizes, contents, modes, owners and
// what links point to. Nothing may write to dir meanwhile.
func (r *Repository) Compare(ctx context.Context, id, dir string, tell func(Progress)) (Compared, error) {
	m, err := r.find(ctx, id)
	if err != nil {
		return Compared{}, r.place.explain(err)
	}
	c := &comparison{one: make([]byte, compareSize), two: make([]byte, compareSize)}
	root, err := snapshotfs.SnapshotRoot(r.rep, m)
	if err != nil {
		return c.Compared, r.place.explain(err)
	}
	size := toBackup(m).Size
	defer follow(tell, func() Progress { return Progress{Done: min(c.done.Load(), size), Total: size} })()
	c.disk, err = os.OpenRoot(dir)
	if err != nil {
		return c.Compared, err
	}
	defer c.disk.Close()
	err = flush(dir) // else what is dirty cannot leave the page cache
	if err == nil {
		err = c.entry(ctx, root, ".")
	}
	if err != nil {
		err = r.place.explain(fmt.Errorf("backup %.12s: %w", string(m.ID), err))
	}
	return c.Compared, err
}

// flush brings the file system of a directory to the disk.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// comparison is one that is under way.
type comparison struct {
	Compared
	disk     *os.Root
	done     atomic.Int64
	one, two []byte // what is compared of two files
}

// differ counts a difference.
func (c *comparison) differ(name, format string, args ...any) {
	if c.Differences++; c.First == nil {
		c.First = fmt.Errorf("%s: "+format, append([]any{name}, args...)...)
	}
}

// entry compares one entry and what is below it. An error is one of the reading.
func (c *comparison) entry(ctx context.Context, want kopiafs.Entry, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	is, err := c.disk.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		c.differ(name, "is not there")
		return nil
	}
	if err != nil {
		return err
	}
	if want.Mode().Type() != is.Mode().Type() {
		c.differ(name, "is %s, and not %s", is.Mode(), want.Mode())
		return nil
	}
	if is.Mode()&fs.ModeSymlink == 0 && want.Mode()&kopiafs.ModBits != is.Mode()&kopiafs.ModBits {
		c.differ(name, "has the mode %s, and not %s", is.Mode(), want.Mode())
	}
	if st, ok := is.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && (st.Uid != want.Owner().UserID || st.Gid != want.Owner().GroupID) {
		c.differ(name, "belongs to %d:%d, and not to %d:%d", st.Uid, st.Gid, want.Owner().UserID, want.Owner().GroupID)
	}
	switch want := want.(type) {
	case kopiafs.Directory:
		return c.directory(ctx, want, name)
	case kopiafs.File:
		c.Files++
		return c.file(ctx, want, name, is.Size())
	case kopiafs.Symlink:
		target, err := want.Readlink(ctx)
		if err != nil {
			return err
		}
		if points, err := c.disk.Readlink(name); err != nil || points != target {
			c.differ(name, "points to %q, and not to %q", points, target)
		}
	}
	return nil
}

// lostFound is the directory that a file system makes for itself.
const lostFound = "lost+found"

func (c *comparison) directory(ctx context.Context, want kopiafs.Directory, name string) error {
	f, err := c.disk.Open(name)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	_ = f.Close()
	if err != nil {
		return err
	}
	extra := map[string]bool{}
	for _, n := range names {
		extra[n] = name != "." || n != lostFound
	}
	err = kopiafs.IterateEntries(ctx, want, func(ctx context.Context, e kopiafs.Entry) error {
		delete(extra, e.Name())
		return c.entry(ctx, e, path.Join(name, e.Name()))
	})
	if err != nil {
		return err
	}
	for _, n := range slices.Sorted(keysOf(extra)) {
		c.differ(path.Join(name, n), "is not in the backup")
	}
	return nil
}

// keysOf yields the keys that have true.
func keysOf(set map[string]bool) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k, in := range set {
			if in && !yield(k) {
				return
			}
		}
	}
}

// file compares a file, which has a size on the disk, by reading both.
func (c *comparison) file(ctx context.Context, want kopiafs.File, name string, size int64) error {
	if size != want.Size() {
		c.differ(name, "has %d bytes, and not %d", size, want.Size())
		return nil
	}
	stored, err := want.Open(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer stored.Close()
	written, err := c.disk.Open(name)
	if err != nil {
		return err
	}
	defer written.Close()
	// What was written a moment ago would be answered from memory.
	_ = unix.Fadvise(int(written.Fd()), 0, 0, unix.FADV_DONTNEED) // a file system without it reads what it has
	one, two := c.one, c.two
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(stored, one)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return fmt.Errorf("%s: %w", name, err)
		}
		m, err := io.ReadFull(written, two[:max(n, 1)])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			c.differ(name, "cannot be read: %w", err)
			return nil
		}
		if m != n || !bytes.Equal(one[:n], two[:m]) {
			c.differ(name, "has other contents")
			return nil
		}
		c.Bytes += int64(n)
		c.done.Add(int64(n))
		if end {
			return nil
		}
	}
}

// compareSize is how much of two files is compared at a time.
const compareSize = 256 << 10
