package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// snapshotting has snapshots, and what follows from them.
type snapshotting struct{ *driver }

var errNoSnapshot = errdefs.Errorf(errdefs.ErrNotFound, "no such snapshot")

// snapshotOf returns a snapshot of a volume by its name.
func (d *driver) snapshotOf(ctx context.Context, disk Disk, name string) (Snapshot, error) {
	if err := d.snaps.load(ctx, d); err != nil {
		return Snapshot{}, err
	}
	for _, sn := range d.snaps.of(disk) {
		if sn.Tags[tagSnapshot] == name {
			return sn, nil
		}
	}
	return Snapshot{}, errNoSnapshot
}

// Snapshots returns those of a volume.
func (d *snapshotting) Snapshots(ctx context.Context, name string) ([]volume.Snapshot, error) {
	disk, err := d.volumeOf(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := d.snaps.load(ctx, d.driver); err != nil {
		return nil, err
	}
	var all []volume.Snapshot
	for _, sn := range d.snaps.of(disk) {
		v := volume.Snapshot{Name: sn.Tags[tagSnapshot], CreatedAt: takenAt(sn)}
		for k, value := range sn.Tags {
			if key, ok := strings.CutPrefix(k, label); ok {
				if v.Labels == nil {
					v.Labels = map[string]string{}
				}
				v.Labels[unlabel(key)] = value
			}
		}
		all = append(all, v)
	}
	return all, nil
}

// shooting is what a job must not forget that makes a snapshot.
type shooting struct {
	Disk Disk
	Tags Tags
}

// CreateSnapshot has the cloud make a snapshot. What is mounted here is written out before.
func (d *snapshotting) CreateSnapshot(ctx context.Context, name, snapshot string, labels map[string]string) error {
	disk, err := d.recorded(ctx, name)
	if err != nil {
		return err
	}
	if _, err := d.snapshotOf(ctx, disk, snapshot); !errors.Is(err, errdefs.ErrNotFound) {
		if err == nil {
			err = errdefs.Errorf(errdefs.ErrExists, "there is a snapshot of this name")
		}
		return err
	}
	tags := d.snapshotTags(disk, snapshot)
	for k, v := range labels {
		if len(label)+len(relabel(k)) > maxKey || len(v) > maxValue || !utf8.ValidString(v) {
			return errdefs.Errorf(errdefs.ErrInvalid, "label %.30q: too long for a tag of the cloud, or no text", k)
		}
		tags[label+relabel(k)] = v
	}
	if len(tags) > maxTags {
		return errdefs.Errorf(errdefs.ErrInvalid, "%d labels: a snapshot of the cloud can have %d", len(labels), maxTags-len(tags)+len(labels))
	}
	return d.do(ctx, jobSnapshot, name+"@"+snapshot, "", shooting{disk, tags})
}

// recorded returns the disk of a volume with the record of formatting as it is now: what is made of
// the disk gets it too, and another host may have formatted it since it was remembered.
func (d *driver) recorded(ctx context.Context, name string) (Disk, error) {
	disk, err := d.volumeOf(ctx, name)
	if err != nil || formatted(disk) {
		return disk, err
	}
	if _, err := d.list(ctx, Query{IDs: []string{disk.ID}}); err != nil {
		return disk, err
	}
	if now, ok := d.x.byID(disk.ID); ok {
		disk = now
	}
	if disk.Tags[tagFormatted] == begun {
		return disk, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "its file system is being made"), "mount it once, and ask again")
	}
	return disk, nil
}

// snapshotTags are those of each snapshot of a disk: what a disk that is made of it has to have.
func (d *driver) snapshotTags(disk Disk, name string) Tags {
	return Tags{
		TagUUID: newUUID(), TagNamespace: d.c.Namespace, TagName: disk.Tags[TagName], tagSnapshot: name, tagOf: origin(disk),
		tagMade: time.Now().UTC().Format(time.RFC3339Nano), tagFS: disk.Tags[tagFS], tagFormatted: disk.Tags[tagFormatted], tagRoot: disk.Tags[tagRoot],
	}.clean()
}

func (t Tags) clean() Tags {
	maps.DeleteFunc(t, func(_, v string) bool { return v == "" })
	return t
}

// soon is how long a snapshot is waited for that is as it will be already: until then it is told
// if the cloud cannot make it after all. Where the cloud copies for an hour, nobody waits.
const soon = 20 * time.Second

// snapshot is the job. It does not keep the volume from being used.
func (d *driver) snapshot(ctx context.Context, r *jobs.Run) error {
	var s shooting
	if err := r.Load(&s); err != nil {
		return err
	}
	sn, err := d.shoot(ctx, r, s.Disk, s.Tags)
	if err != nil {
		return err
	}
	_, err = d.complete(ctx, r, sn, soon)
	return err
}

