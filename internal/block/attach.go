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

// keyForce is the key of a job that takes the disk from whoever has it.
const keyForce = "force"

// attach is the job: bring the disk of a volume to this host, and see that there is a file system
// on it that can be mounted.
func (d *driver) attach(ctx context.Context, r *jobs.Run) error {
	name := r.Object()
	self, err := d.who(ctx)
	if err != nil {
		return err
	}
	if disk, ok := d.x.volume(name); ok && formatted(disk) && d.stayed(disk) {
		if v, err := d.m.find(d.p, disk); err == nil {
			defer d.leave(disk, d.unclaimed())
			return d.prepare(ctx, r, disk, v)
		}
	}
	if err := r.Step("looking for the disk", nil); err != nil {
		return err
	}
	disk, err := d.fresh(ctx, r, name)
	if err != nil {
		return err
	}
	if disk, err = d.unmoved(ctx, r, disk); err != nil {
		return err
	}
	d.stayed(disk)
	defer d.hold(disk.ID)()
	refused := false
	defer func() {
		if !refused {
			d.leave(disk, d.unclaimed())
		}
	}()
	v, err := d.bring(ctx, r, &disk, self, r.Key() == keyForce)
	if errors.Is(err, errdefs.ErrInUse) { // where another host has it there is nothing to detach here
		_, ferr := d.m.find(d.p, disk)
		refused = errors.Is(ferr, errNoDevice)
	}
	if err != nil {
		return err
	}
	return d.prepare(ctx, r, disk, v)
}

// unclaimed is how long a disk stays attached whose mount nobody comes back for: its engine asks
// again within that time, or never.
func (d *driver) unclaimed() time.Duration { return max(d.c.Detach, time.Minute) }

// bring attaches the disk to this host, if it is not, and waits for its device.
func (d *driver) bring(ctx context.Context, r *jobs.Run, disk *Disk, self Host, force bool) (Device, error) {
	wait := time.Now().Add(d.c.Wait)
	var refused error
	for tries := 0; ; tries++ {
		if tries == maxAttach && refused != nil {
			return Device{}, fmt.Errorf("attach the disk %s: %w", disk.ID, refused)
		}
		if tries == maxAttach {
			return Device{}, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud says that the disk is attached here, and the machine does not show it; tried %d times", tries)
		}
		if disk.State == Creating {
			if err := r.Step("waiting for the disk to be made", nil); err != nil {
				return Device{}, err
			}
			if err := d.await(ctx, disk.ID, 0, made); err != nil {
				return Device{}, err
			}
		}
		if d.t.Zonal && disk.Zone != "" && self.Zone != "" && disk.Zone != self.Zone {
			return Device{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "the disk is in zone %s, and this host in %s", disk.Zone, self.Zone),
				"run the container in that zone, or bring the volume here: remora volume move "+disk.Tags[TagName]+" --zone "+self.Zone)
		}
		if err := d.free(ctx, r, disk, self, wait, force); err != nil {
			return Device{}, err
		}
		// What lists say may be old: only the device itself shows that there is nothing to do.
		if _, err := d.m.find(d.p, *disk); errors.Is(err, errNoDevice) {
			if err := r.Step("attaching", nil); err != nil {
				return Device{}, err
			}
			_, err := again(ctx, r, just(func(ctx context.Context) error { return d.p.Attach(ctx, *disk, self) }))
			switch {
			case errors.Is(err, errdefs.ErrInUse): // somebody was faster, and lists may not say so yet
				refused = err
				if err := d.pause(ctx, r, disk, tries); err != nil {
					return Device{}, err
				}
				continue
			case err != nil:
				if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid) {
					d.forgetSelf() // a machine that was copied is another one
				}
				return Device{}, fmt.Errorf("attach the disk %s: %w", disk.ID, err)
			}
			disk.Holders = []Holder{{Host: self.ID, State: Attached, Since: time.Now().UTC().Truncate(time.Second)}}
			d.x.change(disk.ID, func(o *Disk) { o.Holders = disk.Holders })
		}
		if err := r.Step("waiting for the device", nil); err != nil {
			return Device{}, err
		}
		v, err := d.arrive(ctx, *disk, self)
		if !errors.Is(err, errNoDevice) {
			return v, err
		}
		if *disk, err = d.again(ctx, r, *disk); err != nil {
			return Device{}, err
		}
	}
}

// pause waits a little, and asks the cloud for the disk again.
func (d *driver) pause(ctx context.Context, r *jobs.Run, disk *Disk, tries int) error {
	select {
	case <-time.After(firstPoll << tries):
	case <-ctx.Done():
		return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
	}
	var err error
	*disk, err = d.again(ctx, r, *disk)
	return err
}

// maxAttach is how often it is tried to attach a disk.
const maxAttach = 5

func made(d Disk, there bool) (bool, error) {
	switch {
	case there && d.State == Failed:
		return true, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud could not make the disk: %s", d.Reason)
	case there && d.State == Deleting:
		return true, errNoVolume
	}
	return there && d.State == Ready, nil
}

// again returns the disk as the cloud knows it now, by its ID.
func (d *driver) again(ctx context.Context, r *jobs.Run, disk Disk) (Disk, error) {
	list, err := again(ctx, r, func(ctx context.Context) ([]Disk, error) { return d.list(ctx, Query{IDs: []string{disk.ID}}) })
	if err != nil {
		return disk, err
	}
	if i := slices.IndexFunc(list, func(o Disk) bool { return o.ID == disk.ID }); i >= 0 {
		now := list[i]
		if known, ok := d.x.byID(disk.ID); ok { // with what this host knows better
			now.Tags = known.Tags
		}
		return now, nil
	}
	if known, ok := d.x.byID(disk.ID); ok { // too new to be seen
		return known, nil
	}
	return disk, errNoVolume
}

