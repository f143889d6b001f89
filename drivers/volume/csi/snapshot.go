package csi

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

var errNoSnapshot = errdefs.Errorf(errdefs.ErrNotFound, "no such snapshot")

// snapshots tells whether the CSI driver has any.
func snapshots(facts conn.Facts) error {
	if facts.Controller.Has(spec.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		return nil
	}
	return errdefs.Errorf(errdefs.ErrUnsupported, "%s makes no snapshots", facts.Name)
}

// CreateSnapshot has the storage make a snapshot. What is mounted here is written out before.
func (d *driver) CreateSnapshot(ctx context.Context, name, snapshot string, labels map[string]string) error {
	rec, err := d.visible(name)
	if err != nil {
		return err
	}
	if n, ok := d.store.findSnapshot(rec.Lineage, snapshot); ok && n.Doing == "" {
		return errdefs.Errorf(errdefs.ErrExists, "there is a snapshot of this name")
	}
	return d.do(ctx, jobSnapshot, name+"@"+snapshot, "", shooting{name, snapshot, labels})
}

// shooting is what a job is told that makes a snapshot, or deletes one.
type shooting struct {
	Volume, Snapshot string
	Labels           map[string]string
}

// soon is how long a snapshot is waited for that is as it will be already: until then it is told if it cannot be made
// after all. Where the storage copies for an hour, nobody waits.
const soon = 20 * time.Second

// snapshot is the job. Between its calls the volume can be used.
func (d *driver) snapshot(ctx context.Context, r *jobs.Run) error {
	var s shooting
	if err := r.Load(&s); err != nil {
		return err
	}
	facts, err := d.facts(ctx, r)
	if err == nil {
		err = snapshots(facts)
	}
	if err != nil {
		return err
	}
	rec, err := d.visible(s.Volume)
	if err != nil {
		return err
	}
	n, there := d.store.findSnapshot(rec.Lineage, s.Snapshot)
	if there && n.Doing == callGroup {
		if err := d.mendGroups(ctx, r, rec.Lineage); err != nil {
			return err
		}
		n, there = d.store.findSnapshot(rec.Lineage, s.Snapshot)
	}
	switch {
	case there && n.Doing == "":
		return errdefs.Errorf(errdefs.ErrExists, "there is a snapshot of this name")
	case there: // cut off, and perhaps of another moment
		if err := d.unshoot(ctx, r, n); err != nil {
			return err
		}
	}
	n, err = d.shoot(ctx, r, d.shot(rec, s.Snapshot, s.Labels), facts)
	if err != nil {
		return err
	}
	_, err = d.complete(ctx, r, n, facts, soon)
	return err
}

// shot is the record of a snapshot that is to be made.
func (d *driver) shot(rec record, name string, labels map[string]string) snapshot {
	return snapshot{
		Name: name, Lineage: rec.Lineage, Volume: rec.Name, Source: rec.ID, Labels: labels, Params: merged(d.c.Snapshots, rec.SnapParams),
		CSIName: nameOf(d.c.Namespace, "snapshot", rec.Lineage, name, nonce()), Created: now(), Doing: callSnapshot,
		Capability: rec.Capability, Capacity: rec.Capacity,
	}
}

// shoot makes a snapshot. One whose call was lost is not trusted: it may be empty, and said to be ready when it is asked
// for again.
func (d *driver) shoot(ctx context.Context, r *jobs.Run, n snapshot, facts conn.Facts) (snapshot, error) {
	if err := d.flush(ctx, n.Volume); err != nil {
		return n, err
	}
	if err := d.store.saveSnapshot(n); err != nil {
		return n, err
	}
	if err := r.Step("making the snapshot", nil); err != nil {
		return n, err
	}
	var answer *spec.Snapshot
	var err error
	for range maxSuspects {
		if answer, err = d.callSnapshot(ctx, r, n, n.CSIName, true, facts); !isDoubtful(err) {
			break
		}
		d.log.WarnContext(ctx, "the answer to a snapshot was lost; it is not trusted, and made anew", slog.String("volume", n.Volume), slog.Any("error", err))
		n.Suspects = append(slices.Clone(n.Suspects), suspect{CSIName: n.CSIName})
		n.CSIName = nameOf(d.c.Namespace, "snapshot", n.Lineage, n.Name, nonce())
		n.Created = now()
		if serr := d.store.saveSnapshot(n); serr != nil {
			return n, errors.Join(serr, err)
		}
	}
	switch {
	case errors.Is(err, errNoSnapshot):
		return n, err
	case err == nil && (answer.GetSnapshotId() == "" || answer.GetSourceVolumeId() != "" && answer.GetSourceVolumeId() != n.Source):
		err = errdefs.Errorf(errdefs.ErrUnavailable, "%s answers with a snapshot %q of volume %q, not of %q", facts.Name, answer.GetSnapshotId(), answer.GetSourceVolumeId(), n.Source)
	case err == nil:
		n.ID, n.Size, n.Ready, n.Doing = answer.GetSnapshotId(), answer.GetSizeBytes(), answer.GetReadyToUse(), ""
		if err := d.store.saveSnapshot(n); err != nil {
			return n, err
		}
		return d.clearShots(ctx, r, n, facts), nil
	case settled(err) && len(n.Suspects) == 0:
		return n, errors.Join(err, d.store.dropSnapshot(n))
	}
	d.forgo(ctx, r, n)
	return n, err
}

