package block

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// yieldTime is how long a disk that came second has for its maker to delete it.
const yieldTime = 3 * time.Second

// surplus returns the disks of a name that are not the volume, and that nobody has ever had a mount of.
func (x *index) surplus(name string) (all []Disk) {
	won, _ := x.volume(name)
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, id := range x.names[name] {
		if o := x.disks[id].Disk; live(o) && id != won.ID && o.Tags[tagFormatted] == "" && len(o.Holders) == 0 {
			all = append(all, o)
		}
	}
	return all
}

// doubled returns the names that several disks have.
func (x *index) doubled() (all []string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for name, ids := range x.names {
		if len(ids) > 1 {
			all = append(all, name)
		}
	}
	return all
}

// clearSurplus deletes, a while later, what other hosts made for the same name. Whoever made one that is not
// the volume deletes it, if he sees the volume's: one that was listed before that other one was, and came
// after it all the same, as with a cloud that tells whole seconds, has nobody else who would.
func (d *driver) clearSurplus(name string) {
	if len(d.x.surplus(name)) == 0 {
		return
	}
	d.background.Go(func() {
		select {
		case <-time.After(yieldTime):
		case <-d.ctx.Done():
			return
		}
		if d.finds.look(d.ctx, name) != nil {
			return // the next one who looks through the disks sees it
		}
		for _, disk := range d.x.surplus(name) {
			if _, err := d.list(d.ctx, Query{IDs: []string{disk.ID}}); err != nil {
				return
			}
			now, there := d.x.byID(disk.ID)
			if !there || now.Tags[tagFormatted] != "" || len(now.Holders) > 0 {
				continue
			}
			// One that is attached meanwhile the cloud does not delete.
			_, err := call(d.ctx, just(func(ctx context.Context) error { return d.p.Delete(ctx, now) }))
			if err != nil {
				d.log.DebugContext(d.ctx, "a second disk of a name is not deleted", slog.String("volume", name), slog.String("disk", disk.ID), slog.Any("error", err))
				continue
			}
			d.log.InfoContext(d.ctx, "another host had made a disk for the volume at the same time, which nobody used; it is deleted", slog.String("volume", name), slog.String("disk", disk.ID))
			d.x.drop(disk.ID)
		}
	})
}

// oldEnough is how long ago a disk must have been made that is looked at for being surplus later: whoever
// made it is done with it.
const oldEnough = 10 * time.Minute

// clearOld is clearSurplus for what a crash has left.
func (d *driver) clearOld() {
	for _, name := range d.x.doubled() {
		if slices.ContainsFunc(d.x.surplus(name), func(o Disk) bool { return time.Since(o.Created) > oldEnough }) {
			d.clearSurplus(name)
		}
	}
}
