package csitest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/remora-plugins/remora/internal/mount"
)

// NodePublishVolume binds what is staged, or the volume, to the target.
func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	const rpc = "NodePublishVolume"
	target := r.GetTargetPath()
	if err := d.required(rpc, "volume_id", r.GetVolumeId(), "target_path", target); err != nil {
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
	from := d.s.data(v.Key)
	if d.o.Stage {
		s := v.staged(d.o.NodeID)
		switch {
		case r.GetStagingTargetPath() == "":
			return nil, d.wrong(rpc, "arguments", codes.FailedPrecondition, "no staging_target_path")
		case s == nil:
			return nil, d.wrong(rpc, "publish without stage", codes.FailedPrecondition, "volume %s is not staged", v.ID)
		case s.Path != r.GetStagingTargetPath():
			return nil, d.wrong(rpc, "different arguments", codes.InvalidArgument, "volume %s is staged at %s", v.ID, s.Path)
		case coarse(s.Cap) != coarse(c):
			return nil, d.wrong(rpc, "different arguments", codes.InvalidArgument, "volume %s is staged with %s", v.ID, s.Cap)
		}
		from = s.Path
	}
	if err := d.otherTargets(rpc, v, c, r); err != nil {
		return nil, err
	}
	if mounted(target) {
		if p := v.Published[target]; p == nil {
			return nil, d.wrong(rpc, "path", codes.FailedPrecondition, "%s is a mount of something else", target)
		}
		if r.GetReadonly() { // a kill may have come between the two steps of it
			if err := mount.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
		}
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := d.empty(rpc, target, false); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Dir(target)); err != nil {
		return nil, d.wrong(rpc, "path", codes.FailedPrecondition, "%s", err)
	}
	if err := d.shared(filepath.Dir(target)); err != nil {
		return nil, err
	}
	v.Published[target] = &Publication{Node: d.o.NodeID, Target: target, Cap: c, Readonly: r.GetReadonly()}
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if d.o.Lies.Unmounted {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if d.o.FUSE && !d.o.Stage {
		if err := errors.Join(os.MkdirAll(target, 0o750), d.raise(v, target)); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := bind(from, target, r.GetReadonly()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func bind(from, target string, readonly bool) error {
	if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := mount.Mount(from, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if !readonly {
		return nil
	}
	if err := mount.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return errors.Join(err, mount.Unmount(target))
	}
	return nil
}

// otherTargets compares with where the volume is published already.
func (d *driver) otherTargets(rpc string, v *Volume, c string, r *csi.NodePublishVolumeRequest) error {
	for _, p := range v.published(d.o.NodeID) {
		switch {
		case p.Target == r.GetTargetPath() && (p.Cap != c || p.Readonly != r.GetReadonly()):
			return d.wrong(rpc, "different arguments", codes.AlreadyExists, "volume %s is published at %s with %s, readonly %t", v.ID, p.Target, p.Cap, p.Readonly)
		case p.Target != r.GetTargetPath() && !manyTargets(c):
			return d.wrong(rpc, "second target", codes.FailedPrecondition, "volume %s is published at %s", v.ID, p.Target)
		}
	}
	return nil
}

// NodeUnpublishVolume unmounts the target and removes it.
func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	const rpc = "NodeUnpublishVolume"
	target := r.GetTargetPath()
	if err := d.required(rpc, "volume_id", r.GetVolumeId(), "target_path", target); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v := d.s.volumes[r.GetVolumeId()]
	if v == nil {
		return &csi.NodeUnpublishVolumeResponse{}, d.noVolume(r.GetVolumeId())
	}
	if v.Published[target] == nil {
		if mounted(target) {
			return nil, d.wrong(rpc, "path", codes.InvalidArgument, "volume %s is not published at %s, and something else is", v.ID, target)
		}
		return &csi.NodeUnpublishVolumeResponse{}, nil
	}
	if mounted(target) {
		if err := mount.Unmount(target); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	if !d.o.KeepTarget {
		if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	delete(v.Published, target)
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
