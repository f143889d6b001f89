package block

import (
	"context"
	"errors"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

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
