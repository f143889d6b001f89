package gce

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/cloud/machine"
)

type instance struct {
	id         uint64
	zone, name string
	created    time.Time
	status     string // RUNNING, STOPPING, TERMINATED, PROVISIONING
	host       *machine.Machine
	disks      []attachment
	deleted    bool
	// pending are how many disks are being attached.
	pending []string
}

type attachment struct {
	disk     *disk
	device   string
	readOnly bool
	index    int
}

// AddInstance adds an instance that is running. Its disks are shown to host; nil is an
// instance that nobody looks at from inside.
func (c *Cloud) AddInstance(zone, name string, host *machine.Machine) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasZone(zone) {
		return fmt.Errorf("%s: no such zone", zone)
	}
	if err := checkName(name); err != nil {
		return err
	}
	if c.instances[zone+"/"+name] != nil {
		return fmt.Errorf("instance %s: there already", name)
	}
	c.instances[zone+"/"+name] = &instance{
		id: c.newID(), zone: zone, name: name, created: c.clock.Now(), status: "RUNNING", host: host,
	}
	return nil
}

// Preempt turns an instance off as Google does one that is preemptible: at once, and it
// keeps its disks.
func (c *Cloud) Preempt(zone, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(zone, name)
	if err != nil {
		return err
	}
	i.status = "TERMINATED"
	return c.blackout(i)
}

// blackout pulls all disks of an instance.
func (c *Cloud) blackout(i *instance) error {
	var errs []error
	for _, a := range i.disks {
		errs = append(errs, c.pull(i, a.disk, true))
	}
	return errors.Join(errs...)
}

func (c *Cloud) instancePath(i *instance) string { return c.zonePath(i.zone) + "/instances/" + i.name }

func (c *Cloud) instance(zone, name string) (*instance, error) {
	i := c.instances[zone+"/"+name]
	if i == nil {
		return nil, missing(c.zonePath(zone) + "/instances/" + name)
	}
	return i, nil
}

func (c *Cloud) instanceJSON(i *instance) map[string]any {
	// The first is the one that the instance started from.
	disks := []attachedJSON{{
		Kind: "compute#attachedDisk", Type: "PERSISTENT", Mode: "READ_WRITE", Boot: true, AutoDelete: true, Interface: "SCSI",
		DeviceName: "persistent-disk-0", Source: host + c.zonePath(i.zone) + "/disks/" + i.name, DiskSizeGB: 10,
	}}
	for _, a := range i.disks {
		mode := "READ_WRITE"
		if a.readOnly {
			mode = "READ_ONLY"
		}
		disks = append(disks, attachedJSON{
			Kind: "compute#attachedDisk", Type: "PERSISTENT", Mode: mode, Source: host + c.diskPath(a.disk), DeviceName: a.device,
			Index: a.index, Interface: "SCSI", DiskSizeGB: a.disk.size,
		})
	}
	return map[string]any{
		"kind": "compute#instance", "id": decimal(i.id), "name": i.name, "status": i.status, "disks": disks,
		"zone": host + c.zonePath(i.zone), "selfLink": host + c.instancePath(i), "creationTimestamp": stamp(i.created),
		"machineType": host + c.zonePath(i.zone) + "/machineTypes/e2-medium",
	}
}

