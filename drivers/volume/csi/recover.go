package csi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// recover takes up what the process before this one left: what was begun is gone on with, and what nobody has mounted
// goes down. It asks nobody, and has the rest done in the background.
func (d *driver) recover() {
	for _, n := range d.store.unfinished() {
		d.background.Go(func() { d.forget(n) })
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
			d.resume(jobCreate, r)
		case r.Phase == phaseDeleting:
			d.resume(jobRemove, r)
		case r.Doing == callGrow:
			d.background.Go(func() { d.finish(jobResize, r.Name, catalog.Bytes(r.Grow).String(), r.Grow) })
		case len(r.Suspects)+len(r.Replaced) > 0:
			d.background.Go(func() { d.finish(jobTidy, r.Name, "", nil) })
		case !n.idle() || r.Phase == phaseAttached || r.undone(callAttach, callDetach):
			// An engine that has it still says so within a minute.
			d.leave(r.Name, max(d.detachAfter(v), time.Minute))
		}
	}
}

// resume begins a job that nobody waits for.
func (d *driver) resume(kind string, r record) {
	key := ""
	if kind == jobCreate {
		key = optionsKey(r.Options)
	}
	d.background.Go(func() { d.finish(kind, r.Name, key, map[string]string{}) })
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
	d.resume(jobRemove, r)
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
	d.finish(jobForget, "snapshot "+n.key(), "", n)
}

// forgetJob is the job.
func (d *driver) forgetJob(ctx context.Context, r *jobs.Run) error {
	var n snapshot
	if err := r.Load(&n); err != nil {
		return err
	}
	if now, ok := d.store.findSnapshot(n.Lineage, n.Name); !ok || now.CSIName != n.CSIName {
		return nil
	}
	return d.unshoot(ctx, r, n)
}