// forgo deletes what may be there of a snapshot that could not be made. What cannot be told now is with the next start.
func (d *driver) forgo(ctx context.Context, r *jobs.Run, n snapshot) {
	if err := d.unshoot(ctx, r, n); err != nil {
		d.log.WarnContext(ctx, "what may be left of a snapshot cannot be deleted yet", slog.String("volume", n.Volume), slog.String("csi_name", n.CSIName), slog.Any("error", err))
	}
}

// callSnapshot asks for the snapshot of a name, as the only call for its volume.
func (d *driver) callSnapshot(ctx context.Context, r *jobs.Run, n snapshot, name string, copies bool, facts conn.Facts) (answer *spec.Snapshot, err error) {
	free, err := d.making(ctx, facts)
	if err != nil {
		return nil, err
	}
	defer free()
	gone := false
	err = d.rpc(ctx, r, copies, func(ctx context.Context) error {
		free, err := d.turnOfID(ctx, n.Source)
		if err != nil {
			return err
		}
		defer free()
		// Its volume may have been removed while this waited, and all its snapshots with it.
		if _, ok := d.store.findSnapshot(n.Lineage, n.Name); !ok {
			gone = true
			return nil
		}
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		resp, err := d.conn.Controller().CreateSnapshot(ctx, &spec.CreateSnapshotRequest{SourceVolumeId: n.Source, Name: name, Secrets: secrets, Parameters: n.Params})
		answer = resp.GetSnapshot()
		return err
	})
	if gone {
		return nil, errNoSnapshot
	}
	return answer, err
}

// holding is the key of a context whose call has the turn of a volume already.
type holding struct{ id string }

// turnOfID takes the turn of the volume that has an ID, if there is one and the caller does not have it.
func (d *driver) turnOfID(ctx context.Context, id string) (func(), error) {
	if ctx.Value(holding{id}) != nil {
		return func() {}, nil
	}
	r, ok := d.store.byID(id, "")
	if !ok {
		return func() {}, nil
	}
	v, ok := d.store.find(r.Name)
	if !ok {
		return func() {}, nil
	}
	return v.take(ctx)
}

// complete waits until a snapshot can be used, or, where that is given, for a while.
func (d *driver) complete(ctx context.Context, r *jobs.Run, n snapshot, facts conn.Facts, most time.Duration) (snapshot, error) {
	began := time.Now()
	for wait := d.pace.first; !n.Ready && (most == 0 || time.Since(began) < most); wait = min(2*wait, d.pace.last) {
		if err := r.Step("waiting for the snapshot", nil); err != nil {
			return n, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return n, errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
		answer, err := d.look(ctx, r, n, facts)
		if err != nil {
			return n, err
		}
		if answer.GetSnapshotId() != n.ID {
			return n, errdefs.Errorf(errdefs.ErrUnavailable, "%s answers with another snapshot, %q", facts.Name, answer.GetSnapshotId())
		}
		if n.Ready = answer.GetReadyToUse(); n.Ready {
			if answer.GetSizeBytes() > 0 {
				n.Size = answer.GetSizeBytes()
			}
			return n, d.store.saveSnapshot(n)
		}
	}
	return n, nil
}

// look asks how far a snapshot is that is there.
func (d *driver) look(ctx context.Context, r *jobs.Run, n snapshot, facts conn.Facts) (*spec.Snapshot, error) {
	if n.Group != "" {
		return d.lookGroup(ctx, r, n)
	}
	return d.callSnapshot(ctx, r, n, n.CSIName, false, facts)
}

// clearShots deletes the snapshots that are not trusted.
func (d *driver) clearShots(ctx context.Context, r *jobs.Run, n snapshot, facts conn.Facts) snapshot {
	for len(n.Suspects) > 0 {
		err := d.clearShot(ctx, r, n, n.Suspects[0].CSIName, facts)
		if err == nil {
			n.Suspects = slices.Clone(n.Suspects[1:])
			err = d.store.saveSnapshot(n)
		}
		if err != nil {
			d.log.WarnContext(ctx, "what may be left of a snapshot cannot be deleted yet", slog.String("volume", n.Volume), slog.Any("error", err))
			break
		}
	}
	return n
}

func (d *driver) clearShot(ctx context.Context, r *jobs.Run, n snapshot, name string, facts conn.Facts) error {
	answer, err := d.callSnapshot(ctx, r, n, name, false, facts)
	if settled(err) || errors.Is(err, errNoSnapshot) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.callUnsnapshot(ctx, r, answer.GetSnapshotId())
}

func (d *driver) callUnsnapshot(ctx context.Context, r *jobs.Run, id string) error {
	return d.down(ctx, r, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		_, err = d.conn.Controller().DeleteSnapshot(ctx, &spec.DeleteSnapshotRequest{SnapshotId: id, Secrets: secrets})
		return err
	})
}