func holder(d Disk, host string) int {
	return slices.IndexFunc(d.Holders, func(h Holder) bool { return h.Host == host })
}

// free sees that no other host has the disk, and that it is not on its way off this one.
func (d *driver) free(ctx context.Context, r *jobs.Run, disk *Disk, self Host, until time.Time, force bool) error {
	for wait := firstPoll; ; wait = min(wait*3/2, lastPoll) {
		i := slices.IndexFunc(disk.Holders, func(h Holder) bool { return h.Host != self.ID || h.State == Detaching })
		if i < 0 {
			return nil
		}
		h := disk.Holders[i]
		if h.Host != self.ID && (h.State != Detaching || force) {
			take, how, err := d.mayTake(ctx, h, force)
			if err != nil {
				return err
			}
			if take {
				if err := d.take(ctx, r, disk, h, how); err != nil {
					return err
				}
				continue
			}
		}
		if time.Now().After(until) && h.State != Detaching {
			return d.held(h)
		}
		if err := r.Step("waiting for "+h.Host+" to let go of the disk", nil); err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
		var err error
		if *disk, err = d.again(ctx, r, *disk); err != nil {
			return err
		}
	}
}

// held says who has the disk.
func (d *driver) held(h Holder) error {
	since := ""
	if !h.Since.IsZero() {
		since = fmt.Sprintf(" since %s (%s)", h.Since.UTC().Format(time.RFC3339), max(time.Since(h.Since), 0).Round(time.Second))
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "%s to host %s%s", h.State, h.Host, since),
		"stop the container that uses it there; where that host is gone for good, remora volume attach --force takes the disk from it")
}

// mayTake tells whether the disk may be taken from a host, and why.
func (d *driver) mayTake(ctx context.Context, h Holder, force bool) (take bool, why string, err error) {
	switch {
	case force:
		return true, "it was asked for by force", nil
	case d.c.Preempt == "always":
		return true, "the pool takes disks from other hosts (preempt)", nil
	case d.c.Preempt != "dead":
		return false, "", nil
	}
	p, ok := d.p.(Prober)
	if !ok {
		return false, "", nil
	}
	gone, err := call(ctx, func(ctx context.Context) (bool, error) { return p.Gone(ctx, h.Host) })
	if err != nil {
		return false, "", fmt.Errorf("whether host %s is gone cannot be found out: %w", h.Host, err)
	}
	return gone, "the cloud says that the host is stopped or gone", nil
}

// take takes the disk from another host.
func (d *driver) take(ctx context.Context, r *jobs.Run, disk *Disk, h Holder, why string) error {
	if err := r.Step("taking the disk from "+h.Host, nil); err != nil {
		return err
	}
	d.log.WarnContext(ctx, "the disk is taken from another host", slog.String("volume", r.Object()), slog.String("disk", disk.ID),
		slog.String("host", h.Host), slog.Time("since", h.Since), slog.String("reason", why))
	_, err := again(ctx, r, just(func(ctx context.Context) error { return d.p.Detach(ctx, *disk, h.Host, true) }))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("take the disk from host %s: %w", h.Host, err)
	}
	limit, cancel := context.WithTimeoutCause(ctx, takeLimit, errdefs.Errorf(errdefs.ErrUnavailable, "host %s has not let go of the disk within %s", h.Host, takeLimit))
	defer cancel()
	return d.await(limit, disk.ID, 0, func(now Disk, there bool) (bool, error) {
		if !there {
			return false, nil
		}
		disk.Holders, disk.State, disk.Facts = now.Holders, now.State, now.Facts
		return holder(now, h.Host) < 0, nil
	})
}

const takeLimit = 10 * time.Minute

// The waits for a device. The cloud is asked only when it takes longer than it ever should.
const (
	deviceTime  = 2 * time.Minute
	devicePoll  = 20 * time.Millisecond
	cloudFirst  = 4 * time.Second
	lostIfAbove = 30 * time.Second
)

// arrive waits until the machine shows the disk. It is [errNoDevice] where the cloud says that the
// disk is not attached here after all.
func (d *driver) arrive(ctx context.Context, disk Disk, self Host) (Device, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, deviceTime, errdefs.Errorf(errdefs.ErrUnavailable, "the machine does not show the disk %s within %s", disk.ID, deviceTime))
	defer cancel()
	failed := make(chan error, 1)
	began := time.Now()
	d.background.Go(func() {
		failed <- d.await(ctx, disk.ID, cloudFirst, func(now Disk, there bool) (bool, error) {
			i := holder(now, self.ID)
			if there && i >= 0 && now.Holders[i].State == Stuck {
				return true, errdefs.Errorf(errdefs.ErrUnavailable, "the cloud does not get done with attaching the disk %s%s", disk.ID, because(now))
			}
			return there && i < 0 && time.Since(began) > lostIfAbove, nil
		})
	})
	for {
		v, err := d.m.find(d.p, disk)
		if !errors.Is(err, errNoDevice) {
			return v, err
		}
		select {
		case err := <-failed:
			if err != nil {
				return v, err
			}
			return v, errNoDevice
		case <-time.After(devicePoll):
		}
	}
}

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
func (d *driver) leave(disk Disk, after time.Duration) {
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
			d.leave(disk, retryDetach)
		}
	})
	d.leaving[disk.ID] = t
}

const retryDetach = 30 * time.Second

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
	if used, err := d.used(disk); used || err != nil {
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
func (d *driver) used(disk Disk) (bool, error) {
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
	if used {
		err = errdefs.Errorf(errdefs.ErrInUse, "%s is in use by a mount in another place, or by a program", v.Path)
	}
	return used, err
}
