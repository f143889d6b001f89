package block

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// removing is what a job must not forget that removes a disk: which, and whether for good.
type removing struct {
	Disk  Disk
	Trash string // the ID that it gets in the trash, empty to delete it
}

// Remove deletes the disk of a volume and its snapshots.
func (d *driver) Remove(ctx context.Context, name string) error { return d.discard(ctx, name, "") }

// Trash tags the disk as one that is in the trash. It costs there what it cost before.
func (d *driver) Trash(ctx context.Context, name string) error {
	return d.discard(ctx, name, trashID())
}

func trashID() string { return fmt.Sprintf("%016x-%s", time.Now().UnixNano(), newUUID()[:8]) }

func (d *driver) discard(ctx context.Context, name, trash string) error {
	disk, err := d.volumeOf(ctx, name)
	if err != nil {
		return err
	}
	return d.do(ctx, jobRemove, name, disk.ID, removing{disk, trash})
}

// remove is the job: take the disk off this host, and delete or tag it.
func (d *driver) remove(ctx context.Context, r *jobs.Run) error {
	var m removing
	if err := r.Load(&m); err != nil {
		return err
	}
	if now, ok := d.x.byID(m.Disk.ID); ok {
		m.Disk = now
	}
	// One that took its place at a rollback is the volume; any other of the name was made since.
	if now, ok := d.x.volume(r.Object()); ok && now.Tags[tagReplaces] == m.Disk.Tags[TagUUID] {
		m.Disk = now
	}
	if err := notMoving(m.Disk); err != nil {
		return err
	}
	if err := r.Step("looking whether it is used", nil); err != nil {
		return err
	}
	if m.Trash != "" { // the cloud does not mind if a tag is changed of what another host uses
		disk, err := d.again(ctx, r, m.Disk)
		if err != nil {
			return err
		}
		m.Disk = disk
	}
	if err := d.release(ctx, r, m.Disk); err != nil {
		return err
	}
	if err := r.Step("removing", nil); err != nil {
		return err
	}
	if m.Trash != "" {
		disk, err := d.tag(ctx, r, m.Disk, Tags{tagTrashed: m.Trash})
		if errors.Is(err, errdefs.ErrNotFound) {
			d.x.drop(disk.ID)
			return errNoVolume
		}
		return err
	}
	if m.Disk.Tags[tagTemp] == "" {
		if err := d.forgetSnapshots(ctx, r, m.Disk); err != nil {
			return err
		}
	}
	return d.destroy(ctx, r, m.Disk)
}

// release takes a disk off this host, and makes sure that no other has it.
func (d *driver) release(ctx context.Context, r *jobs.Run, disk Disk) error {
	stayed := d.stayed(disk)
	if len(disk.Holders) == 0 && !stayed {
		return nil // what is remembered may be old: the cloud refuses, or who calls has just asked
	}
	self, err := d.who(ctx)
	if err != nil {
		return err
	}
	if used, err := d.used(ctx, disk); err != nil || used {
		if err == nil {
			err = errdefs.Errorf(errdefs.ErrInUse, "it is mounted here, or being mounted")
		}
		return err
	}
	if i := slices.IndexFunc(disk.Holders, func(h Holder) bool { return h.Host != self.ID }); i >= 0 {
		// What is remembered may be old.
		if disk, err = d.again(ctx, r, disk); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		if i := slices.IndexFunc(disk.Holders, func(h Holder) bool { return h.Host != self.ID }); i >= 0 {
			return d.held(disk.Holders[i])
		}
	}
	if holder(disk, self.ID) < 0 && !stayed {
		return nil
	}
	if err := r.Step("detaching", nil); err != nil {
		return err
	}
	_, err = again(ctx, r, just(func(ctx context.Context) error { return d.p.Detach(ctx, disk, self.ID, false) }))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("detach the disk %s: %w", disk.ID, err)
	}
	if err := d.depart(ctx, disk, self); err != nil {
		return err
	}
	return d.await(ctx, disk.ID, 0, func(now Disk, there bool) (bool, error) { return !there || holder(now, self.ID) < 0, nil })
}

// Trashed returns what is in the trash, the oldest first.
func (d *driver) Trashed(ctx context.Context) ([]volume.Trashed, error) {
	if err := d.remembered(ctx); err != nil {
		return nil, err
	}
	var all []volume.Trashed
	for _, disk := range d.x.where(inTrash) {
		nanos, err := strconv.ParseInt(disk.Tags[tagTrashed][:16], 16, 64)
		if err != nil {
			continue
		}
		all = append(all, volume.Trashed{ID: disk.Tags[tagTrashed], Name: disk.Tags[TagName], RemovedAt: time.Unix(0, nanos).UTC()})
	}
	slices.SortFunc(all, func(a, b volume.Trashed) int { return a.RemovedAt.Compare(b.RemovedAt) })
	return all, nil
}

func inTrash(d Disk) bool {
	return len(d.Tags[tagTrashed]) > 16 && d.Tags[tagTemp] == "" && d.State != Deleting
}

func (d *driver) trashed(ctx context.Context, id string) (Disk, error) {
	if err := d.remembered(ctx); err != nil {
		return Disk{}, err
	}
	for _, disk := range d.x.where(inTrash) {
		if disk.Tags[tagTrashed] == id {
			return disk, nil
		}
	}
	return Disk{}, errdefs.Errorf(errdefs.ErrNotFound, "no such volume in the trash")
}

// Restore makes a volume again of what is in the trash.
func (d *driver) Restore(ctx context.Context, id, name string) error {
	disk, err := d.trashed(ctx, id)
	if err != nil {
		return err
	}
	if err := d.finds.look(ctx, name); err != nil {
		return err
	}
	if there, taken := d.x.volume(name); taken && there.ID == disk.ID {
		return nil // it was done already, and the answer was lost
	} else if taken {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name"), "restore it under another name, or remove that one first")
	}
	tags := Tags{tagTrashed: "", TagName: name}
	_, err = call(ctx, just(func(ctx context.Context) error { return d.p.SetTags(ctx, disk, tags) }))
	if err != nil {
		return err
	}
	d.x.retag(disk, tags)
	return nil
}

// Purge deletes what is in the trash.
func (d *driver) Purge(ctx context.Context, id string) error {
	disk, err := d.trashed(ctx, id)
	if err != nil {
		return err
	}
	return d.do(ctx, jobRemove, "disk "+disk.ID, disk.ID, removing{Disk: disk})
}
