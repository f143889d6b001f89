package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// defaultMode is that of the data directory of a new volume.
const defaultMode = 0o755

// Create makes the volume aside, under a hidden name, and renames it to its own; or it
// adopts what has the name. On return the facts and the name are on the disk.
func (d *driver) Create(ctx context.Context, name string, opts map[string]string) error {
	o, err := d.decode(opts)
	if err != nil {
		return err
	}
	if err := pooldir.CheckName(name); err != nil {
		return err
	}
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	f := facts{Name: name, ID: pooldir.NewID(), Created: time.Now().UTC().Truncate(time.Second), Mountpoint: o.Mountpoint, Options: opts}
	if o.Size != nil {
		f.Size = fileSize(int64(*o.Size))
	}
	if there, err := d.adopt(ctx, p, f); there || err != nil {
		return err
	}
	if err = d.build(ctx, p, f, o); err == nil {
		d.see(name, f, nil)
	}
	if errors.Is(err, errTaken) { // another host was faster
		if there, aerr := d.adopt(ctx, p, f); there || aerr != nil {
			return aerr
		}
	}
	return err
}

// errTaken says that something got the name while the volume was built.
var errTaken = errdefs.Errorf(errdefs.ErrInUse, "its name was taken and freed again meanwhile")

// adopt looks what has the name of f. A volume is taken as it is; a directory with data
// and without facts gets those of f; anything else is in the way.
func (d *driver) adopt(ctx context.Context, p pool, f facts) (there bool, err error) {
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
	var st unix.Stat_t
	if err := unix.Fstatat(p.FD, f.Name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if p.halfMade(f.Name) {
		gone := d.Hidden(pooldir.Gone) // deleted by the next sweep
		return false, d.Fail(f.Name, unix.Renameat(p.FD, f.Name, p.FD, gone))
	}
	root, err := p.Root()
	if err != nil {
		return false, d.Fail("", err)
	}
	top, err := root.Lstat(f.Name)
	if err != nil {
		return false, d.Fail(f.Name, err)
	}
	data, err := root.Lstat(f.Name + "/" + dataName)
	if err != nil || !top.IsDir() || !data.IsDir() || f.Mountpoint != "" {
		err := errdefs.Errorf(errdefs.ErrExists, "%s is in the way, and not a volume", d.Path+"/"+f.Name)
		return true, errdefs.Hint(err, "to make a volume of a directory with data, choose another name and give the directory by -o mountpoint=")
	}
	if err := d.takeIn(ctx, p, f); err != nil {
		return true, d.Fail(f.Name, err)
	}
	f.Created = time.Now().UTC().Truncate(time.Second)
	return true, d.Fail("", state.Write(root, f.Name+"/"+factsName, factsVersion, f))
}

// build makes the volume, or returns [errTaken]. Whatever the error, nothing of it is
// left.
func (d *driver) build(ctx context.Context, p pool, f facts, o options) (err error) {
	aside, dir, err := d.NewAside(p.Dir, pooldir.New, passMode)
	if err != nil {
		return d.Fail("", err)
	}
	defer unix.Close(dir)
	undo := func() {}
	defer func() {
		if err != nil {
			undo()
			if derr := d.remove(context.WithoutCancel(ctx), p.Dir, aside); derr != nil {
				err = fmt.Errorf("%w; and then: %w", err, derr)
			}
		}
	}()
	if o.Mountpoint != "" {
		undo, err = makeExternal(o)
		if err == nil {
			f.MountedAt, err = mount.Of(resolve(f.Mountpoint))
		}
	} else {
		err = d.makeData(ctx, p, dir, f, o)
	}
	if err != nil {
		return pooldir.Classify(err)
	}
	file, err := writeFacts(dir, f)
	if err != nil {
		return d.Fail(f.Name+"/"+factsName, err)
	}
	defer unix.Close(file)
	if err := ctx.Err(); err != nil {
		return err
	}
	// A file system with a journal writes all that was done so far at the first flush, and has
	// nothing left to do at the second; to flush the facts before the rename would be to wait
	// twice. What a power cut then can leave is a name that nobody was told of, with empty facts:
	// see halfMade.
	err = p.Publish(aside, f.Name, file)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return errTaken
	}
	return d.Fail(f.Name, err)
}

// writeFacts writes the facts of a volume that is built in dir, and returns the file.
func writeFacts(dir int, f facts) (file int, err error) {
	data, err := state.Encode(factsVersion, f)
	if err != nil {
		return -1, err
	}
	file, err = unix.Openat(dir, factsName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, factsMode)
	if err != nil {
		return -1, err
	}
	for len(data) > 0 {
		n, err := unix.Write(file, data)
		if err != nil && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(file)
			return -1, err
		}
		data = data[max(n, 0):]
	}
	return file, nil
}

// makeData makes the data directory in the one that is built, and fills it.
func (d *driver) makeData(ctx context.Context, p pool, dir int, f facts, o options) error {
	if err := unix.Mkdirat(dir, dataName, 0o700); err != nil {
		return err
	}
	if err := d.begin(dir, f); err != nil {
		return err
	}
	if o.From == "" && o.Mode == nil {
		if err := unix.Fchmodat(dir, dataName, defaultMode, 0); err != nil || o.UID == nil && o.GID == nil {
			return err
		}
	}
	fd, err := unix.Openat(dir, dataName, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	data := os.NewFile(uintptr(fd), dataName)
	defer data.Close()
	if o.From != "" {
		if err := copyTree(ctx, o.From, data, p.FD); err != nil {
			return fmt.Errorf("copy from %s: %w", o.From, err)
		}
		if err := d.fits(ctx, data, f); err != nil {
			return fmt.Errorf("copy from %s: %w", o.From, err)
		}
	}
	return o.Apply(data)
}
