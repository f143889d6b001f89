package csitest

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/remora-plugins/remora/internal/mount"
)

func within(p, sub string) bool { return strings.HasSuffix(p, sub) || strings.Contains(p, sub+"/") }

// attached checks that a volume is at this node, and that what is said of it is right.
func (d *driver) attached(rpc string, v *Volume, c string, given map[string]string) error {
	if !v.granted(c) {
		return d.wrong(rpc, "capability", codes.InvalidArgument, "%s, and volume %s was made for %q", c, v.ID, v.Caps)
	}
	if !d.o.Attach {
		return nil
	}
	a := v.Attached[d.o.NodeID]
	switch {
	case a == nil:
		return d.wrong(rpc, "not attached", codes.FailedPrecondition, "volume %s is not attached to %s", v.ID, d.o.NodeID)
	case !maps.Equal(a.Context, given):
		return d.wrong(rpc, "publish context", codes.InvalidArgument, "the publish_context of %s is not that of its attachment", v.ID)
	case a.Cap != c:
		return d.wrong(rpc, "different arguments", codes.InvalidArgument, "volume %s was attached with %s, not %s", v.ID, a.Cap, c)
	}
	return nil
}

// NodeStageVolume mounts a volume at the staging path.
func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	const rpc = "NodeStageVolume"
	if err := d.lacking(rpc, d.o.Stage); err != nil {
		return nil, err
	}
	path := r.GetStagingTargetPath()
	if err := d.required(rpc, "volume_id", r.GetVolumeId(), "staging_target_path", path); err != nil {
		return nil, err
	}
	c, err := d.capability(rpc, r.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := errors.Join(d.attached(rpc, v, c, r.GetPublishContext()), d.sameContext(rpc, v, r.GetVolumeContext())); err != nil {
		return nil, first(err)
	}
	if s := v.staged(d.o.NodeID); s != nil {
		if s.Path != path || s.Cap != c {
			return nil, d.wrong(rpc, "different arguments", codes.AlreadyExists, "volume %s is staged at %s with %s", v.ID, s.Path, s.Cap)
		}
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if err := d.empty(rpc, path, true); err != nil {
		return nil, err
	}
	if err := d.shared(path); err != nil {
		return nil, err
	}
	v.Staged[d.o.NodeID] = &Stage{Path: path, Cap: c}
	if d.o.Lies.ForgetsGrowth {
		v.NodeSize = v.Made
	}
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := d.raise(v, path); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// NodeUnstageVolume unmounts a volume from the staging path.
func (d *driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	const rpc = "NodeUnstageVolume"
	if err := d.lacking(rpc, d.o.Stage); err != nil {
		return nil, err
	}
	path := r.GetStagingTargetPath()
	if err := d.required(rpc, "volume_id", r.GetVolumeId(), "staging_target_path", path); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v := d.s.volumes[r.GetVolumeId()]
	if v == nil {
		return &csi.NodeUnstageVolumeResponse{}, d.noVolume(r.GetVolumeId())
	}
	s := v.staged(d.o.NodeID)
	if s != nil && s.Path != path {
		return nil, d.wrong(rpc, "different arguments", codes.InvalidArgument, "volume %s is staged at %s, not at %s", v.ID, s.Path, path)
	}
	if p := v.published(d.o.NodeID); len(p) > 0 {
		return nil, d.wrong(rpc, "unstage while published", codes.FailedPrecondition, "volume %s is published at %s", v.ID, p[0].Target)
	}
	for _, at := range d.mountsOf(v) {
		if at != path {
			return nil, d.wrong(rpc, "unstage under a mount", codes.FailedPrecondition, "volume %s is mounted at %s", v.ID, at)
		}
	}
	if s != nil {
		if err := d.shared(path); err != nil {
			return nil, err
		}
		if err := mount.Unmount(path); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	delete(v.Staged, d.o.NodeID)
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// empty checks that a directory can be mounted on without hiding anything.
func (d *driver) empty(rpc, path string, must bool) error {
	if !filepath.IsAbs(path) {
		return d.wrong(rpc, "path", codes.InvalidArgument, "%q is not absolute", path)
	}
	list, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !must:
		return nil
	case err != nil:
		return d.wrong(rpc, "path", codes.FailedPrecondition, "%s", err)
	case len(list) > 0:
		return d.wrong(rpc, "path", codes.FailedPrecondition, "%s is no mountpoint, and not empty", path)
	}
	return nil
}

func (d *driver) shared(path string) error {
	if !d.o.SharedOnly {
		return nil
	}
	if is, at, err := mount.Shared(path); err != nil || !is {
		return status.Errorf(codes.FailedPrecondition, "path %s is on %s, which is not a shared mount (%v)", path, at, err)
	}
	return nil
}

// first is the first of joined errors.
func first(err error) error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		return many.Unwrap()[0]
	}
	return err
}
