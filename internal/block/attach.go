package block

import (
	"context"
	"errors"
	"fmt"
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
			if err := d.prepare(ctx, r, disk, v); err == nil || d.m.still(d.p, disk, v) {
				d.leave(disk, d.unclaimed())
				return err
			}
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
	for tries := 0; ; tries++ {
		v, err := d.bring(ctx, r, &disk, self, r.Key() == keyForce)
		if errors.Is(err, errdefs.ErrInUse) { // where another host has it there is nothing to detach here
			_, ferr := d.m.find(d.p, disk)
			refused = errors.Is(ferr, errNoDevice)
		}
		if err != nil {
			return err
		}
		// A detach that the daemon before this one began may take away what was just found.
		if err := d.prepare(ctx, r, disk, v); err == nil || tries == maxVanish || d.m.still(d.p, disk, v) {
			return err
		}
		if disk, err = d.again(ctx, r, disk); err != nil {
			return err
		}
	}
}

// maxVanish is how often a disk is brought anew whose device goes away while it is looked at.
const maxVanish = 3

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
	case <-time.After(d.t.Poll << tries):
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
		return true, unmade(d.Reason)
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
