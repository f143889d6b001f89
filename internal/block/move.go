package block

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// A volume is moved by a snapshot of its disk, of which another disk is made in the other place.
// While that goes on a tag of the old disk, [tagMoving], keeps every host from mounting it, so
// that nothing is written which would be missed. What the move makes has its names from that
// tag: a move that a crash has cut off can be gone on with on any host, and never makes a thing
// twice. One tag of the new disk makes it the volume; then the old one goes to the trash.

// moveLimit bounds a move: a copy of a large snapshot to another region may take most of a day.
const moveLimit = 48 * time.Hour

// moving is what a job must not forget that moves a volume.
type moving struct {
	To   volume.Place // whose Pool is always named, and whose Region never
	Old  Disk
	Spec Spec // of the new disk; its UUID is that of the move
	// Snapshot is that of the old disk, Copy that of which the new one is made.
	Snapshot, Copy *Snapshot
	// Trash is the ID of the old disk in the trash, once the new one may be the volume.
	Trash string
}

// Move brings a volume to another zone, or to another pool of the driver.
func (d *snapshotting) Move(ctx context.Context, name string, to volume.Place) error {
	other, err := d.destination(to)
	if err != nil {
		return err
	}
	place := volume.Place{Zone: to.Zone, Pool: other.pool.name}
	disk, err := d.volumeOf(ctx, name)
	if err != nil {
		return err
	}
	if d.driver == other && disk.Zone == place.Zone && place.Zone != "" && disk.Tags[tagMoving] == "" && len(d.replaced(disk)) == 0 {
		return nil
	}
	if err := d.mayMove(other, place); err != nil {
		return err
	}
	return d.do(ctx, jobMove, name, placeText(place), moving{To: place})
}

// destination returns the pool that a place is in.
func (d *driver) destination(to volume.Place) (*driver, error) {
	other := d
	var err error
	if to.Pool != "" {
		if other, err = d.neighbour(to.Pool); err != nil {
			return nil, err
		}
	}
	if to.Region != "" && other.t.region() != to.Region {
		if to.Pool != "" {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "pool %q is in %s, not in region %q", to.Pool, other.t.Scope, to.Region)
		}
		return d.inRegion(to.Region)
	}
	return other, nil
}

// mayMove refuses what could not come to an end.
func (d *driver) mayMove(other *driver, to volume.Place) error {
	switch {
	case to.Zone != "" && !other.t.Zonal:
		return errdefs.Errorf(errdefs.ErrUnsupported, "%s has no zones: its volumes are in reach of all hosts of %s", other.t.Kind, other.t.Scope)
	case d == other && to.Zone == "":
		return errdefs.Errorf(errdefs.ErrInvalid, "it is in pool %q already", to.Pool)
	case to.Zone == "" && other.t.Zonal:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "to which zone of %s is not said", other.t.Scope), "name it with --zone")
	}
	if _, ok := other.p.(SnapshotCopier); !ok && !d.near(other) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "%s cannot copy a snapshot from %s to %s", d.t.Kind, d.t.Scope, other.t.Scope),
			"back it up and restore it in the other pool: remora backup create, remora backup restore --help")
	}
	return nil
}

// near tells whether a snapshot of one pool can be used by another as it is.
func (d *driver) near(other *driver) bool {
	return d == other || d.t.Client == other.t.Client && d.t.Scope == other.t.Scope && d.t.region() == other.t.region()
}

func placeText(p volume.Place) string {
	return strings.TrimSpace(strings.Join([]string{"pool", p.Pool, p.Zone}, " "))
}

// sayPlace is a place in words.
func sayPlace(text string) string {
	f := strings.Fields(text)
	if strings.HasPrefix(text, giving) {
		return "where it was"
	}
	if len(f) == 3 {
		return "zone " + f[2] + " in pool " + f[1]
	}
	return text
}

// move is what [tagMoving] says.
type move struct {
	id, to string
	since  time.Time
}

func moveOf(disk Disk) (m move, ok bool) {
	f := strings.SplitN(disk.Tags[tagMoving], " ", 3)
	if len(f) != 3 {
		return m, false
	}
	m.since, _ = time.Parse(time.RFC3339, f[1])
	m.id, m.to = f[0], f[2]
	return m, true
}

// notMoving refuses what must not be done to a disk while its volume is being moved.
func notMoving(disk Disk) error {
	m, ok := moveOf(disk)
	if !ok || disk.Tags[tagTrashed] != "" {
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrInUse, "it is being moved to %s since %s", sayPlace(m.to), m.since.Format(time.RFC3339))
	err = errdefs.Hint(err, "remora jobs, on the host that moves it, shows how far it is; where that host is gone, the same move on any host goes on with it")
	if disk.Zone == "" {
		return err
	}
	return errdefs.Hint(err, "remora volume move "+disk.Tags[TagName]+" --zone "+disk.Zone+", where it is now, gives it up")
}

