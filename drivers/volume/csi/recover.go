package csi

import (
	"log/slog"
	"time"
)

// recover takes up what the process before this one left: what was begun is gone on with, and what nobody has mounted
// goes down. It asks nobody, and has the rest done in the background.
func (d *driver) recover() {
	for _, r := range d.store.list() {
		v, _ := d.store.find(r.Name)
		_, n := d.store.see(v)
		bound, err := d.bound(v)
		switch {
		case err != nil:
			d.log.Warn("whether a volume is mounted cannot be told", slog.String("volume", r.Name), slog.Any("error", err))
		case bound:
		case r.Phase == phaseNew && r.Doing == callCreate:
			d.resume(jobCreate, r)
		case r.Phase == phaseDeleting:
			d.resume(jobRemove, r)
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
	d.background.Go(func() {
		if err := d.jobs.Do(d.ctx, kind, r.Name, key, map[string]string{}); err != nil && d.ctx.Err() == nil {
			d.log.Warn("what was cut off cannot be gone on with", slog.String("volume", r.Name), slog.String("job", kind), slog.Any("error", err))
		}
	})
}
