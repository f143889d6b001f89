package loop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// defaultMode is that of the data directory of a new volume.
const defaultMode = 0o755

// Create makes the volume aside, under a hidden name, and renames it to its own; or it adopts
// what has the name. On return all of it is on the disk.
func (d *driver) Create(ctx context.Context, name string, opts map[string]string) error {
	m, err := d.decode(opts)
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
	defer p.close()
	f := facts{Name: name, ID: pooldir.NewID(), Created: time.Now().UTC().Truncate(time.Second), FS: m.kind.Name, Reserved: !m.sparse, Written: m.written, Mount: m.Mount, Options: opts}
	if there, err := d.adopt(ctx, p, f, m); there || err != nil {
		return err
	}
	err = d.build(ctx, p, f, func(image *os.File) error { return d.newImage(ctx, image, f, m) })
	if errors.Is(err, errTaken) { // another host was faster
		if there, aerr := d.adopt(ctx, p, f, m); there || aerr != nil {
			return aerr
		}
	}
	return err
}

// errTaken says that something got the name while the volume was built.
var errTaken = errdefs.Errorf(errdefs.ErrExists, "there is something else of this name")

// build makes a volume with an image that fill makes of an empty file, or returns [errTaken].
// Whatever the error, nothing of it is left.
func (d *driver) build(ctx context.Context, p pool, f facts, fill func(image *os.File) error) (err error) {
	aside, fd, err := d.NewAside(p.dir, pooldir.New, 0o700)
	if err != nil {
		return d.Fail("", err)
	}
	dir := os.NewFile(uintptr(fd), aside)
	defer dir.Close()
	defer func() {
		if err != nil {
			if rerr := p.RemoveAll(aside); rerr != nil {
				err = fmt.Errorf("%w; and then: %w", err, rerr)
			}
		}
	}()
	image, err := p.OpenFile(aside+"/"+imageName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d.Fail("", err)
	}
	defer image.Close()
	if err := fill(image); err != nil {
		return err
	}
	if err := image.Sync(); err != nil {
		return d.Fail(f.Name, err)
	}
	if err := state.Create(p.Root, aside+"/"+factsName, factsVersion, f); err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		return d.Fail(f.Name, err)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	err = p.dir.Publish(aside, f.Name)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return errTaken
	}
	return d.Fail(f.Name, err)
}

// newImage makes a file system with a data directory in an empty file.
func (d *driver) newImage(ctx context.Context, image *os.File, f facts, m made) error {
	if err := extend(image, 0, m.size, false); err != nil {
		return d.Fail(f.Name, err)
	}
	v, err := attach(ctx, image)
	if err != nil {
		return d.Fail(f.Name, err)
	}
	defer v.close()
	if err := m.kind.Make(ctx, onDevice(v.path, f.Name, f.Reserved)); err != nil {
		return err
	}
	if f.Reserved {
		if err := fill(ctx, image, m); err != nil {
			return d.Fail(f.Name, err)
		}
	}
	inside, err := d.enter(ctx, f.Name, image, f, nil)
	if err != nil {
		return err
	}
	defer inside.close()
	top, err := inside.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	if err := unix.Mkdirat(int(top.Fd()), dataName, 0o700); err != nil {
		return d.Fail(f.Name, err)
	}
	if m.Mode == nil {
		m.Mode = new(fs.FileMode(defaultMode))
	}
	if err := inside.own(dataName, m.Owner); err != nil {
		return d.Fail(f.Name, err)
	}
	return d.Fail(f.Name, unix.Syncfs(int(top.Fd())))
}

// fill reserves the room of an image in which there is nothing but what mkfs made. mkfs has given
// the journal blocks, and not written them: that is made up for, as each fsync would else have a
// new block to commit outside, until the journal has been gone through once.
func fill(ctx context.Context, image *os.File, m made) error {
	err := writeOut(ctx, image, 0, m.size)
	if err != nil && !errors.Is(err, errdefs.ErrUnsupported) {
		return err
	}
	if err := reserve(image, 0, m.size); err != nil || !m.written {
		return err
	}
	return writeOut(ctx, image, 0, m.size)
}

// own has the directory that a container gets belong to whom it was asked for.
func (inside *entered) own(dir string, o catalog.Owner) error {
	if !o.Given() {
		return nil
	}
	data, err := inside.Open(dir)
	if err != nil {
		return err
	}
	defer data.Close()
	return o.Apply(data)
}

