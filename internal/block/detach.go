package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// hold keeps a disk from being detached until the function that it returns is called.
func (d *driver) hold(id string) (free func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds[id]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.holds[id]--; d.holds[id] <= 0 {
			delete(d.holds, id)
		}
	}
}

// goes tells whether a disk is being detached: who holds it before he asks is seen by that job, or sees it.
func (d *driver) goes(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.going[id]
}

func (d *driver) isHeld(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.holds[id] > 0
}

// stayed calls off the detach to come of a disk, and tells whether there was one.
func (d *driver) stayed(disk Disk) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.leaving[disk.ID]
	if ok {
		t.Stop()
		delete(d.leaving, disk.ID)
	}
	return ok
}

// leave has a disk detached after a while, unless it is mounted again.
func (d *driver) leave(disk Disk, after time.Duration) { d.tryLeave(disk, after, firstRetry) }

// tryLeave is leave that tries again after retry if it fails, and then less and less often.
func (d *driver) tryLeave(disk Disk, after, retry time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	if t, ok := d.leaving[disk.ID]; ok {
		t.Stop()
	}
	var t *time.Timer
	t = time.AfterFunc(after, func() {
		d.mu.Lock()
		if d.leaving[disk.ID] != t {
			d.mu.Unlock()
			return
		}
		delete(d.leaving, disk.ID)
		d.mu.Unlock()
		if err := d.jobs.Do(d.ctx, jobDetach, jobObject(disk), disk.ID, nil); err != nil && d.ctx.Err() == nil {
			d.log.WarnContext(d.ctx, "a disk that nobody uses cannot be detached, and costs nobody but who wants it elsewhere; it is tried again", slog.String("disk", disk.ID), slog.Any("error", err))
			d.tryLeave(disk, retry, min(2*retry, lastRetry))
		}
	})
	d.leaving[disk.ID] = t
}

// How long a detach that failed waits to be tried again: a disk that is busy is so for a moment, mostly, as where the device is
// being looked at.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// jobObject is what a job about a disk has as its object: a volume's name where the disk is one.
func jobObject(disk Disk) string {
	if live(disk) {
		return disk.Tags[TagName]
	}
	return "disk " + disk.ID
}

// detach is the job: let a disk go that nobody on this host uses.
func (d *driver) detach(ctx context.Context, r *jobs.Run) error {
	disk, ok := d.x.byID(r.Key())
	if !ok {
		disk = Disk{ID: r.Key(), Tags: Tags{}}
	}
	self, err := d.who(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	_, later := d.leaving[disk.ID]
	d.mu.Unlock()
	if later { // while this one waited for its turn, somebody mounted the volume
		return nil
	}
	d.mu.Lock()
	d.going[disk.ID] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.going, disk.ID)
		d.mu.Unlock()
	}()
	if used, err := d.used(ctx, disk); used || err != nil {
		return err
	}
	if err := r.Step("detaching", nil); err != nil {
		return err
	}
	_, err = again(ctx, r, just(func(ctx context.Context) error { return d.p.Detach(ctx, disk, self.ID, false) }))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("detach the disk %s: %w", disk.ID, err)
	}
	limit, cancel := context.WithTimeoutCause(ctx, takeLimit, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud has not detached the disk within %s", takeLimit))
	defer cancel()
	if err := d.depart(limit, disk, self); err != nil {
		return err
	}
	d.x.change(disk.ID, func(o *Disk) {
		o.Holders = slices.DeleteFunc(slices.Clone(o.Holders), func(h Holder) bool { return h.Host == self.ID })
	})
	return nil
}

// because is what the cloud says of a disk that is stuck.
func because(d Disk) string {
	if d.Reason == "" {
		return ""
	}
	return ": " + d.Reason
}

// depart waits until the machine does not show the disk any more, or the cloud says that this host
// has it no more.
func (d *driver) depart(ctx context.Context, disk Disk, self Host) error {
	gone := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.background.Go(func() {
		gone <- d.await(ctx, disk.ID, cloudFirst, func(now Disk, there bool) (bool, error) {
			i := holder(now, self.ID)
			if there && i >= 0 && now.Holders[i].State == Stuck {
				return true, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud does not get done with detaching the disk %s%s", disk.ID, because(now))
			}
			return !there || i < 0, nil
		})
	})
	for {
		if _, err := d.m.find(d.p, disk); errors.Is(err, errNoDevice) {
			return nil
		}
		select {
		case err := <-gone:
			return err
		case <-time.After(devicePoll):
		}
	}
}

// used tells whether anybody on this host uses a disk, or is about to.
func (d *driver) used(ctx context.Context, disk Disk) (bool, error) {
	for began := time.Now(); ; {
		if d.isHeld(disk.ID) {
			return true, nil
		}
		if all, err := d.records(); err != nil || slices.ContainsFunc(all, func(m mounted) bool { return m.Disk == disk.ID }) {
			return true, err
		}
		v, err := d.m.find(d.p, disk)
		if errors.Is(err, errNoDevice) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		used, err := d.m.inUse(v)
		if used && d.m.gone(d.p, disk, v) {
			return false, nil // the disk has gone meanwhile, and its name is another one's
		}
		if !used || err != nil {
			return used, err
		}
		if time.Since(began) > lingerTime {
			return true, errdefs.Errorf(errdefs.ErrInUse, "%s is in use by a mount in another place, or by a program", v.Path)
		}
		select {
		case <-time.After(devicePoll):
		case <-ctx.Done():
			return true, errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// lingerTime is how long a device may be in use after its unmount: a program that is being started holds
// for an instant what the daemon has open, such as the mount that it makes for another call.
const lingerTime = 3 * time.Second
