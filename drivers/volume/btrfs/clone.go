package btrfs

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// source opens the data of a volume, or of its snapshot if that is not empty.
func (d *driver) source(p pool, name, snap string) (fd int, err error) {
	if snap == "" {
		return p.data(name)
	}
	fd, err = p.openSnapshot(name, snap)
	if err != nil && !errors.Is(err, errNoSnapshot) {
		err = d.Fail(name+"/"+snapshotsName+"/"+snap, err)
	}
	return fd, err
}

// Clone makes the volume as Create does, of a snapshot that can be written to. The limit
// and the options that are not given are those of the volume it comes from.
func (d *driver) Clone(ctx context.Context, name, from, snap string, opts map[string]string) error {
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
	origin, err := p.facts(from)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if unix.Fstatat(p.FD, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return errTaken
	}
	src, err := d.source(p, from, snap)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	all := maps.Clone(origin.Options)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, opts)
	f := newFacts(name, o, all)
	if o.Size == nil {
		f.Size = origin.Size
	}
	if f.Size > 0 {
		if err := d.counting(ctx, p.FD); err != nil {
			return err
		}
	}
	return d.build(ctx, p, f, func(dir int) error {
		if err := snapshot(dir, dataName, src, false); err != nil || o.Size == nil {
			return err
		}
		data, err := openDir(dir, dataName)
		if err != nil {
			return err
		}
		defer unix.Close(data)
		return fits(data, f.Size)
	}, o)
}

// Rollback makes a snapshot of the snapshot aside, that can be written to, and exchanges it
// for the data (renameat2(2), RENAME_EXCHANGE). At any time the data is one or the other;
// the old one lies aside then and is destroyed, after a crash by the next sweep.
func (d *driver) Rollback(ctx context.Context, name, snap string) error {
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	f, err := p.facts(name)
	if err != nil {
		return err
	}
	if err := p.NothingMounted(name); err != nil {
		return err
	}
	unlock, err := d.lock(ctx) // the snapshot must stay
	if err != nil {
		return err
	}
	defer unlock()
	src, err := d.source(p, name, snap)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	if snap == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "no snapshot given")
	}
	aside, dir, err := d.NewAside(p.Dir, pooldir.New, passMode)
	if err != nil {
		return d.Fail("", err)
	}
	defer unix.Close(dir)
	err = snapshot(dir, dataName, src, false)
	if err == nil {
		err = d.holdIn(ctx, dir, name, f.Size)
	}
	if err == nil {
		err = unix.Renameat2(dir, dataName, p.FD, name+"/"+dataName, unix.RENAME_EXCHANGE)
	}
	if err == nil {
		err = p.Sync(name)
	}
	if derr := p.demolish(context.WithoutCancel(ctx), aside); derr != nil && err == nil {
		d.Sweep(ctx, []string{aside})
	}
	if err != nil {
		return pooldir.Classify(fmt.Errorf("put the snapshot in place of the data: %w", err))
	}
	return nil
}
