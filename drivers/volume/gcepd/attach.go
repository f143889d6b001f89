package gcepd

import (
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Attach begins to attach a disk to this instance for writing, which Compute Engine allows to one.
func (p *provider) Attach(ctx context.Context, d block.Disk, self block.Host) error {
	if d.Facts[factAccess] != "" {
		return errAccess(d)
	}
	zone, name := split(self.ID)
	home, disk := split(d.ID)
	in := &compute.AttachedDisk{Source: "projects/" + p.c.Project + "/zones/" + home + "/disks/" + disk, DeviceName: disk, Mode: "READ_WRITE"}
	op, err := ask(ctx, p, "instances.attachDisk", "zone "+zone, p.api.Instances.AttachDisk(p.c.Project, zone, name, in).Context(ctx))
	if err == nil {
		d.Zone = zone
		return p.begun(op, "attachDisk", d, self.ID)
	}
	switch reasonOf(err) {
	case notReady:
		if p.going(d.ID, "attachDisk", self.ID) {
			return nil
		}
	case inUse:
		now, gerr := p.one(ctx, d.ID)
		if gerr != nil {
			return err
		}
		for _, h := range p.disk(now).Holders {
			if h.Host == self.ID {
				return nil
			}
		}
	}
	return err
}

func errAccess(d block.Disk) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "disk %s has the access mode %s: what several hosts can have has no guard against a second writer", d.ID, d.Facts[factAccess]),
		"gcloud compute disks update … --access-mode READ_WRITE_SINGLE")
}

// Detach begins to take a disk from an instance. Google takes it from one that does not answer as
// well: nothing that it still writes reaches the disk.
func (p *provider) Detach(ctx context.Context, d block.Disk, host string, _ bool) error {
	zone, name := split(host)
	home, disk := split(d.ID)
	device := disk
	if p.going(d.ID, "detachDisk", host) {
		return nil
	}
	for range 2 {
		op, err := ask(ctx, p, "instances.detachDisk", "zone "+zone, p.api.Instances.DetachDisk(p.c.Project, zone, name, device).Context(ctx))
		switch {
		case err == nil:
			d.Zone = zone
			return p.begun(op, "detachDisk", d, host)
		case errors.Is(err, errdefs.ErrNotFound):
			return nil // there is no such instance
		case !errors.Is(err, errdefs.ErrInvalid):
			return passing(err)
		}
		// It was attached by another tool, under another name, or not at all.
		i, gerr := ask(ctx, p, "instances.get", "zone "+zone, p.api.Instances.Get(p.c.Project, zone, name).Context(ctx))
		if errors.Is(gerr, errdefs.ErrNotFound) {
			return nil
		}
		if gerr != nil {
			return gerr
		}
		at := slices.IndexFunc(i.Disks, func(a *compute.AttachedDisk) bool { return strings.HasSuffix(a.Source, "/zones/"+home+"/disks/"+disk) })
		if at < 0 {
			return nil
		}
		if i.Disks[at].DeviceName == device {
			return err
		}
		device = i.Disks[at].DeviceName
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "disk %s is attached to %s under a name that changes", d.ID, host), "something else attaches and detaches it at the same time: which other tool uses the disk?")
}

// Match tells a disk by the name that it was attached with: a SCSI disk has it as its serial. One of
// NVMe has a link alone, which Google's udev rule makes of what the device says of itself.
func (p *provider) Match(d block.Disk, v block.Device) bool {
	_, name := split(d.ID)
	return v.Vendor == "Google" && v.Model == "PersistentDisk" && v.Serial == name || slices.Contains(v.Links, "google-"+name)
}

// Gone tells whether an instance is stopped, or does not exist. One that is suspended is not gone:
// it goes on where it was, with what it has not written yet.
func (p *provider) Gone(ctx context.Context, host string) (bool, error) {
	zone, name := split(host)
	i, err := ask(ctx, p, "instances.get", "zone "+zone, p.api.Instances.Get(p.c.Project, zone, name).Fields("status", "name").Context(ctx))
	if errors.Is(err, errdefs.ErrNotFound) {
		if strings.Contains(err.Error(), "/instances/"+name) { // and not the project
			return true, nil
		}
		return false, err
	}
	if err != nil {
		return false, err
	}
	return i.Status == "TERMINATED" || i.Status == "STOPPED", nil
}