// unshoot deletes a snapshot, and whatever else may be there of it.
func (d *driver) unshoot(ctx context.Context, r *jobs.Run, n snapshot) error {
	if n.Group != "" {
		return d.unshootMember(ctx, r, n)
	}
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	if n.Doing == callSnapshot && n.ID == "" {
		n.Suspects = append(slices.Clone(n.Suspects), suspect{CSIName: n.CSIName})
	}
	n.Doing = callUnsnapshot
	if err := d.store.saveSnapshot(n); err != nil {
		return err
	}
	if err := r.Step("deleting a snapshot", nil); err != nil {
		return err
	}
	if n = d.clearShots(ctx, r, n, facts); len(n.Suspects) > 0 {
		return errdefs.Errorf(errdefs.ErrUnavailable, "what may be left of a snapshot cannot be deleted yet")
	}
	if n.ID != "" {
		if err := d.callUnsnapshot(ctx, r, n.ID); err != nil {
			if settled(err) { // it stays, and can be used
				n.Doing = ""
				err = errors.Join(err, d.store.saveSnapshot(n))
			}
			return err
		}
	}
	return d.store.dropSnapshot(n)
}

// Snapshots returns those of a volume.
func (d *driver) Snapshots(_ context.Context, name string) ([]volume.Snapshot, error) {
	v, err := d.get(name)
	if err != nil {
		return nil, err
	}
	rec, _ := d.store.see(v)
	var all []volume.Snapshot
	for _, n := range d.store.snapshotsOf(rec.Lineage) {
		if n.Doing == "" && n.Temp == "" {
			all = append(all, volume.Snapshot{Name: n.Name, CreatedAt: n.Created, Labels: n.Labels})
		}
	}
	return all, nil
}

// snapshotOf returns a snapshot that there is.
func (d *driver) snapshotOf(rec record, name string) (snapshot, error) {
	n, ok := d.store.findSnapshot(rec.Lineage, name)
	if !ok || n.Doing != "" {
		return n, errNoSnapshot
	}
	return n, nil
}

// RemoveSnapshot deletes a snapshot.
func (d *driver) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	v, err := d.get(name)
	if err != nil {
		return err
	}
	rec, _ := d.store.see(v)
	if n, ok := d.store.findSnapshot(rec.Lineage, snapshot); !ok || n.Doing == callSnapshot || n.Doing == callGroup {
		return errNoSnapshot
	}
	return d.do(ctx, jobUnsnapshot, name+"@"+snapshot, "", shooting{Volume: name, Snapshot: snapshot})
}

// unsnapshot is the job.
func (d *driver) unsnapshot(ctx context.Context, r *jobs.Run) error {
	var s shooting
	if err := r.Load(&s); err != nil {
		return err
	}
	if now, err := d.get(s.Volume); err == nil {
		rec, _ := d.store.see(now)
		if err := d.mendGroups(ctx, r, rec.Lineage); err != nil {
			return err
		}
	}
	// Who removes the volume meanwhile deletes its snapshots, too.
	v, free, err := d.turnOf(ctx, s.Volume)
	if err != nil {
		return err
	}
	defer free()
	rec, _ := d.store.see(v)
	n, ok := d.store.findSnapshot(rec.Lineage, s.Snapshot)
	if !ok {
		return errNoSnapshot
	}
	if err := d.unshoot(context.WithValue(ctx, holding{n.Source}, true), r, n); err != nil || len(rec.Replaced) == 0 {
		return err
	}
	// The storage may have kept the volume of before a rollback for it.
	d.clearReplaced(ctx, r, v)
	return nil
}
