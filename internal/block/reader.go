package block

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// readers is what [tagTemp] says of a disk that is made to read a snapshot, before the host.
const reader = "reader "

// OpenSnapshot makes a disk of the snapshot, and mounts it for reading.
func (d *snapshotting) OpenSnapshot(ctx context.Context, name, snapshot, target string) (string, error) {
	if !filepath.IsAbs(target) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "target %q: not an absolute path", target)
	}
	disk, err := d.volumeOf(ctx, name)
	if err != nil {
		return "", err
	}
	sn, err := d.snapshotOf(ctx, disk, snapshot)
	if err != nil {
		return "", err
	}
	self, err := d.who(ctx)
	if err != nil {
		return "", err
	}
	id := readerID(name, snapshot, target)
	if m, ok, err := d.record(id); err != nil {
		return "", err
	} else if at, terr := topmost(target); ok && terr == nil && at != nil && isOf(*at, m.Device) {
		return target, nil
	}
	s := Spec{Size: max(sn.Size, d.t.MinSize), Type: disk.Type, IOPS: disk.IOPS, Throughput: disk.Throughput, Zone: self.Zone, Snapshot: &sn, UUID: uuidOf(id, newUUID())}
	s.Tags = Tags{TagUUID: s.UUID, TagNamespace: d.c.Namespace, TagName: name, tagTemp: reader + self.ID, tagFrom: Short(name + "@" + snapshot)}
	if !d.t.Zonal {
		s.Zone = ""
	}
	inherit(s.Tags, sn.Tags)
	if s.Tags[tagFormatted] == "" || s.Tags[tagFormatted] == begun {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "the volume had never been mounted when the snapshot was made: there is nothing in it")
	}
	if err := d.check(&s); err != nil {
		return "", err
	}
	if err := d.do(ctx, jobOpen, "snapshot "+id, "", opening{s, target, id}); err != nil {
		return "", err
	}
	return target, nil
}

// readerID is under which name a mount of a snapshot is written down.
func readerID(name, snapshot, target string) string {
	return "@" + uuidOf("reader", name, snapshot, target)
}

type opening struct {
	Spec       Spec
	Target, ID string
}

// open is the job: all of it, as nobody would come for a disk whose mount took too long. What is
// left of one that was cut off is deleted by sweep.
func (d *driver) open(ctx context.Context, r *jobs.Run) (err error) {
	var o opening
	if err := r.Load(&o); err != nil {
		return err
	}
	self, err := d.who(ctx)
	if err != nil {
		return err
	}
	if err := d.usable(ctx, r, o.Spec.Snapshot); err != nil {
		return err
	}
	if err := r.Step("making a disk of the snapshot", nil); err != nil {
		return err
	}
	disk, err := again(ctx, r, func(ctx context.Context) (Disk, error) { return d.p.Create(ctx, o.Spec) })
	if err != nil {
		return err
	}
	d.x.put(disk)
	defer d.hold(disk.ID)()
	defer func() {
		if err != nil {
			_ = unix.Unmount(o.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			d.dispose(disk)
		}
	}()
	if err := d.ready(ctx, r, disk, false); err != nil {
		return err
	}
	v, err := d.bring(ctx, r, &disk, self, false)
	if err != nil {
		return err
	}
	if err := d.prepare(ctx, r, disk, v); err != nil {
		return err
	}
	if now, ok := d.x.byID(disk.ID); ok { // with what was found out of its file system
		disk.Tags = now.Tags
	}
	inside, err := d.enter(disk, kinds[disk.Tags[tagFS]], v, []string{"ro"})
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close() }()
	m := mounted{Volume: o.ID, Disk: disk.ID, Device: v, Mountpoint: o.Target, Since: time.Now().UTC()}
	if err := d.note(m); err != nil {
		return err
	}
	if err := inside.Attach(rootOf(disk), o.Target); err != nil {
		return errors.Join(err, d.unnote(o.ID))
	}
	return nil
}

// CloseSnapshot unmounts it, and deletes the disk in the background.
func (d *snapshotting) CloseSnapshot(_ context.Context, name, snapshot, dir string) error {
	id := readerID(name, snapshot, dir)
	m, ok, err := d.record(id)
	if err != nil {
		return err
	}
	if err := unmountAll(dir, m, ok); err != nil || !ok {
		return err
	}
	if err := d.unnote(id); err != nil {
		return err
	}
	if disk, ok := d.x.byID(m.Disk); ok {
		d.dispose(disk)
	}
	return nil
}

// dispose deletes a disk that is no volume, off this host first.
func (d *driver) dispose(disk Disk) {
	d.background.Go(func() {
		for wait := time.Second; ; wait = min(2*wait, 5*time.Minute) {
			err := d.jobs.Do(d.ctx, jobRemove, "disk "+disk.ID, disk.ID, removing{Disk: disk})
			if err == nil || d.ctx.Err() != nil {
				return
			}
			d.log.WarnContext(d.ctx, "a disk that was made to read a snapshot is not deleted yet", slog.String("disk", disk.ID), slog.Any("error", err))
			select {
			case <-time.After(wait):
			case <-d.ctx.Done():
				return
			}
		}
	})
}

// sweep deletes disks of this host that were made for something that a crash cut off.
func (d *driver) sweep(self Host) {
	records, err := d.records()
	if err != nil {
		return
	}
	used := map[string]bool{}
	for _, m := range records {
		used[m.Disk] = true
	}
	for _, disk := range d.x.where(func(o Disk) bool { return o.Tags[tagTemp] == reader+self.ID }) {
		if _, busy := d.jobs.Of("disk " + disk.ID); !busy && !used[disk.ID] && !d.isHeld(disk.ID) && time.Since(disk.Created) > settled {
			d.dispose(disk)
		}
	}
}
