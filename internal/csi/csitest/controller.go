package csitest

import (
	"context"
	"maps"
	"os"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lacking is the error of a call for which a capability is not announced.
func (d *driver) lacking(rpc string, has bool) error {
	if has {
		return nil
	}
	return d.wrong(rpc, "not announced", codes.Unimplemented, "%s, which no capability announces", rpc)
}

// volume returns a volume for a call that is of one that exists.
func (d *driver) volume(rpc, id string) (*Volume, error) {
	if err := d.required(rpc, "volume_id", id); err != nil {
		return nil, err
	}
	if v := d.s.volumes[id]; v != nil {
		return v, nil
	}
	if d.s.deleted[id] {
		return nil, d.wrong(rpc, "after delete", codes.NotFound, "volume %s was deleted", id)
	}
	return nil, status.Errorf(codes.NotFound, "no volume %s", id)
}

// gone returns a volume for a call that is content where there is none.
func (d *driver) gone(rpc, id string) (*Volume, error) {
	if err := d.required(rpc, "volume_id", id); err != nil {
		return nil, err
	}
	return d.s.volumes[id], nil
}

// noVolume is the answer to a call that is content where there is no volume.
func (d *driver) noVolume(id string) error {
	if !d.o.NotFound {
		return nil
	}
	return status.Errorf(codes.NotFound, "no volume %s", id)
}

// CreateVolume makes a volume, once for each name.
func (d *driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	const rpc = "CreateVolume"
	if err := d.required(rpc, "name", r.GetName()); err != nil {
		return nil, err
	}
	if len(r.GetVolumeCapabilities()) == 0 {
		return nil, d.wrong(rpc, "arguments", codes.InvalidArgument, "no volume_capabilities")
	}
	var caps []string
	for _, c := range r.GetVolumeCapabilities() {
		text, err := d.capability(rpc, c)
		if err != nil {
			return nil, err
		}
		caps = append(caps, text)
	}
	for k, want := range d.o.Parameters {
		if r.GetParameters()[k] != want {
			return nil, status.Errorf(codes.InvalidArgument, "parameter %s is %q, not %q", k, r.GetParameters()[k], want)
		}
	}
	if len(r.GetMutableParameters()) > 0 && !d.o.Modify {
		return nil, d.wrong(rpc, "not announced", codes.InvalidArgument, "mutable_parameters without MODIFY_VOLUME")
	}
	if err := d.mutable(r.GetMutableParameters()); err != nil {
		return nil, err
	}
	if r.GetAccessibilityRequirements() != nil && d.o.Topology == nil {
		return nil, d.wrong(rpc, "not announced", codes.InvalidArgument, "accessibility_requirements without VOLUME_ACCESSIBILITY_CONSTRAINTS")
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	size, err := d.sizeFor(rpc, r.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	if v := d.s.volumeNamed(r.GetName()); v != nil {
		if !d.o.Lies.AnySize {
			if err := d.sameVolume(v, r, caps); err != nil {
				return nil, err
			}
		}
		return &csi.CreateVolumeResponse{Volume: d.answer(v, r.GetVolumeContentSource())}, nil
	}
	return d.makeVolume(rpc, r, caps, size)
}

func (d *driver) makeVolume(rpc string, r *csi.CreateVolumeRequest, caps []string, size int64) (*csi.CreateVolumeResponse, error) {
	v := &Volume{
		Name: r.GetName(), Key: newKey(), Params: r.GetParameters(), Mutable: r.GetMutableParameters(), Caps: caps, Size: size,
		Attached: map[string]*Attachment{}, Staged: map[string]*Stage{}, Published: map[string]*Publication{},
	}
	from, atLeast, err := d.source(rpc, r.GetVolumeContentSource())
	switch {
	case err != nil:
		return nil, err
	case r.GetCapacityRange() == nil && from != "":
		v.Size = atLeast
	case v.Size < atLeast:
		return nil, status.Errorf(codes.OutOfRange, "%d bytes are less than those of the source, %d", v.Size, atLeast)
	}
	if d.used()+v.Size > d.o.Bytes {
		return nil, status.Errorf(codes.ResourceExhausted, "%d bytes are left", d.o.Bytes-d.used())
	}
	v.Source, v.Topology = sourceID(r.GetVolumeContentSource()), d.place(r.GetAccessibilityRequirements())
	if d.o.Topology != nil && v.Topology == nil {
		return nil, status.Error(codes.ResourceExhausted, "no storage there")
	}
	v.ID = "vol-" + v.Key
	if d.o.OddIDs {
		v.ID = "/pools/csitest/" + v.Key + "?kind=odd&name=" + v.Name
		v.ID = v.ID[:min(len(v.ID), 128)]
	}
	v.Context = map[string]string{"csitest/key": v.Key, "csitest/name": v.Name}
	if from != "" && d.o.PendingAfter > 0 {
		if d.copies(r.GetName()) <= d.o.PendingAfter {
			return nil, status.Error(codes.Aborted, "the copy is not made yet")
		}
	}
	if from != "" {
		err = d.s.copyData(from, v.Key)
	} else {
		err = os.MkdirAll(d.s.data(v.Key), 0o755) //nolint:gosec // as the root of a file system is
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	switch {
	case d.o.Lies.Larger:
		v.Size = max(r.GetCapacityRange().GetLimitBytes(), v.Size) * 2
	case d.o.Lies.Smaller:
		v.Size /= 2
	}
	v.NodeSize, v.Made = v.Size, v.Size
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	d.s.volumes[v.ID] = v
	return &csi.CreateVolumeResponse{Volume: d.answer(v, r.GetVolumeContentSource())}, nil
}

// copies counts the calls that asked for the copy of a name. A driver that is killed begins anew.
func (d *driver) copies(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.copied == nil {
		d.copied = map[string]int{}
	}
	d.copied[name]++
	return d.copied[name]
}

func (d *driver) sizeFor(rpc string, r *csi.CapacityRange) (int64, error) {
	switch {
	case r == nil:
		return d.o.DefaultSize, nil
	case r.GetRequiredBytes() < 0 || r.GetLimitBytes() < 0:
		return 0, d.wrong(rpc, "arguments", codes.InvalidArgument, "a negative size")
	case r.GetLimitBytes() > 0 && r.GetRequiredBytes() > r.GetLimitBytes():
		return 0, d.wrong(rpc, "arguments", codes.InvalidArgument, "at least %d and at most %d bytes", r.GetRequiredBytes(), r.GetLimitBytes())
	case r.GetRequiredBytes() > d.o.Bytes:
		return 0, status.Errorf(codes.OutOfRange, "at most %d bytes", d.o.Bytes)
	case r.GetRequiredBytes() > 0:
		return r.GetRequiredBytes(), nil
	case r.GetLimitBytes() > 0:
		return min(d.o.DefaultSize, r.GetLimitBytes()), nil
	}
	return 0, d.wrong(rpc, "arguments", codes.InvalidArgument, "a capacity_range without a number")
}

// sameVolume compares a volume with a request of its name.
func (d *driver) sameVolume(v *Volume, r *csi.CreateVolumeRequest, caps []string) error {
	var what string
	c := r.GetCapacityRange()
	switch {
	case c.GetRequiredBytes() > v.Size, c.GetLimitBytes() > 0 && c.GetLimitBytes() < v.Size && !d.o.Lies.Larger:
		what = "size"
	case !maps.Equal(v.Params, r.GetParameters()):
		what = "parameters"
	case !slices.Equal(v.Caps, caps):
		what = "capabilities"
	case v.Source != sourceID(r.GetVolumeContentSource()):
		what = "source"
	default:
		return nil
	}
	return d.wrong("CreateVolume", "different arguments", codes.AlreadyExists, "volume %q is there, with another %s", v.Name, what)
}

func (d *driver) used() (n int64) {
	for _, v := range d.s.volumes {
		n += v.Size
	}
	return n
}

// place chooses where a volume is: the first that is preferred, or possible.
func (d *driver) place(r *csi.TopologyRequirement) map[string]string {
	if all := slices.Concat(r.GetPreferred(), r.GetRequisite()); len(all) > 0 {
		return all[0].GetSegments()
	}
	return d.o.Topology
}

func (d *driver) answer(v *Volume, src *csi.VolumeContentSource) *csi.Volume {
	a := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Size, VolumeContext: v.Context, ContentSource: src}
	if d.o.Lies.NoCapacity {
		a.CapacityBytes = 0
	}
	if v.Topology != nil && d.o.Topology != nil {
		a.AccessibleTopology = []*csi.Topology{{Segments: v.Topology}}
	}
	return a
}

// DeleteVolume removes a volume that nobody has.
func (d *driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	const rpc = "DeleteVolume"
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.gone(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if v == nil {
		return &csi.DeleteVolumeResponse{}, d.noVolume(r.GetVolumeId())
	}
	if v.Attached[d.o.NodeID] != nil {
		return nil, d.wrong(rpc, "delete while attached", codes.FailedPrecondition, "volume %s is attached to %s", v.ID, d.o.NodeID)
	}
	if others := sortedKeys(v.Attached); len(others) > 0 {
		return nil, d.inUse(v, others[0])
	}
	if s := v.staged(d.o.NodeID); s != nil {
		return nil, d.wrong(rpc, "delete while staged", codes.FailedPrecondition, "volume %s is staged at %s", v.ID, s.Path)
	}
	if p := v.published(d.o.NodeID); len(p) > 0 {
		return nil, d.wrong(rpc, "delete while published", codes.FailedPrecondition, "volume %s is published at %s", v.ID, p[0].Target)
	}
	if m := d.mountsOf(v); len(m) > 0 {
		return nil, d.wrong(rpc, "delete while mounted", codes.FailedPrecondition, "volume %s is mounted at %s", v.ID, m[0])
	}
	if err := d.s.save("deleted", v.Key, v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := d.s.drop("volumes", v.Key); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	delete(d.s.volumes, v.ID)
	d.s.deleted[v.ID] = true
	if err := os.RemoveAll(d.s.data(v.Key)); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// inUse is the error where another node has a volume, for which the caller can do nothing.
func (d *driver) inUse(v *Volume, node string) error {
	if d.o.Lies.WrongCodes {
		return status.Errorf(codes.Internal, "VolumeInUse: volume %s is attached to %s", v.ID, node)
	}
	return status.Errorf(codes.FailedPrecondition, "volume %s is attached to %s", v.ID, node)
}
