package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// In a volume that is being filled all lies in one directory, under the first name while it is
// written and under the second when all of it is there. Then it goes up to the top, and so a
// kill at any time leaves what the next call can tell apart, and go on with.
const (
	writing = ".remora-unpacking"
	written = ".remora-unpacked"
)

// State says what a directory is that an archive is to be unpacked into.
type State int

// The states of a directory.
const (
	Empty      State = iota // nothing is in it
	Unfinished              // it was unpacked into, and that was cut off
	Full                    // it has data
)

// Look finds out the state of a directory.
func Look(dir string) (State, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Full, fmt.Errorf("%s: %w", dir, classify(err))
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name && e.IsDir() })
	}
	data := 0
	for _, e := range entries {
		if e.Name() != "lost+found" && e.Name() != writing { // mkfs(8) makes the first
			data++
		}
	}
	switch {
	case has(written):
		return Unfinished, nil
	case data > 0:
		return Full, nil
	case has(writing):
		return Unfinished, nil
	}
	return Empty, nil
}

// Fill unpacks what lies below a path of the archive into a directory that is [Empty], or goes
// on with one that is [Unfinished]. When it fails, what it wrote is gone from there.
func Fill(ctx context.Context, file, below, dir string, told Progress) (Result, error) {
	state, err := Look(dir)
	if err != nil {
		return Result{}, err
	}
	if state == Full {
		return Result{}, errdefs.Errorf(errdefs.ErrExists, "%s: there is data in it", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", dir, classify(err))
	}
	defer root.Close()
	top, err := root.Open(".")
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", dir, classify(err))
	}
	defer top.Close()
	if err := unix.Flock(int(top.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) { // some file systems have no locks
		return Result{}, errdefs.Errorf(errdefs.ErrInUse, "%s: another archive is being unpacked into it", dir)
	}
	var r Result
	if _, err := root.Lstat(written); errors.Is(err, fs.ErrNotExist) {
		if r, err = write(ctx, root, file, below, told); err != nil {
			return r, err
		}
	}
	if err := raise(root); err != nil {
		return r, fmt.Errorf("%s: %w", dir, classify(err))
	}
	return r, nil
}

// write unpacks into the directory for it, and gives that its other name when it is whole.
func write(ctx context.Context, root *os.Root, file, below string, told Progress) (r Result, err error) {
	defer func() {
		if err == nil {
			return
		}
		if rerr := root.RemoveAll(writing); rerr != nil {
			err = fmt.Errorf("%w; and then: %w", err, rerr)
		}
	}()
	if err := root.RemoveAll(writing); err != nil {
		return r, classify(err)
	}
	if err := root.Mkdir(writing, passMode); err != nil {
		return r, classify(err)
	}
	inner, err := root.OpenRoot(writing)
	if err != nil {
		return r, classify(err)
	}
	defer inner.Close()
	t := &tree{root: inner, below: below}
	if err := t.read(ctx, file, told); err != nil {
		return t.Result, err
	}
	if len(t.dirs) == 0 && t.Files == 0 {
		return t.Result, errdefs.Errorf(errdefs.ErrNotFound, "%s: there is no directory %q in it", file, below)
	}
	if !slices.ContainsFunc(t.dirs, func(e entry) bool { return e.name == "." }) {
		if err := inner.Chmod(".", 0o755); err != nil {
			return t.Result, classify(err)
		}
	}
	d, err := inner.Open(".")
	if err != nil {
		return t.Result, classify(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return t.Result, classify(err)
	}
	return t.Result, root.Rename(writing, written)
}

// raise brings what was unpacked up to the top, whose owner and mode become those of the directory
// in the archive.
func raise(root *os.Root) error {
	d, err := root.Open(written)
	if err != nil {
		return err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, name := range names {
		if err := root.Rename(written+"/"+name, name); err != nil {
			return err
		}
	}
	top, err := root.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	if err := top.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(top.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	if err := top.Sync(); err != nil {
		return err
	}
	return root.Remove(written)
}
