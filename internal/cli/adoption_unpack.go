package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/unpack"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// adoptMountID is the mount ID under which a volume is mounted while it is unpacked into.
const adoptMountID = "remora-adopt"

// inside calls f with the directory of a volume, which is mounted for as long. Whatever an
// earlier run that was killed has left mounted goes too.
func inside(ctx context.Context, c *control.Client, pool, name string, f func(dir string) error) error {
	req := control.VolumeMountRequest{Pool: pool, Name: name, ID: adoptMountID}
	dir, err := c.Volumes().Mount(ctx, req)
	if err != nil {
		return err
	}
	err = f(dir)
	ctx = context.WithoutCancel(ctx)
	v, ierr := c.Volumes().Inspect(ctx, control.VolumeRequest{Pool: pool, Name: name})
	if ierr != nil {
		v.Mounts = []control.Mount{{ID: adoptMountID, Count: 1}}
	}
	for _, m := range v.Mounts {
		for range m.Count {
			if m.ID != adoptMountID {
				break
			}
			if uerr := c.Volumes().Unmount(ctx, req); uerr != nil && err == nil {
				err = uerr
			}
		}
	}
	return err
}

// lookInside finds out what is in a volume that is there already: one that is empty is filled,
// and one that was not finished is finished.
func (a *app) lookInside(ctx context.Context, c *control.Client, r *adoption, v control.Volume) {
	state, same := unpack.Full, false
	err := inside(ctx, c, v.Pool, v.Name, func(dir string) (err error) {
		if state, err = unpack.Look(dir); err == nil && state == unpack.Full {
			bar := a.bar()
			defer bar.end()
			same, err = unpack.Same(ctx, r.source.Archive, r.source.Path, dir, a.told(bar, r))
		}
		return err
	})
	users := 0
	for _, m := range v.Mounts {
		if m.ID != adoptMountID {
			users++
		}
	}
	switch {
	case err != nil:
		r.fail(err)
	case same:
		r.Result = adoptSame
	case state == unpack.Full:
		r.fail(errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "the pool has a volume of this name, with other data in it"),
			"give it another name: --rename "+r.Old+"=NEW"))
	case users > 0:
		r.fail(errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "it is mounted %d times", users), "stop the containers that have it"))
	}
}

func (a *app) told(b *bar, r *adoption) unpack.Progress {
	return func(done, total int64) { b.show(control.Progress{Object: r.Name, Done: done, Total: total}) }
}

// unpack makes the volume, or takes the empty one that is there, and unpacks into it. When that
// fails, a volume that was made for it is gone again.
func (a *app) unpack(ctx context.Context, c *control.Client, r *adoption, pool string) {
	_, err := c.Volumes().Inspect(ctx, control.VolumeRequest{Pool: pool, Name: r.Name})
	made := errors.Is(err, errdefs.ErrNotFound)
	if err != nil && !made {
		r.fail(err)
		return
	}
	if _, err = c.Volumes().Create(ctx, control.VolumeCreateRequest{Pool: pool, Name: r.Name}); err != nil {
		r.fail(err)
		return
	}
	a.sayf("%s: unpacking %s\n", r.Name, r.From)
	bar := a.bar()
	var done unpack.Result
	err = inside(ctx, c, pool, r.Name, func(dir string) (err error) {
		done, err = unpack.Fill(ctx, r.source.Archive, r.source.Path, dir, a.told(bar, r))
		return err
	})
	bar.end()
	if err != nil {
		if made && !errors.Is(err, errdefs.ErrExists) { // what has data was not made for this
			rerr := c.Volumes().Remove(context.WithoutCancel(ctx), control.VolumeRemoveRequest{Pool: pool, Name: r.Name, Purge: true})
			if rerr != nil {
				err = fmt.Errorf("%w; and then: %w", err, rerr)
			}
		}
		r.fail(err)
		return
	}
	r.Result = adoptMade
	a.sayf("%s: %d files, %s\n", r.Name, done.Files, amount(done.Bytes))
	if done.Skipped > 0 {
		a.sayf("%s: %d devices were left out\n", r.Name, done.Skipped)
	}
}
