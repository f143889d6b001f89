package csi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// recover takes up what the process before this one left: what was begun is gone on with, and what nobody has mounted
// goes down. It asks nobody, and has the rest done in the background.
func (d *driver) recover() {
	for _, n := range d.store.unfinished() {
		d.background.Go(func() { d.forget(n) })
	}
	if len(d.store.halves("")) > 0 {
		d.background.Go(func() { d.finish(jobUngroup, "snapshots of several volumes", "", nil) })
	}
	for _, r := range d.store.list() {
		v, _ := d.store.find(r.Name)
		_, n := d.store.see(v)
		bound, err := d.bound(v)
		switch {
		case err != nil:
			d.log.Warn("whether a volume is mounted cannot be told", slog.String("volume", r.Name), slog.Any("error", err))
		case bound:
		case r.Hidden != "":
			d.unhide(v, r)
		case r.Phase == phaseNew && r.Doing == callCreate:
			d.resume(r)
		case r.Phase == phaseDeleting, r.Doing == callGrow:
			d.resume(r)
		case len(r.Suspects)+len(r.Replaced) > 0:
			d.background.Go(func() { d.finish(jobTidy, r.Name, "", nil) })
		case !n.idle() || r.Phase == phaseAttached || r.undone(callAttach, callDetach):
			// An engine that has it still says so within a minute.
			d.leave(r.Name, max(d.detachAfter(v), time.Minute))
		}
	}
}

// resume goes on with what was cut off, which nobody waits for.
func (d *driver) resume(r record) {
	d.background.Go(func() { d.finish(jobResume, r.Name, r.Lineage, r.Lineage) })
}

// resumeJob is the job. Whoever came first may have done the rest, and the name may be that of another volume by now, which
// is to stay.
func (d *driver) resumeJob(ctx context.Context, r *jobs.Run) error {
	var lineage string
	if err := r.Load(&lineage); err != nil {
		return err
	}
	v, free, err := d.turnOf(ctx, r.Object())
	if err != nil {
		return err
	}
	defer free()
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	switch rec, _ := d.store.see(v); {
	case rec.Lineage != lineage:
		return nil
	case rec.Phase == phaseDeleting, rec.Hidden != "":
		return d.delete(ctx, r, v, facts)
	case rec.Phase == phaseNew:
		return d.make(ctx, r, v, facts)
	case rec.undone(callGrow):
		return d.growAgain(ctx, r, v, rec.Grow, facts)
	}
	return nil
}

func (d *driver) finish(kind, object, key string, data any) {
	if err := d.jobs.Do(d.ctx, kind, object, key, data); err != nil && d.ctx.Err() == nil && !errors.Is(err, errdefs.ErrNotFound) {
		d.log.Warn("what was cut off cannot be gone on with", slog.String("object", object), slog.String("job", kind), slog.Any("error", err))
	}
}

// unhide deletes a volume that was nobody's but a job's, which has ended. One that has taken the place of another by
// then is that one.
func (d *driver) unhide(v *vol, r record) {
	if r.ID != "" {
		if _, used := d.store.byID(r.ID, r.Lineage); used {
			if err := d.store.drop(v); err != nil {
				d.log.Warn("record cannot be removed", slog.String("volume", r.Name), slog.Any("error", err))
			}
			return
		}
	}
	d.resume(r)
}

// tidy is the job: to delete what could not be deleted when it was time to.
func (d *driver) tidy(ctx context.Context, r *jobs.Run) error {
	v, free, err := d.turnOf(ctx, r.Object())
	if err != nil {
		return err
	}
	defer free()
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	if rec, n := d.store.see(v); !n.idle() || rec.Phase == phaseAttached {
		d.leave(rec.Name, max(d.detachAfter(v), time.Minute))
	}
	d.clearReplaced(ctx, r, v)
	return d.clearSuspects(ctx, r, v, facts)
}

// forget deletes what is there of a snapshot that was cut off, or was made for a clone alone.
func (d *driver) forget(n snapshot) {
	if v, ok := d.store.find(n.Temp); ok {
		if r, _ := d.store.see(v); r.Phase == phaseNew {
			return // the clone goes on, and deletes it
		}
	}
	// The same object as that of who makes a snapshot of this name now: the one must not delete what the other one makes.
	object := n.Volume + "@" + n.Name
	if n.Temp != "" {
		object = n.Temp
	}
	d.finish(jobForget, object, n.CSIName, n)
}

// forgetJob is the job.
func (d *driver) forgetJob(ctx context.Context, r *jobs.Run) error {
	var n snapshot
	if err := r.Load(&n); err != nil {
		return err
	}
	// Whoever has the volume's turn may be removing it, and all its snapshots.
	free, err := d.turnOfID(ctx, n.Source)
	if err != nil {
		return err
	}
	defer free()
	ctx = context.WithValue(ctx, holding{n.Source}, true)
	now, ok := d.store.findSnapshot(n.Lineage, n.Name)
	if !ok || now.CSIName != n.CSIName || now.Doing == "" && now.Temp == "" {
		return nil
	}
	return d.unshoot(ctx, r, now)
}
