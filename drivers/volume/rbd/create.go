package rbd

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Create makes an image, empty or as a clone of a snapshot. Whoever was faster has made it.
func (p *provider) Create(ctx context.Context, s block.Spec) (d block.Disk, err error) {
	err = p.do(ctx, "Create", func(ctx context.Context) error {
		d, err = p.create(ctx, s)
		return err
	})
	return d, err
}

func (p *provider) create(ctx context.Context, s block.Spec) (block.Disk, error) {
	image := imageName(s.Tags)
	args, e, err := p.c.layout(s)
	if err != nil {
		return block.Disk{}, err
	}
	w := written{Made: time.Now().UTC().Truncate(time.Second), Tags: s.Tags}
	fresh := true
	if s.Snapshot == nil {
		_, err = p.rbd(ctx, append([]string{"create", p.spec(image), "--size", bytesOf(s.Size)}, args...)...)
	} else {
		w.Flatten = *e.Flatten
		var from string
		if from, err = p.snapshotSpec(ctx, s.Snapshot.ID); err == nil {
			_, err = p.rbd(ctx, append([]string{"clone", "--rbd-default-clone-format", "2", from, p.spec(image)}, args...)...)
		}
		if status(err) == enoent {
			err = errdefs.Errorf(errdefs.ErrInvalid, "snapshot %s: there is none in pool %s", s.Snapshot.ID, p.c.Pool)
		}
	}
	if status(err) == syscall.EEXIST {
		fresh, err = false, nil
	}
	if err != nil {
		return block.Disk{}, err
	}
	i, err := p.info(ctx, image)
	if err != nil {
		return block.Disk{}, err
	}
	if i.Size < s.Size && (s.Snapshot != nil) {
		if _, err := p.rbd(ctx, "resize", p.spec(image), "--size", bytesOf(s.Size), "--no-progress"); err != nil {
			return block.Disk{}, err
		}
		i.Size = s.Size
	}
	if i.Size > s.Size && s.Size != 0 && s.Snapshot != nil && fresh {
		_, err := p.rbd(ctx, "rm", p.spec(image), "--no-progress")
		return block.Disk{}, errors.Join(errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s of the snapshot", catalog.Bytes(s.Size), catalog.Bytes(i.Size)), err)
	}
	if fresh && s.Snapshot == nil {
		err = p.writeNew(ctx, image, w)
	} else {
		err = p.write(ctx, image, w)
	}
	if err != nil {
		return block.Disk{}, err
	}
	if fresh {
		return p.disk(w, i), nil
	}
	d, ok, err := p.look(ctx, image)
	if err == nil && !ok {
		err = errdefs.Errorf(errdefs.ErrExists, "image %s is there, and is not this volume's", image)
	}
	return d, err
}

// Delete removes an image that nobody has. One whose snapshots live on in clones goes to the
// cluster's trash, and is removed from there with the last of them.
func (p *provider) Delete(ctx context.Context, d block.Disk) error {
	return p.do(ctx, "Delete", func(ctx context.Context) error {
		err := p.delete(ctx, d)
		if errors.Is(err, errdefs.ErrNotFound) {
			p.names.Delete(d.ID)
			return nil
		}
		return err
	})
}

func (p *provider) delete(ctx context.Context, d block.Disk) error {
	image, err := p.imageOf(ctx, d)
	if err != nil {
		return err
	}
	i, err := p.info(ctx, image)
	if err != nil {
		return p.missing(d.ID, err)
	}
	if i.ID != d.ID {
		p.names.Delete(d.ID)
		if image, err = p.nameOf(ctx, d.ID); err != nil {
			return err
		}
	}
	locks, err := p.locks(ctx, image)
	if err != nil {
		return p.missing(d.ID, err)
	}
	if len(locks) > 0 {
		return errdefs.Errorf(errdefs.ErrInUse, "image %s is locked by host %s", image, locks[0].holder().Host)
	}
	err = p.long(ctx, "rm "+d.ID, "rm", p.spec(image), "--no-progress")
	if status(err) == syscall.ENOTEMPTY {
		var snaps []snap
		if snaps, err = ask[[]snap](ctx, p.cluster, "snap", "ls", p.spec(image)); err == nil {
			if len(snaps) > 0 {
				return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "image %s has the snapshot %q, which was not made by Remora", image, snaps[0].Name), "rbd snap rm "+p.spec(image)+"@"+snaps[0].Name)
			}
			_, err = p.rbd(ctx, "trash", "mv", p.spec(image))
		}
	}
	if err != nil {
		return p.missing(d.ID, err)
	}
	p.names.Delete(d.ID)
	if i.Parent != nil && i.Parent.Trash { // which may have been kept for this image alone
		err := p.long(ctx, "trash rm "+i.Parent.ID, append([]string{"trash", "rm", i.Parent.ID, "--no-progress"}, p.inPool()...)...)
		if st := status(err); err != nil && st != syscall.ENOTEMPTY && st != syscall.EBUSY && st != enoent {
			return err
		}
	}
	return nil
}

// Online is true: an image can grow while a host has it.
func (p *provider) Online() bool { return true }

// Resize makes an image larger, and tells the device of this host.
func (p *provider) Resize(ctx context.Context, d block.Disk, size int64) error {
	return p.do(ctx, "Resize", func(ctx context.Context) error {
		image, err := p.imageOf(ctx, d)
		if err != nil {
			return err
		}
		i, err := p.info(ctx, image)
		if err != nil {
			return p.missing(d.ID, err)
		}
		if i.Size < size {
			if _, err := p.rbd(ctx, "resize", p.spec(image), "--size", bytesOf(size), "--no-progress"); err != nil {
				return p.missing(d.ID, err)
			}
		}
		if a := p.attachment(d.ID); a != nil {
			return p.wayOf(a).grow(ctx, a)
		}
		return nil
	})
}
