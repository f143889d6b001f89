package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// defaultMode is that of the data directory of a new volume.
const defaultMode = 0o755

// Create makes the volume aside, under a hidden name, and renames it to its own; or it
// adopts what has the name. On return the facts and the name are on the disk.
func (d *driver) Create(ctx context.Context, name string, opts map[string]string) error {
	o, err := decode(opts)
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
	f := newFacts(name, o, opts)
	if there, err := d.adopt(ctx, p, f); there || err != nil {
		return err
	}
	if f.Size > 0 {
		if err := d.counting(ctx, p.FD); err != nil {
			return err
		}
	}
	err = d.build(ctx, p, f, func(dir int) error {
		if err := subvolCreate(dir, dataName); err != nil {
			return err
		}
		if o.Mode == nil {
			mode := os.FileMode(defaultMode)
			o.Mode = &mode
		}
		return nil
	}, o)
	if errors.Is(err, errTaken) { // another process was faster
		if there, aerr := d.adopt(ctx, p, f); there || aerr != nil {
			return aerr
		}
	}
	return err
}

func newFacts(name string, o options, opts map[string]string) facts {
	f := facts{Name: name, ID: pooldir.NewID(), Created: time.Now().UTC().Truncate(time.Second), Options: opts}
	if o.Size != nil {
		f.Size = int64(*o.Size)
	}
	return f
}

// errTaken says that something got the name while the volume was built.
var errTaken = errdefs.Errorf(errdefs.ErrExists, "something has the name")

// adopt looks what has the name of f. A volume is taken as it is; a subvolume, or a
// directory with one that is called data, becomes a volume with the facts of f; anything
// else is in the way.
func (d *driver) adopt(ctx context.Context, p pool, f facts) (there bool, err error) {
	if _, err := p.facts(f.Name); !errors.Is(err, errdefs.ErrNotFound) {
		return true, err
	}
	fd, err := openDir(p.FD, f.Name)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err == nil {
		defer unix.Close(fd)
		if isSubvol(fd) {
			return true, d.adoptSubvol(ctx, p, f, fd)
		}
		if data, err := openDir(fd, dataName); err == nil {
			defer unix.Close(data)
			if isSubvol(data) {
				return true, d.adoptData(ctx, p, f, data)
			}
		}
	}
	err = errdefs.Errorf(errdefs.ErrExists, "%s is in the way, and not a volume", d.Path+"/"+f.Name)
	return true, errdefs.Hint(err, "choose another name; of what is there, only a subvolume becomes a volume")
}

func (d *driver) adoptData(ctx context.Context, p pool, f facts, data int) error {
	if err := d.adoptLimit(ctx, data, &f); err != nil {
		return err
	}
	root, err := p.Root()
	if err != nil {
		return d.Fail("", err)
	}
	return d.Fail("", state.Write(root, f.Name+"/"+factsName, factsVersion, f))
}

// adoptLimit sets the limit of f on a subvolume, or takes that which it has.
func (d *driver) adoptLimit(ctx context.Context, data int, f *facts) error {
	if f.Size > 0 {
		if err := d.counting(ctx, data); err != nil {
			return err
		}
		return limitTo(data, f.Size)
	}
	c, _, err := count(data)
	f.Size = c.limit
	return err
}

// adoptSubvol moves the subvolume into a directory with facts and gives that its name. A
// crash between the two is mended by finishAdoption.
func (d *driver) adoptSubvol(ctx context.Context, p pool, f facts, data int) error {
	if err := d.adoptLimit(ctx, data, &f); err != nil {
		return err
	}
	aside, dir, err := d.NewAside(p.Dir, pooldir.Adopt, passMode)
	if err != nil {
		return d.Fail("", err)
	}
	defer unix.Close(dir)
	if err = writeFacts(dir, f); err == nil {
		err = unix.Renameat(p.FD, f.Name, dir, dataName)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, factsName, 0)
		_ = unix.Unlinkat(p.FD, aside, unix.AT_REMOVEDIR)
		return d.Fail(f.Name, err)
	}
	return d.Fail(f.Name, p.Publish(aside, f.Name))
}

// build makes the volume of f aside: data makes its subvolume in a directory, o is applied
// to it. Whatever the error, nothing of it is left.
func (d *driver) build(ctx context.Context, p pool, f facts, data func(dir int) error, o options) (err error) {
	aside, dir, err := d.NewAside(p.Dir, pooldir.New, passMode)
	if err != nil {
		return d.Fail("", err)
	}
	defer unix.Close(dir)
	defer func() {
		if err != nil {
			if derr := p.demolish(context.WithoutCancel(ctx), aside); derr != nil {
				err = fmt.Errorf("%w; and then: %w", err, derr)
			}
		}
	}()
	if err := data(dir); err != nil {
		return pooldir.Classify(err)
	}
	if err := prepare(dir, f.Size, o); err != nil {
		return pooldir.Classify(err)
	}
	if err := writeFacts(dir, f); err != nil {
		return d.Fail(f.Name+"/"+factsName, err)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	err = p.Publish(aside, f.Name)
	if errors.Is(err, unix.EEXIST) {
		return errTaken
	}
	return d.Fail(f.Name, err)
}

// prepare gives the data in a directory its limit, and what o says.
func prepare(dir int, size int64, o options) error {
	fd, err := openDir(dir, dataName)
	if err != nil {
		return err
	}
	data := os.NewFile(uintptr(fd), dataName)
	defer data.Close()
	if err := limitTo(fd, size); err != nil {
		return err
	}
	return o.apply(data)
}

// writeFacts writes the facts of a volume that is built in dir, and brings them to the disk.
func writeFacts(dir int, f facts) error {
	data, err := state.Encode(factsVersion, f)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir, factsName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, factsMode)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), factsName)
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}
