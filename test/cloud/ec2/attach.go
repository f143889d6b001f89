package ec2

import (
	"errors"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/cloud/machine"
)

// multiAttach is to how many instances a volume may be attached.
const multiAttach = 16

var devicePattern = regexp.MustCompile(`^(/dev/)?(sd[b-z]|xvd[b-z]|xvd[b-d][a-z])$`)

func attachVolume(r *request) (any, error) {
	h, i, err := r.pair()
	if err != nil {
		return nil, err
	}
	v, device := h.last(), r.get("Device")
	if device == "" {
		return nil, missing("device")
	}
	if !devicePattern.MatchString(device) {
		return nil, invalid("Value (%s) for parameter device is invalid. %s is not a valid EBS device name.", device, device)
	}
	switch {
	case i.state != "running" && i.state != "stopped":
		return nil, incorrectState("Instance '%s' is not 'running'.", i.ID)
	case v.Zone != i.Zone:
		return nil, fail("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.ID, i.ID)
	case v.State == "in-use" && (!v.Multi || slices.ContainsFunc(v.Attached, func(a attachment) bool { return a.Instance == i.ID })):
		return nil, fail("VolumeInUse", "%s is already attached to an instance", v.ID)
	case v.State != "in-use" && v.State != "available":
		return nil, incorrectState("Volume '%s' is not 'available'.", v.ID)
	case len(v.Attached) >= multiAttach:
		return nil, fail("AttachmentLimitExceeded", "Volume %s has reached its limit of %d attachments", v.ID, multiAttach)
	}
	others := r.region.on(i.ID)
	for _, a := range others {
		if a.Device == device {
			return nil, invalid("Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
		}
	}
	if len(others) >= r.cloud.conf.Limits.Attachments {
		return nil, fail("AttachmentLimitExceeded", "Volume attachment limit exceeded for instance '%s'", i.ID)
	}
	a := attachment{v.ID, i.ID, device, "attaching", r.now()}
	v.State, v.Attached = "in-use", append(slices.Clone(v.Attached), a)
	h.set(r.now(), v)
	if !r.stuck {
		r.cloud.later(r.cloud.conf.Delays.Attach, func() { r.cloud.attached(r.region, h, i) })
	}
	return attachmentXML(a), nil
}

// pair returns the volume and the instance that a call is about.
func (r *request) pair() (*history[volume], *Instance, error) {
	id, err := r.must("VolumeId")
	if err != nil {
		return nil, nil, err
	}
	h, err := r.volume(id)
	if err != nil {
		return nil, nil, err
	}
	id, err = r.must("InstanceId")
	if err != nil {
		return nil, nil, err
	}
	i, err := r.instance(id)
	return h, i, err
}

// on returns what is attached to an instance.
func (r *region) on(instance string) (out []attachment) {
	for _, h := range r.volumes {
		for _, a := range h.last().Attached {
			if a.Instance == instance {
				out = append(out, a)
			}
		}
	}
	return out
}

// become sets the state of an attachment, or takes it away if the state is empty.
func (c *Cloud) become(h *history[volume], instance, state string) {
	v := h.last()
	v.Attached = slices.Clone(v.Attached)
	for n, a := range v.Attached {
		if a.Instance != instance {
			continue
		}
		v.Attached[n].State = state
		if state == "" {
			v.Attached = slices.Delete(v.Attached, n, n+1)
		}
		break
	}
	if len(v.Attached) == 0 && v.State == "in-use" {
		v.State = "available"
	}
	h.set(c.clock.Now(), v)
}

// stateOf returns the state of an attachment, empty if there is none.
func stateOf(h *history[volume], instance string) string {
	for _, a := range h.last().Attached {
		if a.Instance == instance {
			return a.State
		}
	}
	return ""
}

// attached ends what AttachVolume began. The device may come a while after it is said to be
// there.
func (c *Cloud) attached(r *region, h *history[volume], i *Instance) {
	if stateOf(h, i.ID) != "attaching" {
		return // detached meanwhile
	}
	c.become(h, i.ID, "attached")
	since := attachedSince(h, i.ID)
	c.later(c.conf.Delays.Device, func() {
		if i.state == "running" && attachedSince(h, i.ID).Equal(since) {
			c.failed(c.plug(r, h.last(), i))
		}
	})
}

// attachedSince tells one attachment of a volume from the next.
func attachedSince(h *history[volume], instance string) (since time.Time) {
	for _, a := range h.last().Attached {
		if a.Instance == instance && a.State == "attached" {
			since = a.Since
		}
	}
	return since
}

// plug shows a volume on a machine, in the way of its type.
func (c *Cloud) plug(r *region, v volume, i *Instance) error {
	file := c.file(r, v.ID)
	if _, there := i.machine.Named(file); there {
		return nil
	}
	disk := machine.EBS(file, v.ID)
	if i.xen() {
		for _, a := range v.Attached {
			if a.Instance == i.ID {
				disk = machine.XenEBS(file, a.Device)
			}
		}
	}
	_, err := i.machine.Plug(disk)
	return err
}

// unplug takes a volume off a machine; by force, whatever is mounted.
func (c *Cloud) unplug(r *region, v volume, i *Instance, force bool) error {
	name, there := i.machine.Named(c.file(r, v.ID))
	if !there {
		return nil
	}
	err := i.machine.Unplug(name)
	if force && errors.Is(err, unix.EBUSY) {
		return i.machine.Yank(name)
	}
	return err
}

func detachVolume(r *request) (any, error) {
	id, err := r.must("VolumeId")
	if err != nil {
		return nil, err
	}
	h, err := r.volume(id)
	if err != nil {
		return nil, err
	}
	force, err := r.yes("Force")
	if err != nil {
		return nil, err
	}
	v := h.last()
	if len(v.Attached) == 0 {
		return nil, incorrectState("Volume '%s'is in the '%s' state.", v.ID, v.State)
	}
	a, err := r.which(v)
	if err != nil {
		return nil, err
	}
	i := r.region.instances[a.Instance]
	if a.State == "attaching" && !force {
		return nil, incorrectState("Volume '%s' is in the 'attaching' state.", v.ID)
	}
	if a.State != "detaching" && a.State != "busy" || force {
		c := r.cloud
		if a.State != "busy" {
			a.State = "detaching"
			c.become(h, i.ID, a.State)
		}
		if !r.stuck {
			c.later(c.conf.Delays.Detach, func() { c.detached(r.region, h, i, a, force) })
		}
	}
	return attachmentXML(a), nil
}

// which returns the attachment that a call is about, which it may leave open where there is
// but one.
func (r *request) which(v volume) (attachment, error) {
	instance, device := r.get("InstanceId"), r.get("Device")
	if instance == "" && len(v.Attached) > 1 {
		return attachment{}, missing("instanceId")
	}
	for _, a := range v.Attached {
		if (instance == "" || a.Instance == instance) && (device == "" || a.Device == device) {
			return a, nil
		}
	}
	return attachment{}, fail("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s' as device '%s'.", v.ID, instance, device)
}

// detached ends what DetachVolume began. A volume that is mounted is busy, and looked at
// again until it is not.
func (c *Cloud) detached(r *region, h *history[volume], i *Instance, a attachment, force bool) {
	ours := slices.ContainsFunc(h.last().Attached, func(b attachment) bool { return b.Instance == i.ID && b.Since.Equal(a.Since) })
	if state := stateOf(h, i.ID); !ours || state != "detaching" && state != "busy" {
		return
	}
	err := c.unplug(r, h.last(), i, force)
	if errors.Is(err, unix.EBUSY) {
		if stateOf(h, i.ID) != "busy" {
			c.become(h, i.ID, "busy")
		}
		c.later(c.conf.Delays.Busy, func() { c.detached(r, h, i, a, false) })
		return
	}
	c.failed(err)
	c.become(h, i.ID, "")
}
