package block

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// cloning is what a job must not forget that makes a volume of another one.
type cloning struct {
	making
	// Source is the disk that it is made of; Temp the tags of a snapshot that is made for
	// that, and deleted again.
	Source *Disk
	Temp   Tags
}

// Clone makes a volume of another one, or of a snapshot of it.
func (d *snapshotting) Clone(ctx context.Context, name, from, snapshot string, opts map[string]string) error {
	source, err := d.recorded(ctx, from)
	if err != nil {
		return err
	}
	a, err := d.t.decode(opts)
	if err != nil {
		return err
	}
	if a.Snapshot != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "snapshot": the clone is of %q already`, from)
	}
	if a.FS != nil && source.Tags[tagFS] != "" && *a.FS != source.Tags[tagFS] {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "fs": what is cloned is %s, not %s`, source.Tags[tagFS], *a.FS)
	}
	s, err := d.spec(name, a)
	if err != nil {
		return err
	}
	size, tags := source.Size, source.Tags
	var sn *Snapshot
	if snapshot != "" {
		found, err := d.snapshotOf(ctx, source, snapshot)
		if err != nil {
			return err
		}
		sn, size, tags = &found, max(found.Size, d.t.MinSize), found.Tags
	}
	if a.Size == nil {
		s.Size = size
	} else if s.Size < size {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "size": %s is below the %s of what is cloned`, catalog.Bytes(s.Size), catalog.Bytes(size))
	}
	if a.Type == nil {
		s.Type = source.Type
		if a.IOPS == nil {
			s.IOPS = source.IOPS
		}
		if a.Throughput == nil {
			s.Throughput = source.Throughput
		}
	}
	if a.Zone == nil {
		s.Zone = source.Zone
	}
	if a.Mount == nil && source.Tags[option+"mount_options"] != "" {
		s.Tags[option+"mount_options"] = source.Tags[option+"mount_options"]
	}
	inherit(s.Tags, tags)
	s.Tags[tagFrom] = short(strings.TrimSuffix(from+"@"+snapshot, "@"))
	if err := d.check(&s); err != nil {
		return err
	}
	c := cloning{making: making{Spec: s, Fresh: true}}
	switch {
	case sn != nil:
		c.Spec.Snapshot = sn
	case d.t.Clones:
		c.Spec.Source = &source
	default:
		c.Source = &source
		c.Temp = d.snapshotTags(source, "clone")
		c.Temp[tagTemp] = short("clone " + name)
	}
	return d.do(ctx, jobClone, name, "", c)
}

// inherit gives a new disk the record of formatting of what it is made of.
func inherit(to, from Tags) {
	for _, key := range []string{tagFS, tagFormatted, tagRoot} {
		delete(to, key)
		if from[key] != "" {
			to[key] = from[key]
		}
	}
}

// clone is the job.
func (d *driver) clone(ctx context.Context, r *jobs.Run) error {
	var c cloning
	if err := r.Load(&c); err != nil {
		return err
	}
	err := d.makeClone(ctx, r, &c)
	if c.Temp == nil || c.Spec.Snapshot == nil || d.ctx.Err() != nil { // it goes on at the next start
		return err
	}
	// Also of a clone that failed: nobody else knows of the snapshot. The time of the job may be up.
	ctx = context.WithoutCancel(ctx)
	if _, derr := again(ctx, r, just(func(ctx context.Context) error { return d.unshoot(ctx, *c.Spec.Snapshot) })); derr != nil {
		d.log.WarnContext(ctx, "the snapshot of which a clone was made is not deleted", slog.String("snapshot", c.Spec.Snapshot.ID), slog.Any("error", derr))
	}
	return err
}

func (d *driver) makeClone(ctx context.Context, r *jobs.Run, c *cloning) error {
	name := r.Object()
	if c.Spec.UUID == "" {
		if _, err := d.fresh(ctx, r, name); !errors.Is(err, errdefs.ErrNotFound) {
			if err == nil {
				err = errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name")
			}
			return err
		}
		if c.Source != nil && c.Spec.Snapshot == nil {
			sn, err := d.shoot(ctx, r, *c.Source, c.Temp)
			if err != nil {
				return err
			}
			c.Spec.Snapshot = &sn
			if err := r.Step("snapshot made", c); err != nil {
				return err
			}
		}
		if err := d.usable(ctx, r, c.Spec.Snapshot); err != nil {
			return err
		}
		if c.Source == nil && c.Spec.Source != nil {
			if err := d.flush(*c.Spec.Source); err != nil {
				return err
			}
		}
		c.Spec.UUID = newUUID()
		c.Spec.Tags[TagUUID] = c.Spec.UUID
		if err := r.Step("making the disk", c); err != nil {
			return err
		}
	}
	made, err := again(ctx, r, func(ctx context.Context) (Disk, error) { return d.p.Create(ctx, c.Spec) })
	if err == nil {
		d.x.put(made)
		err = d.ready(ctx, r, made, false)
	}
	return err
}

// usable waits until a disk can be made of a snapshot, nil for none.
func (d *driver) usable(ctx context.Context, r *jobs.Run, sn *Snapshot) error {
	if sn == nil || sn.State == Ready {
		return nil
	}
	now, err := d.complete(ctx, r, *sn, 0)
	if err == nil {
		*sn = now
	}
	return err
}

// Rollback brings the disk back to a snapshot: in its place where the cloud can, else by a new
// disk that takes the place of the old one.
func (d *snapshotting) Rollback(ctx context.Context, name, snapshot string) error {
	disk, err := d.volumeOf(ctx, name)
	if err != nil {
		return err
	}
	sn, err := d.snapshotOf(ctx, disk, snapshot)
	if err != nil {
		return err
	}
	_, inPlace := d.p.(Rollbacker)
	if !inPlace && !d.t.Outlive {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "%s cannot bring a disk back to a snapshot", d.t.Kind), "make a clone of the snapshot, and use that")
	}
	s := Spec{
		Size: disk.Size, Type: disk.Type, IOPS: disk.IOPS, Throughput: disk.Throughput, Zone: disk.Zone, Snapshot: &sn, Tags: disk.with(Tags{tagReplaces: disk.Tags[TagUUID], tagOrigin: origin(disk)}).Tags,
	}
	if disk.Encrypted {
		s.Encrypted = &disk.Encrypted
	}
	inherit(s.Tags, sn.Tags)
	s.UUID = newUUID()
	s.Tags[TagUUID] = s.UUID
	// No volume until it is whole.
	s.Tags[tagTemp] = "rollback"
	return d.do(ctx, jobRollback, name, snapshot, rolling{making{Spec: s}, disk, sn})
}

type rolling struct {
	making
	Old      Disk
	Snapshot Snapshot
}

// rollback is the job. The volume is what it was until one tag of the new disk changes, and then
// what it was at the snapshot.
func (d *driver) rollback(ctx context.Context, r *jobs.Run) error {
	var m rolling
	if err := r.Load(&m); err != nil {
		return err
	}
	old, err := d.again(ctx, r, m.Old)
	if errors.Is(err, errdefs.ErrNotFound) && r.Resumed() {
		old, err = m.Old, nil // it was deleted already
	}
	if err != nil {
		return err
	}
	m.Old = old
	if err := notMoving(old); err != nil {
		return err
	}
	if err := d.release(ctx, r, m.Old); err != nil {
		return err
	}
	if p, ok := d.p.(Rollbacker); ok {
		if err := r.Step("rolling back", nil); err != nil {
			return err
		}
		_, err := again(ctx, r, just(func(ctx context.Context) error { return p.Rollback(ctx, m.Old, m.Snapshot) }))
		return err
	}
	if err := d.usable(ctx, r, m.Spec.Snapshot); err != nil {
		return err
	}
	if err := r.Step("making a disk of the snapshot", nil); err != nil {
		return err
	}
	made, err := again(ctx, r, func(ctx context.Context) (Disk, error) { return d.p.Create(ctx, m.Spec) })
	if err != nil {
		return err
	}
	if made.Tags[tagTemp] != "" {
		d.x.put(made)
		if err := d.ready(ctx, r, made, false); err != nil {
			return err
		}
		if err := r.Step("putting it in the place of the old one", nil); err != nil {
			return err
		}
		if _, err := d.tag(ctx, r, made, Tags{tagTemp: ""}); err != nil {
			return err
		}
	}
	if err := r.Step("deleting the old disk", nil); err != nil {
		return err
	}
	return d.destroy(ctx, r, m.Old)
}

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
	s.Tags = Tags{TagUUID: s.UUID, TagNamespace: d.c.Namespace, TagName: name, tagTemp: reader + self.ID, tagFrom: short(name + "@" + snapshot)}
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