// unmoved waits a little for a disk whose volume is being moved, and returns the one that is the
// volume then.
func (d *driver) unmoved(ctx context.Context, r *jobs.Run, disk Disk) (Disk, error) {
	for until := time.Now().Add(d.c.Wait); ; {
		err := notMoving(disk)
		if err == nil || time.Now().After(until) {
			return disk, err
		}
		if err := r.Step("waiting for the end of a move", nil); err != nil {
			return disk, err
		}
		select {
		case <-time.After(d.t.Poll):
		case <-ctx.Done():
			return disk, errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
		if disk, err = d.fresh(ctx, r, disk.Tags[TagName]); err != nil {
			return disk, err
		}
	}
}

// replaced returns disks whose place a disk took by a move that was cut off before their end.
func (d *driver) replaced(disk Disk) []Disk {
	return d.x.where(func(o Disk) bool {
		return disk.Tags[tagReplaces] != "" && o.Tags[TagUUID] == disk.Tags[tagReplaces] && o.Tags[tagMoving] != "" && live(o)
	})
}

// begin finds out what there is to move, and keeps all hosts off it. Where another host has begun
// to move it to the same place, this one goes on with that.
func (d *driver) begin(ctx context.Context, r *jobs.Run, to *driver, m *moving) error {
	old, err := d.fresh(ctx, r, r.Object())
	if err != nil {
		return err
	}
	if left := d.replaced(old); len(left) > 0 { // all but the end was done
		was, _ := moveOf(left[0])
		m.Old, m.Trash, m.Spec.UUID = left[0], trashID(), was.id
		m.Spec.Tags = old.Tags
		return r.Step("putting the old disk into the trash", m)
	}
	was, begun := moveOf(old)
	if d == to && old.Zone == m.To.Zone {
		if begun {
			return d.giveUp(ctx, r, old)
		}
		return errMoved
	}
	if begun && was.to != placeText(m.To) {
		return notMoving(old)
	}
	if d != to {
		there, err := to.fresh(ctx, r, r.Object())
		if err == nil && there.Tags[TagUUID] != was.id {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name in pool %q", to.pool.name), "remove or rename that one first")
		}
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	if err := d.release(ctx, r, old); err != nil {
		return err
	}
	old.Holders = nil
	id := was.id
	if !begun {
		id = newUUID()
	}
	if m.Spec, err = d.moved(to, old, m.To, id); err != nil {
		return err
	}
	m.Old = old
	if err := r.Step("keeping hosts off the disk", m); err != nil {
		return err
	}
	if !begun {
		return d.claim(ctx, r, old, move{id: id, to: placeText(m.To)})
	}
	return nil
}

// errMoved is that there is nothing to do.
var errMoved = errors.New("it is there already")

// claim writes down on the disk that it is being moved, and waits until everybody can see it.
func (d *driver) claim(ctx context.Context, r *jobs.Run, old Disk, c move) error {
	if _, err := d.tag(ctx, r, old, Tags{tagMoving: c.id + " " + now() + " " + c.to}); err != nil {
		return err
	}
	limit, cancel := context.WithTimeoutCause(ctx, appear, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud does not show the tag of the disk within %s", appear))
	defer cancel()
	return d.await(limit, old.ID, 0, func(o Disk, there bool) (bool, error) {
		is, _ := moveOf(o)
		return there && is.id == c.id, nil
	})
}

// moved is the disk that is to be made.
func (d *driver) moved(to *driver, old Disk, place volume.Place, id string) (Spec, error) {
	a, err := d.t.decode(given(old))
	if err != nil {
		return Spec{}, fmt.Errorf("the options that it was made with: %w", err)
	}
	s := Spec{UUID: id, Size: old.Size, Type: old.Type, IOPS: old.IOPS, Zone: place.Zone, Extra: a.extra}
	fill(&s.Throughput, a.Throughput)
	if old.Encrypted {
		s.Encrypted = &old.Encrypted
	}
	change := Tags{
		TagUUID: id, TagNamespace: to.c.Namespace, tagMoving: "", tagReplaces: old.Tags[TagUUID], tagOrigin: "",
		tagTemp: "move", option + "snapshot": "", // no volume until it is whole
	}
	if d.near(to) {
		fill(&s.KMSKey, a.KMSKey)
	} else { // a key is that of a region
		change[option+"kms_key"] = ""
	}
	if d == to && d.t.Outlive {
		change[tagOrigin] = origin(old)
	}
	if a.Zone != nil {
		change[option+"zone"] = place.Zone
	}
	s.Tags = old.with(change).Tags
	return s, to.check(&s)
}

// ours makes sure that the old disk is as it was when the move began: nobody has given the move up,
// and nobody has come to the disk.
func (d *driver) ours(ctx context.Context, r *jobs.Run, m *moving) error {
	for until := time.Now().Add(behind); ; {
		list, err := again(ctx, r, func(ctx context.Context) ([]Disk, error) { return d.list(ctx, Query{IDs: []string{m.Old.ID}}) })
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(o Disk) bool { return o.ID == m.Old.ID })
		if i < 0 || list[i].Tags[tagTrashed] != "" || list[i].State == Deleting {
			return errNoVolume
		}
		was, _ := moveOf(list[i])
		if h := list[i].Holders; was.id == m.Spec.UUID && len(h) > 0 {
			return d.held(h[0])
		}
		if was.id == m.Spec.UUID {
			return nil
		}
		if was.id != "" || time.Now().After(until) {
			return errNotOurs
		}
		select {
		case <-time.After(d.t.Poll):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// behind is how long a list may still be without a tag that an earlier list had.
const behind = 5 * time.Second

var errNotOurs = errdefs.Errorf(errdefs.ErrInUse, "another host has moved it, or given the move up")
