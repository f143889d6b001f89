package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// defaultMode is that of the data directory of a new volume.
const defaultMode = 0o755

// Create makes the volume aside, under a hidden name, and renames it to its own; or it
// adopts what has the name. On return the facts are on the disk: one flush for their
// bytes and one for the name, which the journal of ext4, xfs and btrfs orders after
// everything that was done before.
func (d *driver) Create(ctx context.Context, name string, opts map[string]string) error {
	o, err := d.decode(opts)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	p, err := d.pool()
	if err != nil {
		return err
	}
	defer p.close()
	root, err := p.root()
	if err != nil {
		return d.fail("", err)
	}
	f := facts{Name: name, ID: newID(), Created: time.Now().UTC().Truncate(time.Second), Mountpoint: o.Mountpoint, Options: opts}
	if there, err := d.adopt(p, root, f); there || err != nil {
		return err
	}
	err = d.build(ctx, p, root, f, o)
	if errors.Is(err, errTaken) { // another host was faster
		if there, aerr := d.adopt(p, root, f); there || aerr != nil {
			return aerr
		}
	}
	return err
}

// errTaken says that something got the name while the volume was built.
var errTaken = errdefs.Errorf(errdefs.ErrInUse, "its name was taken and freed again meanwhile")

// adopt looks what has the name of f. A volume is taken as it is; a directory with data
// and without facts gets those of f; anything else is in the way.
func (d *driver) adopt(p *pool, root *os.Root, f facts) (there bool, err error) {
	is, err := p.facts(f.Name)
	if err == nil {
		if f.Mountpoint != "" && f.Mountpoint != is.Mountpoint {
			return true, errdefs.Errorf(errdefs.ErrExists, "its data lies at %s, not at %s", d.mountpoint(f.Name, is), f.Mountpoint)
		}
		return true, nil
	}
	if !errors.Is(err, errdefs.ErrNotFound) {
		return true, err
	}
	top, err := root.Lstat(f.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, d.fail(f.Name, err)
	}
	data, err := root.Lstat(f.Name + "/" + dataName)
	if err != nil || !top.IsDir() || !data.IsDir() || f.Mountpoint != "" {
		err := errdefs.Errorf(errdefs.ErrExists, "%s is in the way, and not a volume", d.path+"/"+f.Name)
		return true, errdefs.Hint(err, "to make a volume of a directory with data, choose another name and give the directory by -o mountpoint=")
	}
	f.Created = time.Now().UTC().Truncate(time.Second)
	return true, d.fail("", state.Write(root, f.Name+"/"+factsName, factsVersion, f))
}

// build makes the volume, or returns [errTaken]. Whatever the error, nothing of it is
// left.
func (d *driver) build(ctx context.Context, p *pool, root *os.Root, f facts, o options) (err error) {
	aside, lock, err := d.newAside(p)
	if err != nil {
		return d.fail("", err)
	}
	defer unix.Close(lock)
	undo := func() {}
	defer func() {
		if err != nil {
			undo()
			if derr := deleteTree(context.WithoutCancel(ctx), p.fd, aside); derr != nil {
				err = fmt.Errorf("%w; and then: %w", err, derr)
			}
		}
	}()
	if o.Mountpoint != "" {
		undo, err = makeExternal(o)
	} else {
		err = d.makeData(ctx, p, root, aside, o)
	}
	if err != nil {
		return d.classify(err)
	}
	if err := state.Create(root, aside+"/"+factsName, factsVersion, f); err != nil {
		return d.fail("", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = unix.Renameat2(p.fd, aside, p.fd, f.Name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // NFS; a plain rename replaces an empty directory, no other
		err = unix.Renameat(p.fd, aside, p.fd, f.Name)
	}
	switch {
	case err == nil:
		undo = func() {} // the volume is there, whatever becomes of its flush
		return d.fail("", p.dir.Sync())
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY):
		return errTaken
	}
	return d.fail(f.Name, err)
}

// newAside makes the hidden directory in which a volume is built. lock is the directory,
// opened and locked (flock(2)) as long as the builder lives: who can lock it too knows
// that it was left behind.
func (d *driver) newAside(p *pool) (aside string, lock int, err error) {
	for {
		aside = d.hidden(newKind)
		if err := unix.Mkdirat(p.fd, aside, passMode); err != nil {
			return "", -1, err
		}
		lock, err := unix.Openat(p.fd, aside, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue // swept before it was locked
		}
		if err != nil {
			_ = unix.Unlinkat(p.fd, aside, unix.AT_REMOVEDIR)
			return "", -1, err
		}
		_ = unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB) // some servers cannot; the age decides there
		var st unix.Stat_t
		if err := unix.Fstat(lock, &st); err == nil && st.Nlink == 0 {
			_ = unix.Close(lock)
			continue
		}
		if err := unix.Fchmod(lock, passMode); err != nil {
			_ = unix.Close(lock)
			_ = unix.Unlinkat(p.fd, aside, unix.AT_REMOVEDIR)
			return "", -1, err
		}
		return aside, lock, nil
	}
}

// makeData makes the data directory in the one that is built, and fills it.
func (d *driver) makeData(ctx context.Context, p *pool, root *os.Root, aside string, o options) error {
	if err := root.Mkdir(aside+"/"+dataName, 0o700); err != nil {
		return err
	}
	data, err := root.Open(aside + "/" + dataName)
	if err != nil {
		return err
	}
	defer data.Close()
	if o.From != "" {
		if err := copyTree(ctx, o.From, data, p.fd); err != nil {
			return fmt.Errorf("copy from %s: %w", o.From, err)
		}
	} else if o.Mode == nil {
		o.Mode = new(fs.FileMode(defaultMode))
	}
	return o.apply(data)
}

// makeExternal makes sure of the directory elsewhere. undo removes it again if it was
// made here, and is still empty.
func makeExternal(o options) (undo func(), err error) {
	undo = func() {}
	made, err := mkdirAll(o.Mountpoint)
	if err != nil {
		return undo, fmt.Errorf("mountpoint %s: %w", o.Mountpoint, err)
	}
	undo = func() {
		for _, dir := range made {
			_ = unix.Rmdir(dir)
		}
	}
	data, err := os.OpenFile(o.Mountpoint, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return undo, fmt.Errorf("mountpoint %s: %w", o.Mountpoint, err)
	}
	defer data.Close()
	return undo, o.apply(data)
}

// mkdirAll makes path and the directories above it, and returns those that it made,
// the deepest first.
func mkdirAll(path string) (made []string, err error) {
	var missing []string
	for dir := path; ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err == nil && !fi.IsDir() || errors.Is(err, unix.ENOTDIR) {
			return nil, errdefs.As(errdefs.ErrInvalid, unix.ENOTDIR)
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	return missing, os.MkdirAll(path, defaultMode)
}

// apply sets owner and mode of the data directory as far as they were given.
func (o options) apply(data *os.File) error {
	owner := func(id *uint32) int {
		if id == nil {
			return -1
		}
		return int(*id)
	}
	if o.UID != nil || o.GID != nil {
		if err := data.Chown(owner(o.UID), owner(o.GID)); err != nil {
			return err
		}
	}
	if o.Mode != nil {
		return data.Chmod(*o.Mode)
	}
	return nil
}
