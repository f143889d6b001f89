package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/state"
)

// Diff tells each what is different in the tree at to from that at from, in the order of the
// names. Contents are not read: a file of the same size and time is taken for the same. What
// comes or goes while it is looked at may be told or not.
func Diff(ctx context.Context, from, to string, each func(control.Change)) (control.Diff, error) {
	d := &differ{each: each}
	err := d.open(from, to)
	if err == nil {
		defer d.from.Close()
		defer d.to.Close()
		err = d.directories(ctx, ".", true, true)
	}
	if err != nil {
		return d.sum, state.Classify(fmt.Errorf("compare: %w", err))
	}
	return d.sum, nil
}

type differ struct {
	from, to *os.Root
	each     func(control.Change)
	sum      control.Diff
}

func (d *differ) open(from, to string) (err error) {
	if d.from, err = os.OpenRoot(from); err != nil {
		return err
	}
	if d.to, err = os.OpenRoot(to); err != nil {
		_ = d.from.Close()
	}
	return err
}

// entry is a file as it stands in its directory.
type entry struct {
	name string
	unix.Stat_t
	target string // of a symbolic link
}

func (e entry) kind() uint32    { return e.Mode & unix.S_IFMT }
func (e entry) directory() bool { return e.kind() == unix.S_IFDIR }

// directories compares a directory that is in the one tree, the other, or both.
func (d *differ) directories(ctx context.Context, dir string, inFrom, inTo bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var was, is []entry
	var err error
	if inFrom {
		was, err = list(d.from, dir)
	}
	if inTo && err == nil {
		is, err = list(d.to, dir)
	}
	if err != nil {
		return err
	}
	for len(was) > 0 || len(is) > 0 {
		var order int
		switch {
		case len(was) == 0:
			order = 1
		case len(is) == 0:
			order = -1
		default:
			order = cmp.Compare(was[0].name, is[0].name)
		}
		var a, b *entry
		if order <= 0 {
			a, was = &was[0], was[1:]
		}
		if order >= 0 {
			b, is = &is[0], is[1:]
		}
		if err := d.pair(ctx, dir, a, b); err != nil {
			return err
		}
	}
	return nil
}

// pair compares two files of one name, of which one may be missing, and what is in them.
func (d *differ) pair(ctx context.Context, dir string, a, b *entry) error {
	e := a
	if a == nil {
		e = b
	}
	name := path.Join(dir, e.name)
	switch {
	case a == nil:
		d.sum.Added++
		d.each(control.Change{Kind: control.Added, Path: name})
	case b == nil:
		d.sum.Removed++
		d.each(control.Change{Kind: control.Removed, Path: name})
	default:
		if what := compare(*a, *b); len(what) > 0 {
			d.sum.Changed++
			d.each(control.Change{Kind: control.Changed, Path: name, What: what})
		}
	}
	inFrom, inTo := a != nil && a.directory(), b != nil && b.directory()
	if !inFrom && !inTo {
		return nil
	}
	return d.directories(ctx, name, inFrom, inTo)
}

// compare says in what two files differ. The time of a directory says only that something in
// it was made or removed, which is told anyway.
func compare(a, b entry) (what []string) {
	if a.kind() != b.kind() {
		return []string{"type"}
	}
	if a.kind() == unix.S_IFREG {
		if a.Size != b.Size {
			what = append(what, "size")
		}
		if a.Mtim != b.Mtim {
			what = append(what, "mtime")
		}
	}
	if a.Mode != b.Mode {
		what = append(what, "mode")
	}
	if a.Uid != b.Uid || a.Gid != b.Gid {
		what = append(what, "owner")
	}
	if a.target != b.target || a.Rdev != b.Rdev {
		what = append(what, "target")
	}
	return what
}

// list returns the files in a directory by name. One that has gone has none.
func list(root *os.Root, dir string) ([]entry, error) {
	f, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0) // a pipe in its place would be opened for ever
	if vanished(err) && dir != "." {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !vanished(err) {
		return nil, err
	}
	slices.Sort(names)
	all := make([]entry, 0, len(names))
	for _, name := range names {
		e := entry{name: name}
		err := unix.Fstatat(int(f.Fd()), name, &e.Stat_t, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && e.kind() == unix.S_IFLNK {
			buf := make([]byte, unix.PathMax)
			var n int
			n, err = unix.Readlinkat(int(f.Fd()), name, buf)
			e.target = string(buf[:max(n, 0)])
		}
		if vanished(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(dir, name), err)
		}
		all = append(all, e)
	}
	return all, nil
}

// vanished tells whether an error is that of a file that has gone, or in whose place there is
// something else.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EINVAL)
}
