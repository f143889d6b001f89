package block

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// resizing can make disks larger.
type resizing struct{ *driver }

// Resize makes the disk larger, and then its file system: at once where it is mounted, else by the
// next mount.
func (d *resizing) Resize(ctx context.Context, name string, size int64) error {
	disk, err := d.volumeOf(ctx, name)
	if err != nil {
		return err
	}
	if size, err = d.t.round(size); err != nil {
		return err
	}
	if size < disk.Size {
		err := errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s that it has, and a disk cannot be made smaller", catalog.Bytes(size), catalog.Bytes(disk.Size))
		return errdefs.Hint(err, "make a smaller volume and copy the data")
	}
	return d.do(ctx, jobResize, name, catalog.Bytes(size).String(), size)
}

// resize is the job.
func (d *driver) resize(ctx context.Context, r *jobs.Run) error {
	var size int64
	if err := r.Load(&size); err != nil {
		return err
	}
	p, ok := d.p.(Resizer)
	if !ok {
		return errdefs.Errorf(errdefs.ErrUnsupported, "%s cannot change the size of a disk", d.t.Kind)
	}
	disk, ok := d.x.volume(r.Object())
	if !ok {
		return errNoVolume
	}
	if err := notMoving(disk); err != nil {
		return err
	}
	if disk.Size < size {
		if !p.Online() && len(disk.Holders) > 0 {
			if err := r.Step("taking the disk off its host", nil); err != nil {
				return err
			}
			if err := d.release(ctx, r, disk); err != nil {
				return errdefs.Hint(err, "unmount it: a disk of "+d.t.Kind+" grows only while no host has it")
			}
		}
		if err := r.Step("making the disk larger", nil); err != nil {
			return err
		}
		_, err := again(ctx, r, just(func(ctx context.Context) error { return p.Resize(ctx, disk, size) }))
		if err != nil {
			return fmt.Errorf("make the disk larger: %w", err)
		}
		err = d.await(ctx, disk.ID, 0, func(now Disk, there bool) (bool, error) {
			disk.Holders = now.Holders
			if there && now.Reason != "" && now.Size < size {
				return true, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud could not make the disk larger: %s", now.Reason)
			}
			return there && now.Size >= size && now.State == Ready, nil
		})
		if err != nil {
			return err
		}
		disk.Size = size
		d.x.change(disk.ID, func(o *Disk) { o.Size = max(o.Size, size) })
	}
	m, ok, err := d.record(r.Object())
	if err != nil || !ok {
		return err
	}
	return d.growMounted(ctx, r, disk, m)
}

// growMounted waits until the machine sees that the disk is larger, and grows what is mounted.
func (d *driver) growMounted(ctx context.Context, r *jobs.Run, disk Disk, m mounted) error {
	if err := r.Step("waiting for the machine to see the new size", nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deviceTime, errdefs.Errorf(errdefs.ErrUnavailable, "the machine does not see the new size of the disk; the file system grows when it is next mounted"))
	defer cancel()
	for n := 0; ; n++ {
		v, err := d.m.find(d.p, disk)
		if err != nil {
			return err
		}
		if v.Size >= disk.Size {
			m.Device = v
			break
		}
		if n%50 == 0 {
			d.m.rescan(v)
		}
		select {
		case <-time.After(devicePoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	at, err := topmost(m.Mountpoint)
	if err != nil || at == nil || !isOf(*at, m.Device) {
		return err
	}
	err = d.growAt(*at, kinds[disk.Tags[tagFS]], m.Device)
	if errors.Is(err, errdefs.ErrDenied) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "the disk is larger; to grow %s while it is mounted is not permitted", disk.Tags[tagFS]),
			"give the daemon the capability CAP_SYS_RESOURCE; without it the file system grows when it is next mounted")
	}
	return err
}

func (d *driver) growAt(at mount.Info, k kind, v Device) error {
	dir, err := at.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := grow(k, dir, v); err != nil {
		return err
	}
	return unix.Syncfs(int(dir.Fd()))
}
