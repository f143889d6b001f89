package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// move is the job.
func (d *driver) move(ctx context.Context, r *jobs.Run) error {
	var m moving
	if err := r.Load(&m); err != nil {
		return err
	}
	to, err := d.reach(ctx, r, m.To.Pool)
	if err != nil {
		return err
	}
	switch err := d.transfer(ctx, r, to, &m); {
	case errors.Is(err, errMoved):
		return nil
	case err == nil || ctx.Err() != nil || m.Old.ID == "":
		return err
	case errors.Is(err, errNotOurs) || errors.Is(err, errNoVolume):
		// Who did that tidies up; it may have been this move, which an old list has shown as undone.
		if there, ferr := to.fresh(ctx, r, r.Object()); ferr == nil && there.Tags[TagUUID] == m.Spec.UUID {
			return nil
		}
		return err
	case m.Trash != "":
		return errdefs.Hint(fmt.Errorf("the move has not come to its end: %w", err), "move it again to the same place to go on")
	default:
		if uerr := d.undo(ctx, r, to, &m, m.Spec.UUID); uerr != nil {
			d.log.WarnContext(ctx, "a move that failed is not undone", slog.String("volume", r.Object()), slog.Any("error", uerr))
			return errdefs.Hint(fmt.Errorf("%w; and it stays as half of a move: %w", err, uerr), "move it again to the same place to go on")
		}
		return err
	}
}

// transfer does the steps of a move that are not done yet.
func (d *driver) transfer(ctx context.Context, r *jobs.Run, to *driver, m *moving) error {
	if m.Old.ID == "" {
		if err := d.begin(ctx, r, to, m); err != nil {
			return err
		}
	} else if m.Trash == "" && m.Snapshot == nil { // the crash may have come before the tag
		if err := d.claimed(ctx, r, m); err != nil {
			return err
		}
	}
	if m.Trash == "" {
		made, err := d.replica(ctx, r, to, m)
		if err != nil {
			return err
		}
		if err := d.ours(ctx, r, m); err != nil {
			return err
		}
		m.Trash = trashID()
		if err := r.Step("putting it in the place of the old one", m); err != nil {
			return err
		}
		if made.Tags[tagTemp] != "" {
			if _, err := to.tag(ctx, r, made, Tags{tagTemp: ""}); err != nil {
				return err // it may have been done: nothing is undone any more
			}
		}
	} else if err := d.placed(ctx, r, to, m); err != nil {
		return err
	}
	if err := r.Step("putting the old disk into the trash", nil); err != nil {
		return err
	}
	tags := Tags{tagTrashed: m.Trash, tagMoving: ""}
	if m.Spec.Tags[tagOrigin] != "" { // its snapshots are the new one's
		tags[tagOrigin] = uuidOf("moved", m.Spec.UUID)
	}
	if _, err := d.tag(ctx, r, m.Old, tags); errors.Is(err, errdefs.ErrNotFound) {
		d.x.drop(m.Old.ID)
	} else if err != nil {
		return err
	}
	return d.tidy(ctx, r, to, m)
}

// placed sees that the new disk is the volume, which a crash may have left undone.
func (d *driver) placed(ctx context.Context, r *jobs.Run, to *driver, m *moving) error {
	list, err := again(ctx, r, func(ctx context.Context) ([]Disk, error) { return to.list(ctx, Query{Names: []string{r.Object()}}) })
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(o Disk) bool { return o.Tags[TagUUID] == m.Spec.UUID })
	if i < 0 || list[i].State == Deleting {
		return errdefs.Errorf(errdefs.ErrUnavailable, "the new disk is gone")
	}
	if list[i].Tags[tagTemp] != "" {
		_, err = to.tag(ctx, r, list[i], Tags{tagTemp: ""})
	}
	return err
}

// claimed sees that the old disk is claimed.
func (d *driver) claimed(ctx context.Context, r *jobs.Run, m *moving) error {
	err := d.ours(ctx, r, m)
	if !errors.Is(err, errNotOurs) {
		return err
	}
	list, err := again(ctx, r, func(ctx context.Context) ([]Disk, error) { return d.list(ctx, Query{IDs: []string{m.Old.ID}}) })
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(list, func(o Disk) bool { return o.ID == m.Old.ID }); i >= 0 && list[i].Tags[tagMoving] != "" {
		return errNotOurs
	}
	return d.claim(ctx, r, m.Old, move{id: m.Spec.UUID, to: placeText(m.To)})
}

// replica makes the disk in the other place.
func (d *driver) replica(ctx context.Context, r *jobs.Run, to *driver, m *moving) (made Disk, err error) {
	if m.Snapshot == nil {
		// Whoever was on the way to the disk when it was claimed is there by now.
		if err := d.ours(ctx, r, m); err != nil {
			return made, err
		}
		tags := d.snapshotTags(m.Old, "move")
		tags[TagUUID], tags[tagTemp] = uuidOf("snapshot", m.Spec.UUID), "move "+r.Object()
		sn, err := d.shoot(ctx, r, m.Old, tags)
		if err != nil {
			return made, err
		}
		m.Snapshot = &sn
		if err := r.Step("waiting for the snapshot", m); err != nil {
			return made, err
		}
	}
	if m.Copy == nil {
		if err := d.usable(ctx, r, m.Snapshot); err != nil {
			return made, err
		}
		if err := d.bringOver(ctx, r, to, m); err != nil {
			return made, err
		}
	}
	if err := to.usable(ctx, r, m.Copy); err != nil {
		return made, err
	}
	if err := r.Step("making a disk of the snapshot", m); err != nil {
		return made, err
	}
	s := m.Spec
	s.Snapshot = m.Copy
	made, err = again(ctx, r, func(ctx context.Context) (Disk, error) { return to.p.Create(ctx, s) })
	if err != nil {
		return made, fmt.Errorf("make the disk in %s: %w", to.where(s.Zone), err)
	}
	if made.Tags[tagTrashed] != "" || made.State == Deleting {
		return made, errdefs.Errorf(errdefs.ErrExists, "the disk that was made has been removed")
	}
	to.x.put(made)
	return made, to.ready(ctx, r, made, false)
}

