package ec2

import (
	"slices"
	"strconv"
	"time"
)

// modification is the last change to a volume's shape. A new one replaces it.
type modification struct {
	State    string // modifying optimizing completed
	From, To shape
	Start    time.Time
	Until    time.Time // when it is expected to be complete
	End      time.Time
}

func modifyVolume(r *request) (any, error) {
	id, err := r.must("VolumeId")
	if err != nil {
		return nil, err
	}
	h, err := r.volume(id)
	if err != nil {
		return nil, err
	}
	v, c := h.last(), r.cloud
	want, err := r.target(v.shape)
	if err != nil {
		return nil, err
	}
	switch {
	case v.State != "available" && v.State != "in-use":
		return nil, incorrectState("Volume '%s' is in the '%s' state.", id, v.State)
	case v.Type == "standard" && want.Type == "standard" && want.Size == v.Size:
		return nil, invalid("Volume type 'standard' can only be changed in size or type.")
	case want.Size < v.Size:
		return nil, invalid("New size cannot be smaller than existing size")
	case v.mod != nil && v.mod.State != "completed":
		return nil, fail("IncorrectModificationState", "Cannot modify volume %s in modification state %s", id, map[string]string{"modifying": "MODIFYING", "optimizing": "OPTIMIZING"}[v.mod.State])
	case !v.modified.IsZero() && r.now().Sub(v.modified) < c.conf.Limits.ModifyEvery:
		return nil, fail("VolumeModificationRateExceeded", "You've reached the maximum modification rate per volume limit. Wait at least 6 hours between modifications per EBS volume.")
	}
	if err := want.check(); err != nil {
		return nil, err
	}
	d := c.conf.Delays
	v.modified = r.now()
	v.mod = &modification{State: "modifying", From: v.shape, To: want, Start: r.now(), Until: r.now().Add(d.Modify + d.Optimize)}
	h.set(r.now(), v)
	answer := modificationXML(v, r.now())
	c.later(d.Modify, func() { c.modified(r.region, h, "optimizing") })
	c.later(d.Modify+d.Optimize, func() { c.modified(r.region, h, "completed") })
	return modifyXML{answer}, nil
}

// target is the shape that a call asks for, where what it does not say stays.
func (r *request) target(now shape) (shape, error) {
	want, err := r.shape()
	if err != nil {
		return want, err
	}
	if !r.has("VolumeType") {
		want.Type = now.Type
	}
	if !r.has("Size") {
		want.Size = now.Size
	}
	if !r.has("MultiAttachEnabled") {
		want.Multi = now.Multi
	}
	t := volumeTypes[want.Type]
	if !r.has("Iops") && t.maxIOPS > 0 && volumeTypes[now.Type].maxIOPS > 0 {
		want.IOPS = max(now.IOPS, t.minIOPS)
	}
	if !r.has("Throughput") && t.throughput {
		want.Throughput = now.Throughput
	}
	return want, nil
}

// modified brings a modification to its next state. The new size is there as soon as the
// volume is being optimized.
func (c *Cloud) modified(r *region, h *history[volume], state string) {
	v := h.last()
	if v.State == "" {
		return
	}
	m := *v.mod
	m.State = state
	switch state {
	case "completed":
		m.End = c.clock.Now()
	case "optimizing":
		v.shape = m.To
		c.failed(resize(c.file(r, v.ID), v.Size))
		for _, a := range v.Attached {
			i := r.instances[a.Instance]
			if name, there := i.machine.Named(c.file(r, v.ID)); there {
				c.failed(i.machine.Grow(name))
			}
		}
	}
	v.mod = &m
	h.set(c.clock.Now(), v)
}

func describeModifications(r *request) (any, error) {
	filters := r.filters()
	if err := checkFilters(filters, modificationField); err != nil {
		return nil, err
	}
	asked := r.list("VolumeId")
	v := r.cloud.views(len(asked) > 0)
	for _, id := range asked {
		h, err := r.volume(id)
		if err != nil {
			return nil, err
		}
		if value, _ := h.at(v.base); value.mod == nil {
			return nil, fail("InvalidVolumeModification.NotFound", "Modification for volume '%s' does not exist.", id)
		}
	}
	var ids []string
	for id, h := range r.region.volumes {
		value, ok := h.at(v.base)
		if ok && value.State != "" && value.mod != nil && (len(asked) == 0 || slices.Contains(asked, id)) && selected(h, v, filters, modificationField) {
			ids = append(ids, id)
		}
	}
	ids, next, err := page(r, ids)
	if err != nil {
		return nil, err
	}
	out := modificationsXML{NextToken: next}
	for _, id := range ids {
		value, _ := r.region.volumes[id].at(v.base)
		out.Modifications = append(out.Modifications, modificationXML(value, r.now()))
	}
	return out, nil
}

func modificationField(v volume, name string) ([]string, bool) {
	m := v.mod
	if m == nil {
		m = &modification{}
	}
	one, ok := map[string]string{
		"volume-id": v.ID, "modification-state": m.State, "start-time": stamp(m.Start),
		"target-size": strconv.Itoa(m.To.Size), "target-iops": strconv.Itoa(m.To.IOPS), "target-volume-type": m.To.Type,
		"original-size": strconv.Itoa(m.From.Size), "original-iops": strconv.Itoa(m.From.IOPS), "original-volume-type": m.From.Type,
	}[name]
	return []string{one}, ok
}
