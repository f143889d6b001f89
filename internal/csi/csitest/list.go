package csitest

import (
	"context"
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// page returns the part of a list that is asked for, and the token of the next one. A list may change between two pages.
func page[T any](d *driver, rpc string, all []T, token string, most int32) ([]T, string, error) {
	start := 0
	if token != "" {
		var err error
		if start, err = strconv.Atoi(token); err != nil || start < 0 || start > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "no page %q; begin anew", token)
		}
	}
	switch {
	case most < 0:
		return nil, "", d.wrong(rpc, "arguments", codes.InvalidArgument, "max_entries %d", most)
	case most == 0 || start+int(most) >= len(all):
		return all[start:], "", nil
	}
	return all[start : start+int(most)], strconv.Itoa(start + int(most)), nil
}

// ListVolumes lists the volumes, by id.
func (d *driver) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	const rpc = "ListVolumes"
	if err := d.lacking(rpc, d.o.List); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.o.Lies.CrashOnList && len(d.s.volumes) > 0 {
		d.end()
		return nil, status.Error(codes.Unavailable, "the driver has crashed")
	}
	ids, next, err := page(d, rpc, sortedKeys(d.s.volumes), r.GetStartingToken(), r.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	resp := &csi.ListVolumesResponse{NextToken: next}
	for _, id := range ids {
		v := d.s.volumes[id]
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{
			Volume: d.answer(v, nil), Status: &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: sortedKeys(v.Attached)},
		})
	}
	return resp, nil
}

// ControllerGetVolume tells of one volume.
func (d *driver) ControllerGetVolume(_ context.Context, r *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	const rpc = "ControllerGetVolume"
	if err := d.lacking(rpc, d.o.List); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: d.answer(v, nil), Status: &csi.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: sortedKeys(v.Attached)},
	}, nil
}

// ListSnapshots lists snapshots, by id.
func (d *driver) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	const rpc = "ListSnapshots"
	if err := d.lacking(rpc, d.o.Snapshots && d.o.List); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	all := slices.DeleteFunc(sortedKeys(d.s.snapshots), func(id string) bool {
		s := d.s.snapshots[id]
		return r.GetSnapshotId() != "" && r.GetSnapshotId() != id || r.GetSourceVolumeId() != "" && r.GetSourceVolumeId() != s.Volume
	})
	ids, next, err := page(d, rpc, all, r.GetStartingToken(), r.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	resp := &csi.ListSnapshotsResponse{NextToken: next}
	for _, id := range ids {
		resp.Entries = append(resp.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: d.snapshotAnswer(d.s.snapshots[id])})
	}
	return resp, nil
}

// GetSnapshot tells of one snapshot.
func (d *driver) GetSnapshot(_ context.Context, r *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	const rpc = "GetSnapshot"
	if err := d.lacking(rpc, d.o.Snapshots && d.o.List); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "snapshot_id", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	s := d.s.snapshots[r.GetSnapshotId()]
	if s == nil {
		return nil, status.Errorf(codes.NotFound, "no snapshot %s", r.GetSnapshotId())
	}
	return &csi.GetSnapshotResponse{Snapshot: d.snapshotAnswer(s)}, nil
}

// GetCapacity says how much is left.
func (d *driver) GetCapacity(_ context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	const rpc = "GetCapacity"
	if err := d.lacking(rpc, d.o.Capacity); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return &csi.GetCapacityResponse{AvailableCapacity: d.o.Bytes - d.used()}, nil
}

// ValidateVolumeCapabilities confirms what a volume was made for.
func (d *driver) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	const rpc = "ValidateVolumeCapabilities"
	if err := d.required(rpc, "volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(r.GetVolumeCapabilities()) == 0 {
		return nil, d.wrong(rpc, "arguments", codes.InvalidArgument, "no volume_capabilities")
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	for _, c := range r.GetVolumeCapabilities() {
		text, err := d.capability(rpc, c)
		if err != nil {
			return nil, err
		}
		if !v.granted(text) {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: text + " is not what it was made for"}, nil
		}
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.GetVolumeContext(), VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: r.GetParameters(), MutableParameters: r.GetMutableParameters(),
	}}, nil
}
