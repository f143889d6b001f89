package csi

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// cloning is what a job is told that makes a volume of another one.
type cloning struct {
	From, Snapshot string
	Options        map[string]string
}

// Clone makes a volume of another one, or of a snapshot of it.
func (d *driver) Clone(ctx context.Context, name, from, snapshot string, opts map[string]string) error {
	source, err := d.visible(from)
	if err != nil {
		return err
	}
	if snapshot != "" {
		if _, err := d.snapshotOf(source, snapshot); err != nil {
			return err
		}
	}
	if _, err := cloneOptions(opts, from); err != nil {
		return err
	}
	if v, ok := d.store.find(name); ok {
		if r, _ := d.store.see(v); r.Phase != phaseNew {
			return errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name")
		}
	}
	return d.do(ctx, jobClone, name, digest(from, snapshot, optionsKey(opts)), cloning{from, snapshot, opts})
}

func cloneOptions(opts map[string]string, from string) (asked, error) {
	a, err := decode(opts)
	switch {
	case err != nil:
		return a, err
	case a.Snapshot != nil:
		return a, errdefs.Errorf(errdefs.ErrInvalid, `option "snapshot": the clone is of %q already`, from)
	case a.VolumeID != nil, a.ExactName:
		return a, errdefs.Errorf(errdefs.ErrInvalid, "a clone is a new volume: leave volume_id and exact_name out")
	}
	return a, nil
}

// clone is the job.
func (d *driver) clone(ctx context.Context, r *jobs.Run) error {
	var c cloning
	if err := r.Load(&c); err != nil {
		return err
	}
	a, err := cloneOptions(c.Options, c.From)
	if err != nil {
		return err
	}
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	what := strings.TrimSuffix(c.From+"@"+c.Snapshot, "@")
	if v, free, err := d.turnOf(ctx, r.Object()); err == nil {
		defer free()
		if rec, _ := d.store.see(v); rec.Phase == phaseNew && rec.Source != nil && rec.Source.Shown == what {
			return d.make(ctx, r, v, facts)
		}
		return errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name")
	}
	from, err := d.visible(c.From)
	if err != nil {
		return err
	}
	rec, err := d.request(r.Object(), a, facts)
	if err != nil {
		return err
	}
	inherit(&rec, from, a)
	rec.CSIName = nameOf(d.c.Namespace, "volume", rec.Name, nonce()) // no other host has made one of this name
	rec.Source = &source{Volume: from.ID, Shown: what, Size: from.Capacity}
	if c.Snapshot == "" {
		if err := d.flush(ctx, c.From); err != nil {
			return err
		}
	}
	if c.Snapshot != "" || !facts.Controller.Has(spec.ControllerServiceCapability_RPC_CLONE_VOLUME) {
		n, err := d.sourceSnapshot(ctx, r, from, c.Snapshot, facts)
		if err != nil {
			return err
		}
		rec.Source.Snapshot, rec.Source.Volume, rec.Source.Size = n.ID, "", max(n.Size, n.Capacity)
	}
	if err := size(&rec, a); err != nil {
		d.dropTemp(ctx, r, rec.Name)
		return err
	}
	return d.bear(ctx, r, rec, facts)
}

// sourceSnapshot is the snapshot that a volume is made of: one that there is, or one for this purpose alone.
func (d *driver) sourceSnapshot(ctx context.Context, r *jobs.Run, from record, name string, facts conn.Facts) (snapshot, error) {
	if err := snapshots(facts); err != nil {
		if name == "" {
			err = errdefs.Errorf(errdefs.ErrUnsupported, "%s makes neither clones nor snapshots", facts.Name)
		}
		return snapshot{}, errdefs.Hint(err, "back the volume up, and restore it under the other name: remora backup create, remora backup restore --help")
	}
	if name != "" {
		n, err := d.snapshotOf(from, name)
		if err != nil {
			return n, err
		}
		return d.complete(ctx, r, n, facts, 0)
	}
	n := d.shot(from, "clone "+r.Object(), nil) // which no snapshot of a person's is called
	n.Temp = r.Object()
	if old, ok := d.store.findSnapshot(n.Lineage, n.Name); ok {
		if err := d.unshoot(ctx, r, old); err != nil {
			return n, err
		}
	}
	n, err := d.shoot(ctx, r, n, facts)
	if err == nil {
		n, err = d.complete(ctx, r, n, facts, 0)
	}
	if err != nil {
		d.dropTemp(ctx, r, r.Object())
	}
	return n, err
}

// dropTemp deletes the snapshots that were made for a volume alone, which is made now or will not be.
func (d *driver) dropTemp(ctx context.Context, r *jobs.Run, name string) {
	for _, n := range d.store.tempsOf(name) {
		if err := d.unshoot(ctx, r, n); err != nil {
			d.log.WarnContext(ctx, "the snapshot of which a clone was made is not deleted yet", slog.String("volume", name), slog.String("snapshot_id", n.ID), slog.Any("error", err))
		}
	}
}