// extend makes a file longer, and where it is to be reserved has the blocks for it before
// it is; when it fails the file is as it was.
func extend(image *os.File, from, to int64, reserved bool) error {
	if reserved {
		if err := reserve(image, from, to); err != nil {
			_ = image.Truncate(from) // frees what was had
			return err
		}
	}
	err := image.Truncate(to)
	if errors.Is(err, unix.EFBIG) {
		err = errdefs.Errorf(errdefs.ErrInvalid, "size %d: larger than a file of the pool can be", to)
	}
	return err
}

// adopt looks what has the name of f. A volume is taken as it is; an image without facts gets
// those of f, with what its file system turns out to be; anything else is in the way.
func (d *driver) adopt(ctx context.Context, p pool, f facts, m made) (there bool, err error) {
	is, err := p.facts(f.Name)
	if err == nil {
		if m.FS != nil && is.FS != *m.FS {
			return true, errdefs.Errorf(errdefs.ErrExists, "its file system is %s, not %s", is.FS, *m.FS)
		}
		return true, nil
	}
	if !errors.Is(err, errdefs.ErrNotFound) {
		return true, err
	}
	if _, err := p.Lstat(f.Name); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var k kind
	image, err := p.image(f.Name + "/" + imageName)
	ok := err == nil
	if ok {
		defer image.Close()
		k, ok = filesystem.Identify(image)
	}
	if !ok {
		err := errdefs.Errorf(errdefs.ErrExists, "%s is in the way, and not a volume", d.Path+"/"+f.Name)
		return true, errdefs.Hint(err, "to make a volume of an image, put it there as the file "+imageName+", with ext4, xfs or btrfs in it")
	}
	if m.FS != nil && k.Name != *m.FS {
		return true, errdefs.Errorf(errdefs.ErrExists, "the file system in its image is %s, not %s", k.Name, *m.FS)
	}
	f.FS, f.Reserved, f.Written = k.Name, false, false
	f.Mount = slices.DeleteFunc(f.Mount, func(option string) bool { return !k.Takes(option) })
	inside, err := d.enter(ctx, f.Name, image, f, nil)
	if err != nil {
		return true, err
	}
	defer inside.close()
	if f.Whole, err = inside.foreign(); err != nil {
		return true, d.Fail(f.Name, err)
	}
	return true, state.Write(p.Root, f.Name+"/"+factsName, factsVersion, f)
}

// foreign tells whether a file system was not made here: it has more than the data directory
// in it, and what mkfs puts there.
func (inside *entered) foreign() (bool, error) {
	top, err := inside.Open(".")
	if err != nil {
		return false, err
	}
	defer top.Close()
	entries, err := top.ReadDir(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	ours := false
	for _, e := range entries {
		switch {
		case e.Name() == dataName && e.IsDir():
			ours = true
		case e.Name() != "lost+found":
			return true, nil
		}
	}
	return !ours, nil
}

// unused makes sure that neither the image of a volume nor one of its snapshots is mounted.
func (d *driver) unused(ctx context.Context, opened *pooldir.Dir, dir string) error {
	p, err := in(opened)
	if err != nil {
		return d.Fail("", err)
	}
	images := []string{dir + "/" + imageName}
	entries, err := p.readDir(dir + "/" + snapshotsName)
	if err != nil {
		return d.Fail(dir, err)
	}
	for _, e := range entries {
		if _, ok := snapshotOf(e.Name(), imageSuffix); ok {
			images = append(images, dir+"/"+snapshotsName+"/"+e.Name())
		}
	}
	for _, path := range images {
		image, err := p.image(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return d.Fail(path, err)
		}
		err = released(ctx, image)
		_ = image.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// released makes sure that an image is held by nobody, and by nobody else until it is closed.
func released(ctx context.Context, image *os.File) error {
	v, err := find(image)
	if err != nil {
		return err
	}
	if v != nil {
		at, err := mountsOf(v.path)
		v.close()
		if err != nil {
			return err
		}
		if len(at) > 0 {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "it is mounted on %s", at[0].Mountpoint), "umount "+at[0].Mountpoint)
		}
		if err := settle(ctx, image); err != nil {
			return err
		}
	}
	return lock(ctx, image)
}

// readDir returns what is in a directory, which may be missing.
func (p pool) readDir(name string) ([]fs.DirEntry, error) {
	dir, err := p.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.ReadDir(-1)
}