func (d *driver) where(zone string) string {
	if zone != "" {
		return "zone " + zone
	}
	return d.t.Scope
}

// bringOver copies the snapshot to where the disk is to be.
func (d *driver) bringOver(ctx context.Context, r *jobs.Run, to *driver, m *moving) error {
	m.Copy = m.Snapshot
	p, ok := to.p.(SnapshotCopier)
	if d.near(to) || !ok {
		return nil
	}
	if err := r.Step("copying the snapshot to "+to.t.Scope, nil); err != nil {
		return err
	}
	tags := m.Snapshot.Tags.but(Tags{TagUUID: uuidOf("copy", m.Spec.UUID), TagNamespace: to.c.Namespace})
	sn, err := again(ctx, r, func(ctx context.Context) (Snapshot, error) { return p.CopySnapshot(ctx, *m.Snapshot, d.t, tags) })
	if err != nil {
		m.Copy = nil
		return fmt.Errorf("copy the snapshot to %s: %w", to.t.Scope, err)
	}
	to.snaps.put(sn)
	m.Copy = &sn
	return r.Step("waiting for the copy of the snapshot", m)
}

// but returns the tags with others in their place.
func (t Tags) but(other Tags) Tags { return Disk{Tags: t}.with(other).Tags }

// giving is what [tagMoving] begins with of a move that is being given up, before its own UUID.
const giving = "end of "

// giveUp ends a move that was begun, on this host or another one.
func (d *driver) giveUp(ctx context.Context, r *jobs.Run, old Disk) error {
	was, _ := moveOf(old)
	id, given := strings.CutPrefix(was.to, giving)
	id, place, _ := strings.Cut(id, " ")
	if !given {
		id, place = was.id, was.to
		// Another UUID on the disk keeps the host that moves it from going on.
		was = move{id: newUUID(), to: giving + id + " " + place}
		if err := d.claim(ctx, r, old, was); err != nil {
			return err
		}
		select {
		case <-time.After(giveWay): // it may be about to
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
	}
	to := d
	if f := strings.Fields(place); len(f) > 1 {
		var err error
		if to, err = d.neighbour(f[1]); err != nil {
			return err
		}
	}
	if err := d.undo(ctx, r, to, &moving{Old: old, Spec: Spec{UUID: id}}, was.id); err != nil {
		return err
	}
	return errMoved
}

// giveWay is how long what another host has asked for may take.
const giveWay = 3 * time.Second

// undo takes away what a move has made, and has the volume be what it was, if claim is what its
// disk has.
func (d *driver) undo(ctx context.Context, r *jobs.Run, to *driver, m *moving, claim string) error {
	if err := r.Step("undoing it", nil); err != nil {
		return err
	}
	list, err := again(ctx, r, func(ctx context.Context) ([]Disk, error) { return to.list(ctx, Query{Names: []string{r.Object()}}) })
	if err != nil {
		return err
	}
	for _, o := range list {
		if o.Tags[TagUUID] != m.Spec.UUID || o.Tags[tagTrashed] != "" || o.State == Deleting {
			continue
		}
		if o.Tags[tagTemp] == "" {
			return errdefs.Errorf(errdefs.ErrExists, "the new disk is the volume already")
		}
		if err := to.destroy(ctx, r, o); err != nil {
			return err
		}
	}
	if err := d.tidy(ctx, r, to, m); err != nil {
		return err
	}
	list, err = again(ctx, r, func(ctx context.Context) ([]Disk, error) { return d.list(ctx, Query{IDs: []string{m.Old.ID}}) })
	if err != nil {
		return err
	}
	for _, o := range list {
		if was, _ := moveOf(o); o.ID == m.Old.ID && was.id == claim {
			_, err = d.tag(ctx, r, m.Old, Tags{tagMoving: ""})
		}
	}
	return err
}

// tidy deletes the snapshots that were made for a move.
func (d *driver) tidy(ctx context.Context, r *jobs.Run, to *driver, m *moving) error {
	if err := r.Step("deleting the snapshot", nil); err != nil {
		return err
	}
	for _, one := range []struct {
		in   *driver
		uuid string
	}{{to, uuidOf("copy", m.Spec.UUID)}, {d, uuidOf("snapshot", m.Spec.UUID)}} {
		p, ok := one.in.p.(Snapshotter)
		if !ok {
			continue
		}
		list, err := again(ctx, r, func(ctx context.Context) ([]Snapshot, error) {
			return p.Snapshots(ctx, Query{Namespace: one.in.c.Namespace, Names: []string{r.Object()}})
		})
		if err != nil {
			return err
		}
		for _, sn := range list {
			if sn.Tags[TagUUID] != one.uuid || sn.State == Deleting {
				continue
			}
			if err := one.in.unmade(ctx, r, sn); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmade deletes a snapshot that a disk may hang on for a little.
func (d *driver) unmade(ctx context.Context, r *jobs.Run, sn Snapshot) error {
	for began, wait := time.Now(), d.t.Poll; ; wait = min(wait*3/2, lastPoll) {
		_, err := again(ctx, r, just(func(ctx context.Context) error { return d.unshoot(ctx, sn) }))
		if !errors.Is(err, errdefs.ErrInUse) || time.Since(began) > appear {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
	}
}
