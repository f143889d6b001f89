package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Remove deletes the volume and its snapshots. One that was there before, or is to be retained, is only forgotten.
func (d *driver) Remove(ctx context.Context, name string) error {
	if _, err := d.get(name); err != nil {
		return err
	}
	return d.do(ctx, jobRemove, name, "", nil)
}

// remove is the job.
func (d *driver) remove(ctx context.Context, r *jobs.Run) error {
	turn := d.turnOf
	name, trashed := strings.CutPrefix(r.Object(), inTrash)
	if trashed {
		turn = d.trashed
	}
	v, free, err := turn(ctx, name)
	if err != nil {
		return err
	}
	if rec, _ := d.store.see(v); len(d.store.halves(rec.Lineage)) > 0 { // which takes the turns of other volumes, too
		free()
		if err := d.mendGroups(ctx, r, rec.Lineage); err != nil {
			return err
		}
		if v, free, err = turn(ctx, name); err != nil {
			return err
		}
	}
	defer free()
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	return d.delete(ctx, r, v, facts)
}

// delete is the way of a volume out of the world. Whoever calls has its turn.
func (d *driver) delete(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	if bound, err := d.bound(v); bound || err != nil {
		return errors.Join(err, errdefs.Errorf(errdefs.ErrInUse, "it is mounted here"))
	}
	rec, _ := d.store.see(v)
	if rec.Trash == "" { // else the name is another's
		d.stayed(rec.Name)
	}
	if err := d.lower(ctx, r, v); err != nil {
		d.leave(rec.Name, retryDown)
		return err
	}
	rec, _ = d.store.see(v)
	if rec.Phase == phaseNew {
		return d.unmake(ctx, r, v, facts)
	}
	if rec.Phase != phaseDeleting {
		rec.Phase, rec.Since = phaseDeleting, now()
		if err := d.store.save(v, rec); err != nil {
			return err
		}
	}
	ctx = context.WithValue(ctx, holding{rec.ID}, true)
	for _, n := range d.store.snapshotsOf(rec.Lineage) {
		if n.Doing == callSnapshot || n.Doing == callGroup || len(n.Suspects) > 0 { // what may be there of it is found by its volume alone
			if err := d.unshoot(ctx, r, n); err != nil {
				return err
			}
		}
	}
	if rec.ours() {
		if err := d.destroy(ctx, r, v); err != nil {
			return err
		}
	}
	rec, _ = d.store.see(v)
	for _, n := range d.store.snapshotsOf(rec.Lineage) {
		if err := d.unshoot(ctx, r, n); err != nil {
			return err
		}
	}
	if d.clearReplaced(ctx, r, v); rec.ours() {
		if rec, _ = d.store.see(v); len(rec.Replaced) > 0 {
			return errdefs.Errorf(errdefs.ErrUnavailable, "the volume that was there before a rollback, %q, cannot be deleted yet", rec.Replaced[0])
		}
	}
	if err := d.clearSuspects(ctx, r, v, facts); err != nil {
		return err
	}
	return d.store.drop(v)
}

// unmake is for a volume that may be there or not: what may be of it under its name is found and deleted.
func (d *driver) unmake(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	if rec.CSIName != "" && rec.Origin == created {
		rec.Suspects = append(slices.Clone(rec.Suspects), suspect{rec.CSIName})
	}
	rec.CSIName, rec.Doing = "", ""
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	err := d.clearSuspects(ctx, r, v, facts)
	if err != nil && conn.Sent(err) && conn.CodeOf(err) != codes.Unavailable && conn.CodeOf(err) != codes.DeadlineExceeded {
		// It says that something is wrong with it, again and again. That is not to keep the name for ever.
		d.log.WarnContext(ctx, "a volume that could not be made is forgotten; should it be at the storage, delete it there",
			slog.String("volume", rec.Name), slog.Any("csi_names", rec.Suspects), slog.Any("error", err))
		err = nil
	}
	if err != nil {
		return fmt.Errorf("whether it was made is not known: %w", err)
	}
	d.dropTemp(ctx, r, rec.Name)
	return d.store.drop(v)
}

// destroy deletes the volume at the storage. Where that does not want to as long as there are snapshots, those go first.
func (d *driver) destroy(ctx context.Context, r *jobs.Run, v *vol) error {
	rec, _ := d.store.see(v)
	if rec.ID == "" {
		return nil
	}
	rec.Doing = callDelete
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	if err := r.Step("deleting", nil); err != nil {
		return err
	}
	err := d.callDelete(ctx, r, rec.ID)
	if all := d.store.besides(rec.Lineage); conn.CodeOf(err) == codes.FailedPrecondition && len(all) > 0 {
		err = errdefs.Hint(err, "its snapshots were made together with others, and go with the last of them: remove those first, "+strings.Join(all, ", "))
	} else if snapshots := d.store.snapshotsOf(rec.Lineage); conn.CodeOf(err) == codes.FailedPrecondition && len(snapshots) > 0 {
		for _, n := range snapshots {
			if serr := d.unshoot(ctx, r, n); serr != nil {
				return errors.Join(err, serr)
			}
		}
		err = d.callDelete(ctx, r, rec.ID)
	}
	switch {
	case err == nil:
		rec.ID, rec.Doing = "", ""
	case settled(err): // it stays, and can be used
		rec.Phase, rec.Since, rec.Doing, rec.Problem = phaseCreated, now(), "", errdefs.OneLine(err.Error())
	default:
		rec.Problem = errdefs.OneLine(err.Error())
	}
	return errors.Join(err, d.store.save(v, rec))
}

func (d *driver) callDelete(ctx context.Context, r *jobs.Run, id string) error {
	if id == "" {
		return nil
	}
	return d.down(ctx, r, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		_, err = d.conn.Controller().DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: id, Secrets: secrets})
		return err
	})
}