func (d *driver) shoot(ctx context.Context, r *jobs.Run, disk Disk, tags Tags) (Snapshot, error) {
	p, ok := d.p.(Snapshotter)
	if !ok {
		return Snapshot{}, errdefs.Errorf(errdefs.ErrUnsupported, "%s has no snapshots", d.t.Kind)
	}
	if err := d.flush(disk); err != nil {
		return Snapshot{}, err
	}
	if err := r.Step("making the snapshot", nil); err != nil {
		return Snapshot{}, err
	}
	sn, err := again(ctx, r, func(ctx context.Context) (Snapshot, error) { return p.CreateSnapshot(ctx, disk, tags) })
	if err != nil {
		return sn, err
	}
	d.snaps.put(sn)
	return sn, nil
}

// complete waits until a snapshot can be used, or, where that is given, for a while.
func (d *driver) complete(ctx context.Context, r *jobs.Run, sn Snapshot, most time.Duration) (Snapshot, error) {
	p, ok := d.p.(Snapshotter)
	if !ok {
		return sn, nil
	}
	began := time.Now()
	for wait := d.t.Poll; sn.State == Creating && (most == 0 || time.Since(began) < most); wait = min(wait*3/2, lastPoll) {
		if err := r.Step("waiting for the snapshot", nil); err != nil {
			return sn, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return sn, errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
		list, err := again(ctx, r, func(ctx context.Context) ([]Snapshot, error) {
			return p.Snapshots(ctx, Query{Namespace: d.c.Namespace, IDs: []string{sn.ID}})
		})
		if err != nil {
			return sn, err
		}
		if i := slices.IndexFunc(list, func(o Snapshot) bool { return o.ID == sn.ID }); i >= 0 {
			sn = list[i]
		}
		if sn.State == Failed {
			_, derr := again(ctx, r, just(func(ctx context.Context) error { return p.DeleteSnapshot(ctx, sn) }))
			d.snaps.drop(sn.ID)
			return sn, errors.Join(errdefs.Errorf(errdefs.ErrUnavailable, "the cloud could not make the snapshot: %s", sn.Reason), derr)
		}
	}
	d.snaps.put(sn)
	return sn, nil
}

// flush writes out what is mounted here of a disk.
func (d *driver) flush(disk Disk) error {
	m, ok, err := d.record(disk.Tags[TagName])
	if err != nil || !ok || m.Disk != disk.ID {
		return err
	}
	at, err := topmost(m.Mountpoint)
	if err != nil || at == nil || !isOf(*at, m.Device) {
		return err
	}
	dir, err := at.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Syncfs(int(dir.Fd()))
}

// RemoveSnapshot deletes a snapshot.
func (d *snapshotting) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	disk, err := d.volumeOf(ctx, name)
	if err != nil {
		return err
	}
	sn, err := d.snapshotOf(ctx, disk, snapshot)
	if err != nil {
		return err
	}
	return d.unshoot(ctx, sn)
}

func (d *driver) unshoot(ctx context.Context, sn Snapshot) error {
	p, ok := d.p.(Snapshotter)
	if !ok {
		return nil
	}
	_, err := call(ctx, just(func(ctx context.Context) error { return p.DeleteSnapshot(ctx, sn) }))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("delete the snapshot %s: %w", sn.ID, err)
	}
	d.snaps.drop(sn.ID)
	return nil
}

// forgetSnapshots deletes those of a disk that is to be deleted.
func (d *driver) forgetSnapshots(ctx context.Context, r *jobs.Run, disk Disk) error {
	p, ok := d.p.(Snapshotter)
	if !ok {
		return nil
	}
	began := time.Now()
	if _, err := again(ctx, r, just(func(ctx context.Context) error { return d.snaps.load(ctx, d) })); err != nil {
		return err
	}
	list := d.snaps.of(disk)
	// Of those that others made since, nobody would know any more when the disk is gone.
	if d.snaps.askedBefore(began) {
		now, err := again(ctx, r, func(ctx context.Context) ([]Snapshot, error) {
			return p.Snapshots(ctx, Query{Namespace: d.c.Namespace, Names: []string{disk.Tags[TagName]}})
		})
		if err != nil {
			return err
		}
		for _, sn := range now {
			if ofDisk(sn, disk) && !slices.ContainsFunc(list, func(o Snapshot) bool { return o.ID == sn.ID }) {
				list = append(list, sn)
			}
		}
	}
	for _, sn := range list {
		if _, err := again(ctx, r, just(func(ctx context.Context) error { return d.unshoot(ctx, sn) })); err != nil {
			return err
		}
	}
	return nil
}