// inherit gives a clone what its options leave open.
func inherit(rec *record, from record, a asked) {
	c := &rec.Capability
	if a.FS == nil {
		c.FS = from.Capability.FS
	}
	if a.Access == nil {
		c.Access = from.Capability.Access
	}
	if a.Mount == nil {
		c.Flags = from.Capability.Flags
	}
	if a.GID == nil {
		c.Group, c.Chown = from.Capability.Group, from.Capability.Chown
	}
	if a.Subdir == nil {
		rec.Subdir = from.Subdir
	}
	if a.Detach == nil {
		rec.Detach = from.Detach
	}
	if a.Zone == nil && len(a.topology) == 0 && len(from.Topology) > 0 {
		rec.Requisite = from.Topology
	}
	rec.Parameters = merged(from.Parameters, a.parameters)
	rec.Mutable = merged(from.Mutable, a.mutable)
	rec.SnapParams = merged(from.SnapParams, a.snapshots)
}

// size sees that a clone has room for what it is made of.
func size(rec *record, a asked) error {
	if a.Size == nil {
		rec.Required = rec.Source.Size
		return nil
	}
	if rec.Required < rec.Source.Size {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "size": %s is below the %s of what is cloned`, catalog.Bytes(rec.Required), catalog.Bytes(rec.Source.Size))
	}
	return nil
}

// Rollback makes a volume of the snapshot, which takes the place of the one that there is: CSI has no other way.
func (d *driver) Rollback(ctx context.Context, name, snapshot string) error {
	rec, err := d.visible(name)
	if err != nil {
		return err
	}
	if _, err := d.snapshotOf(rec, snapshot); err != nil {
		return err
	}
	if rec.Origin != created || strings.HasPrefix(rec.Capability.Access, "MULTI_NODE") {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "by a rollback it becomes another volume of the storage, and others may use this one"), "make a clone of the snapshot, and use that")
	}
	return d.do(ctx, jobRollback, name, snapshot, shooting{Volume: name, Snapshot: snapshot})
}

// rollback is the job. The volume is what it was until one file has changed, and then what it was at the snapshot.
func (d *driver) rollback(ctx context.Context, r *jobs.Run) error {
	var s shooting
	if err := r.Load(&s); err != nil {
		return err
	}
	v, free, err := d.turnOf(ctx, s.Volume)
	if err != nil {
		return err
	}
	defer free()
	if bound, err := d.bound(v); bound || err != nil {
		return errors.Join(err, errdefs.Errorf(errdefs.ErrInUse, "it is mounted here"))
	}
	d.stayed(s.Volume)
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	rec, _ := d.store.see(v)
	ctx = context.WithValue(ctx, holding{rec.ID}, true)
	n, err := d.snapshotOf(rec, s.Snapshot)
	if err == nil {
		n, err = d.complete(ctx, r, n, facts, 0)
	}
	if err != nil {
		return err
	}
	if err := d.lower(ctx, r, v); err != nil {
		d.leave(s.Volume, retryDown)
		return err
	}
	rec, _ = d.store.see(v)
	fresh := d.copyOf(rec, n)
	fresh.Name, fresh.Hidden = "rollback "+rec.Name+" "+nonce(), "a rollback of "+rec.Name
	fresh.Required = max(rec.Capacity, fresh.Required)
	if err := d.bear(ctx, r, fresh, facts); err != nil {
		return err
	}
	return d.swap(ctx, r, v, fresh.Name)
}

// swap gives a volume what was made in its place.
func (d *driver) swap(ctx context.Context, r *jobs.Run, v *vol, hidden string) error {
	h, ok := d.store.find(hidden)
	if !ok {
		return errdefs.Errorf(errdefs.ErrUnavailable, "what was made of the snapshot has gone")
	}
	if err := r.Step("putting it in the place of the old one", nil); err != nil {
		return err
	}
	made, _ := d.store.see(h)
	rec, _ := d.store.see(v)
	old := rec.ID
	rec.ID, rec.Context, rec.Capacity, rec.Topology, rec.CSIName = made.ID, made.Context, made.Capacity, made.Topology, made.CSIName
	rec.Required, rec.Source, rec.Suspects, rec.Requisite = made.Required, made.Source, made.Suspects, made.Requisite
	rec.Replaced = append(slices.Clip(rec.Replaced), old)
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	if err := d.store.drop(h); err != nil {
		return err
	}
	d.clearReplaced(ctx, r, v)
	return nil
}

// clearReplaced deletes the volumes whose place another one has taken. A storage that does not want to as long as there
// are snapshots of it is asked again when those have gone.
func (d *driver) clearReplaced(ctx context.Context, r *jobs.Run, v *vol) {
	for {
		rec, _ := d.store.see(v)
		if len(rec.Replaced) == 0 || !rec.ours() {
			return
		}
		id := rec.Replaced[0]
		if err := r.Step("deleting the old one", nil); err != nil {
			return
		}
		err := d.callDelete(ctx, r, id)
		if err == nil {
			rec.Replaced = rec.Replaced[1:]
			err = d.store.save(v, rec)
		}
		if err != nil {
			d.log.WarnContext(ctx, "the volume that was there before a rollback is not deleted yet", slog.String("volume", rec.Name), slog.String("volume_id", id), slog.Any("error", err))
			return
		}
	}
}