func (c *Cloud) getInstance(r *http.Request) (any, error) {
	i, err := c.instance(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return c.instanceJSON(i), nil
}

func (c *Cloud) listInstances(r *http.Request) (any, error) {
	var all []*instance
	for _, i := range c.instances {
		if i.zone == r.PathValue("zone") {
			all = append(all, i)
		}
	}
	return c.page(r, "compute#instanceList", len(all), func(n int) (string, any, func(string) (string, bool)) {
		i := all[n]
		return i.name, c.instanceJSON(i), func(field string) (string, bool) {
			v, ok := map[string]string{"name": i.name, "status": i.status, "id": decimal(i.id)}[field]
			return v, ok
		}
	})
}

func (c *Cloud) attachDisk(r *http.Request) (any, error) {
	var req struct {
		Source      string `json:"source"`
		DeviceName  string `json:"deviceName"`
		Mode        string `json:"mode"`
		ForceAttach bool   `json:"forceAttach"`
	}
	if err := read(r, &req); err != nil {
		return nil, err
	}
	i, err := c.instance(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	d, err := c.disk(i.zone, last(req.Source))
	if err != nil || c.path(req.Source) != c.diskPath(d) {
		return nil, missing(c.path(req.Source))
	}
	index := 1
	for slices.ContainsFunc(i.disks, func(a attachment) bool { return a.index == index }) ||
		slices.Contains(i.pending, fmt.Sprint("persistent-disk-", index)) {
		index++
	}
	a := attachment{disk: d, device: cmp.Or(req.DeviceName, fmt.Sprint("persistent-disk-", index)), readOnly: req.Mode == "READ_ONLY", index: index}
	taken := slices.ContainsFunc(i.disks, func(b attachment) bool { return b.device == a.device }) || slices.Contains(i.pending, a.device)
	conflict := c.conflict(i, a)
	switch {
	case req.ForceAttach:
		return nil, invalid("forceAttach", "true", "Force attach is supported for regional disks only.")
	case !slices.Contains([]string{"", "READ_WRITE", "READ_ONLY"}, req.Mode):
		return nil, invalid("resource.mode", req.Mode, "Must be READ_WRITE or READ_ONLY.")
	case req.DeviceName != "" && !resourceName.MatchString(req.DeviceName):
		return nil, invalid("resource.deviceName", req.DeviceName, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
	case conflict != nil && !c.cfg.LateErrors:
		return nil, conflict
	case d.busy:
		return nil, notReady(c.diskPath(d))
	case i.status == "STOPPING":
		return nil, notReady(c.instancePath(i))
	case taken:
		return nil, invalid("resource.deviceName", a.device, "The device name is in use already.")
	case len(i.disks)+len(i.pending) >= c.cfg.PerInstance:
		return nil, &problem{
			http.StatusBadRequest, "limitExceeded",
			fmt.Sprintf("Exceeded limit 'maximum_persistent_disks' on resource '%s'. Limit: %d.0", i.name, c.cfg.PerInstance+1),
		}
	}
	d.busy = true
	i.pending = append(i.pending, a.device)
	return c.begin(r, "attachDisk", c.instancePath(i), i.id, c.cfg.Attach, func(failed bool) *problem {
		d.busy = false
		i.pending = slices.DeleteFunc(i.pending, func(name string) bool { return name == a.device })
		if conflict := c.conflict(i, a); conflict != nil {
			return conflict
		}
		if failed {
			return nil
		}
		if i.deleted {
			return missing(c.instancePath(i))
		}
		i.disks = append(i.disks, a)
		d.users[i.name] = !a.readOnly
		d.attached = c.clock.Now()
		c.changed(d)
		c.clock.AfterFunc(c.cfg.DeviceLag, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if slices.Contains(i.disks, a) {
				c.plug(i, a)
			}
		})
		return nil
	})
}

// conflict is why an instance cannot have a disk: one that someone may write to has no
// other users.
func (c *Cloud) conflict(i *instance, a attachment) *problem {
	for name, writes := range a.disk.users {
		if writes || !a.readOnly || name == i.name {
			return inUse(c.diskPath(a.disk), c.zonePath(i.zone)+"/instances/"+name)
		}
	}
	return nil
}

func (c *Cloud) detachDisk(r *http.Request) (any, error) {
	i, err := c.instance(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	device := r.URL.Query().Get("deviceName")
	at := slices.IndexFunc(i.disks, func(a attachment) bool { return a.device == device })
	if at < 0 {
		return nil, invalid("disk", device, "No attached disk found with device name '"+device+"'")
	}
	a := i.disks[at]
	if a.disk.busy {
		return nil, notReady(c.diskPath(a.disk))
	}
	a.disk.busy = true
	return c.begin(r, "detachDisk", c.instancePath(i), i.id, c.cfg.Detach, func(failed bool) *problem {
		a.disk.busy = false
		if failed {
			return nil
		}
		if err := c.pull(i, a.disk, !c.cfg.BusyFails); errors.Is(err, unix.EBUSY) {
			return &problem{http.StatusBadRequest, "timeout", "The instance did not let go of the disk in time."}
		}
		i.disks = slices.DeleteFunc(i.disks, func(b attachment) bool { return b == a })
		c.release(i, a.disk)
		return nil
	})
}

func (c *Cloud) release(i *instance, d *disk) {
	delete(d.users, i.name)
	d.detached = c.clock.Now()
	c.changed(d)
}

func (c *Cloud) stopInstance(r *http.Request) (any, error) {
	return c.power(r, "stop", "STOPPING", "TERMINATED", c.blackout)
}

func (c *Cloud) startInstance(r *http.Request) (any, error) {
	return c.power(r, "start", "PROVISIONING", "RUNNING", func(i *instance) error {
		var errs []error
		for _, a := range i.disks {
			errs = append(errs, c.plug(i, a))
		}
		return errors.Join(errs...)
	})
}

func (c *Cloud) power(r *http.Request, kind, meanwhile, then string, do func(*instance) error) (any, error) {
	i, err := c.instance(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if i.status == "STOPPING" || i.status == "PROVISIONING" {
		return nil, notReady(c.instancePath(i))
	}
	before := i.status
	i.status = meanwhile
	return c.begin(r, kind, c.instancePath(i), i.id, c.cfg.Other, func(failed bool) *problem {
		if failed {
			i.status = before
			return nil
		}
		i.status = then
		if err := do(i); err != nil {
			return &problem{http.StatusInternalServerError, "internalError", err.Error()}
		}
		return nil
	})
}

// deleteInstance lets go of the disks after the time Config.Gone; the instance is not
// found before that.
func (c *Cloud) deleteInstance(r *http.Request) (any, error) {
	return c.power(r, "delete", "STOPPING", "TERMINATED", func(i *instance) error {
		i.deleted = true
		delete(c.instances, i.zone+"/"+i.name)
		c.clock.AfterFunc(c.cfg.Gone, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, a := range i.disks {
				c.release(i, a.disk)
			}
			i.disks = nil
		})
		return c.blackout(i)
	})
}

// plug shows a disk to an instance that runs.
func (c *Cloud) plug(i *instance, a attachment) error {
	if i.host == nil || i.deleted || i.status != "RUNNING" {
		return nil
	}
	if _, there := i.host.Named(c.files.Path(a.disk.file())); there {
		return nil
	}
	_, err := i.host.Plug(machine.GCE(c.files.Path(a.disk.file()), a.device))
	return err
}

// pull takes a disk away from an instance, by force also one that is mounted.
func (c *Cloud) pull(i *instance, d *disk, force bool) error {
	if i.host == nil {
		return nil
	}
	name, there := i.host.Named(c.files.Path(d.file()))
	switch {
	case !there:
		return nil
	case force:
		return i.host.Yank(name)
	}
	return i.host.Unplug(name)
}

// grown tells the instances of a disk that it has a new size.
func (c *Cloud) grown(d *disk) *problem {
	for name := range d.users {
		i := c.instances[d.zone+"/"+name]
		if i == nil || i.host == nil {
			continue
		}
		device, there := i.host.Named(c.files.Path(d.file()))
		if !there {
			continue
		}
		if err := i.host.Grow(device); err != nil {
			return &problem{http.StatusInternalServerError, "internalError", err.Error()}
		}
	}
	return nil
}
