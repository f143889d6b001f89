package csitest

import (
	"context"
	"io/fs"
	"maps"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ControllerExpandVolume makes a volume larger.
func (d *driver) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	const rpc = "ControllerExpandVolume"
	if err := d.lacking(rpc, d.o.ExpandOnline || d.o.ExpandOffline); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if r.GetCapacityRange() == nil {
		return nil, d.wrong(rpc, "arguments", codes.InvalidArgument, "no capacity_range")
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	size, err := d.sizeFor(rpc, r.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	inUse := len(v.Attached) > 0 || v.staged(d.o.NodeID) != nil || len(v.published(d.o.NodeID)) > 0
	if !d.o.ExpandOnline && inUse {
		return nil, d.wrong(rpc, "expand while published", codes.FailedPrecondition, "volume %s is at a node, and can be expanded offline only", v.ID)
	}
	if limit := r.GetCapacityRange().GetLimitBytes(); limit > 0 && limit < v.Size {
		return nil, status.Errorf(codes.OutOfRange, "volume %s has %d bytes, and does not become smaller", v.ID, v.Size)
	}
	if size > v.Size {
		if d.used()-v.Size+size > d.o.Bytes {
			return nil, status.Errorf(codes.OutOfRange, "%d bytes are left", d.o.Bytes-d.used())
		}
		v.Size = size
		if !d.o.NodeExpand {
			v.NodeSize = size
		}
		if err := d.s.saveVolume(v); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: v.Size, NodeExpansionRequired: d.o.NodeExpand}, nil
}

// NodeExpandVolume makes the file system of a volume as large as the volume.
func (d *driver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	const rpc = "NodeExpandVolume"
	if err := d.lacking(rpc, d.o.NodeExpand); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "volume_id", r.GetVolumeId(), "volume_path", r.GetVolumePath()); err != nil {
		return nil, err
	}
	if c := r.GetVolumeCapability(); c != nil {
		if _, err := d.capability(rpc, c); err != nil {
			return nil, err
		}
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if !d.isAt(v, r.GetVolumePath()) {
		return nil, d.wrong(rpc, "path", codes.NotFound, "volume %s is neither staged nor published at %s", v.ID, r.GetVolumePath())
	}
	if s := v.staged(d.o.NodeID); s != nil && r.GetStagingTargetPath() != "" && s.Path != r.GetStagingTargetPath() {
		return nil, d.wrong(rpc, "different arguments", codes.InvalidArgument, "volume %s is staged at %s", v.ID, s.Path)
	}
	c := r.GetCapacityRange()
	alone := !d.o.ExpandOnline && !d.o.ExpandOffline
	switch {
	case c.GetRequiredBytes() > v.Size && !alone:
		return nil, d.wrong(rpc, "expand at the node first", codes.OutOfRange, "volume %s has %d bytes, and not %d", v.ID, v.Size, c.GetRequiredBytes())
	case c.GetLimitBytes() > 0 && c.GetLimitBytes() < v.NodeSize:
		return nil, status.Errorf(codes.OutOfRange, "volume %s has %d bytes, and does not become smaller", v.ID, v.NodeSize)
	}
	grown := max(v.Size, c.GetRequiredBytes())
	if d.used()-v.Size+grown > d.o.Bytes {
		return nil, status.Errorf(codes.OutOfRange, "%d bytes are left", d.o.Bytes-d.used())
	}
	v.Size, v.NodeSize = grown, grown
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: v.Size}, nil
}

// isAt tells whether a volume is staged or published at a path of this node.
func (d *driver) isAt(v *Volume, path string) bool {
	if s := v.staged(d.o.NodeID); s != nil && s.Path == path {
		return true
	}
	for _, p := range v.published(d.o.NodeID) {
		if p.Target == path {
			return true
		}
	}
	return false
}

// NodeGetVolumeStats says how full a volume is.
func (d *driver) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	const rpc = "NodeGetVolumeStats"
	if err := d.lacking(rpc, d.o.Stats); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "volume_id", r.GetVolumeId(), "volume_path", r.GetVolumePath()); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if !d.isAt(v, r.GetVolumePath()) {
		return nil, status.Errorf(codes.NotFound, "volume %s is not at %s", v.ID, r.GetVolumePath())
	}
	var bytes, files int64
	err = filepath.WalkDir(d.s.data(v.Key), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			bytes += fi.Size()
		}
		files++
		return nil
	})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: v.NodeSize, Used: bytes, Available: max(v.NodeSize-bytes, 0)},
		{Unit: csi.VolumeUsage_INODES, Total: 1 << 20, Used: files, Available: 1<<20 - files},
	}}, nil
}

// ControllerModifyVolume changes the mutable parameters.
func (d *driver) ControllerModifyVolume(_ context.Context, r *csi.ControllerModifyVolumeRequest) (*csi.ControllerModifyVolumeResponse, error) {
	const rpc = "ControllerModifyVolume"
	if err := d.lacking(rpc, d.o.Modify); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(r.GetMutableParameters()) == 0 {
		return nil, d.wrong(rpc, "arguments", codes.InvalidArgument, "no mutable_parameters")
	}
	if err := d.mutable(r.GetMutableParameters()); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if v.Mutable == nil {
		v.Mutable = map[string]string{}
	}
	maps.Copy(v.Mutable, r.GetMutableParameters())
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.ControllerModifyVolumeResponse{}, nil
}

// mutable refuses mutable parameters that are unknown.
func (d *driver) mutable(params map[string]string) error {
	for _, k := range sortedKeys(params) {
		if k != "iops" && k != "throughput" {
			return status.Errorf(codes.InvalidArgument, "no mutable parameter %q; there are iops and throughput", k)
		}
	}
	return nil
}
