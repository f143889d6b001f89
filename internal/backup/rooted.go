package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/restore"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// rooted writes into a volume that others may write to meanwhile. Whatever they put in its way, a
// symbolic link in the place of a directory above all, nothing is written outside of the volume.
type rooted struct {
	root *os.Root
	at   string // where in the volume
	r    *Repository
}

var _ restore.Output = (*rooted)(nil)

func (o *rooted) path(name string) string { return path.Join(o.at, name) }

// Parallelizable implements [restore.Output].
func (o *rooted) Parallelizable() bool { return true }

// Close implements [restore.Output].
func (o *rooted) Close(context.Context) error { return nil }

// WriteDirEntry implements [restore.Output].
func (o *rooted) WriteDirEntry(context.Context, string, *snapshot.DirEntry, kopiafs.Directory) error {
	return nil
}

// FileExists implements [restore.Output]: nothing does.
func (o *rooted) FileExists(context.Context, string, kopiafs.File) bool { return false }

// SymlinkExists implements [restore.Output].
func (o *rooted) SymlinkExists(context.Context, string, kopiafs.Symlink) bool { return false }

// BeginDirectory implements [restore.Output].
func (o *rooted) BeginDirectory(_ context.Context, name string, d kopiafs.Directory) error {
	if err := simple(name, d); err != nil {
		return err
	}
	return target(name, o.mkdir(o.path(name)))
}

// mkdir makes a directory, or takes one that is there and is no link to one.
func (o *rooted) mkdir(name string) error {
	err := o.root.Mkdir(name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, serr := o.root.Lstat(name)
	if serr == nil && fi.IsDir() {
		return nil
	}
	return errors.Join(err, serr)
}

// FinishDirectory implements [restore.Output].
func (o *rooted) FinishDirectory(ctx context.Context, name string, d kopiafs.Directory) error {
	err := o.r.setTimes(ctx, d, "", func(child string, at time.Time) error { return o.root.Chtimes(path.Join(o.path(name), child), at, at) })
	if err != nil {
		return err
	}
	return o.attributes(name, d)
}

// attributes sets owner and mode of an entry where they are others: not every file system lets them be
// set. The owner comes before the mode: to change it takes setuid away.
func (o *rooted) attributes(name string, e kopiafs.Entry) error {
	is, err := o.root.Lstat(o.path(name))
	if err != nil {
		return err
	}
	st, ok := is.Sys().(*syscall.Stat_t)
	owned := ok && st.Uid == e.Owner().UserID && st.Gid == e.Owner().GroupID
	if !owned {
		if err := o.root.Lchown(o.path(name), int(e.Owner().UserID), int(e.Owner().GroupID)); err != nil {
			return err
		}
	}
	if e.Mode()&fs.ModeSymlink != 0 || owned && is.Mode()&kopiafs.ModBits == e.Mode()&kopiafs.ModBits {
		return nil // a link has no mode
	}
	return o.root.Chmod(o.path(name), e.Mode()&kopiafs.ModBits)
}

// WriteFile implements [restore.Output].
func (o *rooted) WriteFile(ctx context.Context, name string, e kopiafs.File, tell restore.FileWriteProgress) error {
	if err := simple(name, e); err != nil {
		return err
	}
	f, err := o.root.OpenFile(o.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return target(name, err)
	}
	err = copyFile(ctx, name, f, e, tell)
	if err == nil {
		err = f.Chown(int(e.Owner().UserID), int(e.Owner().GroupID))
	}
	if err == nil {
		err = f.Chmod(e.Mode() & kopiafs.ModBits)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return o.root.Chtimes(o.path(name), e.ModTime(), e.ModTime())
}

// CreateSymlink implements [restore.Output].
func (o *rooted) CreateSymlink(ctx context.Context, name string, e kopiafs.Symlink) error {
	if err := simple(name, e); err != nil {
		return err
	}
	to, err := e.Readlink(ctx)
	if err != nil {
		return err
	}
	if err := o.root.Symlink(to, o.path(name)); err != nil {
		return target(name, err)
	}
	if err := o.attributes(name, e); err != nil {
		return err
	}
	dir, err := openDir(o.root, path.Dir(o.path(name)))
	if err != nil {
		return err
	}
	defer dir.Close()
	at := unix.NsecToTimespec(e.ModTime().UnixNano())
	return unix.UtimesNanoAt(int(dir.Fd()), path.Base(o.path(name)), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// simple refuses an entry whose name is a path: who can write to a repository could lead a restore
// out of its directory by it. name is where the entry goes; that of the whole is empty.
func simple(name string, e kopiafs.Entry) error {
	if name != "" && e.Name() != path.Base(name) || e.Name() == ".." {
		return errdefs.Errorf(errdefs.ErrInvalid, "the entry %q leads out of its directory", e.Name())
	}
	return nil
}

// openDir opens a directory and nothing else: a pipe that somebody has put in its place would be
// opened for ever.
func openDir(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

// exchange puts what has one name in the place of what has the other, which goes the other way, or
// need not be there. What is new is on the disk before, and its name after it.
func exchange(root *os.Root, fresh, name string) error {
	from, err := openDir(root, path.Dir(fresh))
	if err != nil {
		return err
	}
	defer from.Close()
	if err := unix.Syncfs(int(from.Fd())); err != nil {
		return fmt.Errorf("%s: %w", fresh, err)
	}
	to, err := openDir(root, path.Dir(name))
	if err != nil {
		return err
	}
	defer to.Close()
	rename := func(flags uint) error {
		return unix.Renameat2(int(from.Fd()), path.Base(fresh), int(to.Fd()), path.Base(name), flags)
	}
	err = rename(unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		err = rename(unix.RENAME_NOREPLACE)
	}
	switch {
	case err == nil:
		return flushNames(to)
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS):
		return err
	}
	old := path.Join(path.Dir(fresh), ".old") // the file system cannot do it at once
	if err := root.Rename(name, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Rename(fresh, name); err != nil {
		if berr := root.Rename(old, name); berr != nil && !errors.Is(berr, fs.ErrNotExist) {
			err = errors.Join(err, berr)
		}
		return err
	}
	return flushNames(to)
}

// flushNames brings the names in a directory to the disk: who is told that something is brought back
// finds it after a power cut.
func flushNames(dir *os.File) error {
	err := dir.Sync()
	if errors.Is(err, unix.EINVAL) { // a file system that cannot
		return nil
	}
	return err
}
