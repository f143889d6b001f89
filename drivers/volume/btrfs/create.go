package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

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
	if err := checkName(name); err != nil {
		return err
	}
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	f := newFacts(name, o, opts)
	if there, err := d.adopt(p, f); there || err != nil {
		return err
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
		if there, aerr := d.adopt(p, f); there || aerr != nil {
			return aerr
		}
	}
	return err
}

func newFacts(name string, o options, opts map[string]string) facts {
	f := facts{Name: name, ID: newID(), Created: time.Now().UTC().Truncate(time.Second), Options: opts}
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
func (d *driver) adopt(p *pool, f facts) (there bool, err error) {
	if _, err := p.facts(f.Name); !errors.Is(err, errdefs.ErrNotFound) {
		return true, err
	}
	fd, err := openDir(p.fd, f.Name)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err == nil {
		defer unix.Close(fd)
		if isSubvol(fd) {
			return true, d.adoptSubvol(p, f, fd)
		}
		if data, err := openDir(fd, dataName); err == nil {
			defer unix.Close(data)
			if isSubvol(data) {
				return true, d.adoptData(p, f, data)
			}
		}
	}
	err = errdefs.Errorf(errdefs.ErrExists, "%s is in the way, and not a volume", d.path+"/"+f.Name)
	return true, errdefs.Hint(err, "choose another name; of what is there, only a subvolume becomes a volume")
}

func (d *driver) adoptData(p *pool, f facts, data int) error {
	if err := adoptLimit(data, &f); err != nil {
		return err
	}
	root, err := p.root()
	if err != nil {
		return d.fail("", err)
	}
	return d.fail("", state.Write(root, f.Name+"/"+factsName, factsVersion, f))
}

// adoptLimit sets the limit of f on a subvolume, or takes that which it has.
func adoptLimit(data int, f *facts) error {
	if f.Size > 0 {
		return limitTo(data, f.Size)
	}
	c, _, err := count(data)
	f.Size = c.limit
	return err
}

// adoptSubvol moves the subvolume into a directory with facts and gives that its name. A
// crash between the two is mended by finishAdoption.
func (d *driver) adoptSubvol(p *pool, f facts, data int) error {
	if err := adoptLimit(data, &f); err != nil {
		return err
	}
	aside, dir, err := p.newAside(adoptKind)
	if err != nil {
		return d.fail("", err)
	}
	defer unix.Close(dir)
	if err = writeFacts(dir, f); err == nil {
		err = unix.Renameat(p.fd, f.Name, dir, dataName)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, factsName, 0)
		_ = unix.Unlinkat(p.fd, aside, unix.AT_REMOVEDIR)
		return d.fail(f.Name, err)
	}
	return d.fail(f.Name, p.publish(aside, f.Name))
}

// build makes the volume of f aside: data makes its subvolume in a directory, o is applied
// to it. Whatever the error, nothing of it is left.
func (d *driver) build(ctx context.Context, p *pool, f facts, data func(dir int) error, o options) (err error) {
	aside, dir, err := p.newAside(newKind)
	if err != nil {
		return d.fail("", err)
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
		return d.classify(err)
	}
	if err := prepare(dir, f.Size, o); err != nil {
		return d.classify(err)
	}
	if err := writeFacts(dir, f); err != nil {
		return d.fail(f.Name+"/"+factsName, err)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	err = p.publish(aside, f.Name)
	if errors.Is(err, unix.EEXIST) {
		return errTaken
	}
	return d.fail(f.Name, err)
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

// newAside makes a hidden directory in which something is built. dir is open, and locked
// (flock(2)) as long as the builder lives: who can lock it too knows that it was left
// behind.
func (p *pool) newAside(kind string) (aside string, dir int, err error) {
	for {
		aside = hidden(kind)
		if err := unix.Mkdirat(p.fd, aside, passMode); err != nil {
			return "", -1, err
		}
		dir, err := openDir(p.fd, aside)
		if errors.Is(err, unix.ENOENT) {
			continue // swept before it was locked
		}
		if err == nil {
			err = unix.Flock(dir, unix.LOCK_EX|unix.LOCK_NB)
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(dir, &st)
		}
		if errors.Is(err, unix.EWOULDBLOCK) || err == nil && st.Nlink == 0 {
			_ = unix.Close(dir) // a sweep has it
			continue
		}
		if err == nil {
			err = unix.Fchmod(dir, passMode)
		}
		if err != nil {
			if dir >= 0 {
				_ = unix.Close(dir)
			}
			_ = unix.Unlinkat(p.fd, aside, unix.AT_REMOVEDIR)
			return "", -1, err
		}
		return aside, dir, nil
	}
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

// publish renames what was built to the name of the volume and brings the name to the disk.
// When that fails, aside has its old name again.
func (p *pool) publish(aside, name string) error {
	err := unix.Renameat2(p.fd, aside, p.fd, name, unix.RENAME_NOREPLACE)
	if err != nil {
		return err
	}
	if err = unix.Fsync(p.fd); err != nil {
		_ = unix.Renameat2(p.fd, name, p.fd, aside, unix.RENAME_NOREPLACE)
	}
	return err
}
