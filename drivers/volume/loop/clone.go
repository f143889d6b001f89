package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Clone makes a volume with a copy of an image, which shares its blocks where the pool can.
// Where it cannot, the volume must not be mounted meanwhile.
func (d *driver) Clone(ctx context.Context, name, from, snapshot string, opts map[string]string) error {
	if err := pooldir.CheckName(name); err != nil {
		return err
	}
	p, was, source, err := d.volume(ctx, from)
	if err != nil {
		return err
	}
	defer p.close()
	defer source.Close()
	if snapshot != "" {
		if source, err = d.snapshotImage(p, from, snapshot); err != nil {
			return err
		}
		defer source.Close()
	}
	fi, err := source.Stat()
	if err != nil {
		return d.Fail(from, err)
	}
	m, err := decodeClone(was, fi.Size(), opts)
	if err != nil {
		return err
	}
	if _, err := p.Lstat(name); err == nil {
		return errdefs.Errorf(errdefs.ErrExists, "there is something of this name")
	}
	f := facts{Name: name, ID: pooldir.NewID(), Created: time.Now().UTC().Truncate(time.Second), FS: was.FS, Whole: was.Whole, Mount: m.Mount, Options: opts}
	return d.build(ctx, p, f, func(image *os.File) error {
		err := d.frozen(ctx, source, func() error { return share(image, source) })
		if errors.Is(cannotShare(err), errdefs.ErrUnsupported) {
			err = copyUnused(ctx, image, source)
		}
		if err != nil {
			return d.Fail(from, err)
		}
		if err := extend(image, fi.Size(), m.size, false); err != nil {
			return d.Fail(name, err)
		}
		inside, err := d.enter(ctx, name, image, f, nil)
		if err != nil {
			return err
		}
		defer inside.close()
		if err := inside.growUnmounted(ctx, filesystem.MinGap); err != nil {
			return d.Fail(name, err)
		}
		return d.Fail(name, inside.own(f.dir(), m.Owner))
	})
}

// decodeClone reads the options of a clone. What they leave open is as in the volume that it is
// made of, but for room that is reserved: the two share it.
func decodeClone(was facts, size int64, opts map[string]string) (made, error) {
	o, err := catalog.DecodeOptions[options](opts)
	if err != nil {
		return made{}, err
	}
	m := made{options: o, kind: kinds[was.FS], size: size, sparse: true}
	if o.FS != nil && *o.FS != was.FS {
		return m, errdefs.Errorf(errdefs.ErrInvalid, `option "fs": what is cloned is %s, not %s`, was.FS, *o.FS)
	}
	if o.Sparse != nil && !*o.Sparse {
		return m, errdefs.Errorf(errdefs.ErrInvalid, `option "sparse": a clone cannot have room of its own reserved`)
	}
	if o.Written != nil && *o.Written {
		return m, errdefs.Errorf(errdefs.ErrInvalid, `option "written": a clone shares what is written`)
	}
	if o.Size != nil {
		if m.size = int64(*o.Size); roundUp(m.size) < size {
			return m, errdefs.Errorf(errdefs.ErrInvalid, `option "size": %s is below the %s of what is cloned`, *o.Size, catalog.Bytes(size))
		}
	}
	if o.Mount == nil {
		m.Mount = was.Mount
	}
	return m, m.check()
}

// copyUnused copies an image that is not mounted, and keeps it from being mounted meanwhile.
func copyUnused(ctx context.Context, image, source *os.File) error {
	if err := released(ctx, source); err != nil {
		return errdefs.Hint(err, "unmount it, or put the pool on xfs or btrfs, where a volume can be cloned while it is written to")
	}
	if err := copySparse(ctx, image, source); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return nil
}
