package csitest

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func sourceID(src *csi.VolumeContentSource) string {
	if s := src.GetSnapshot(); s != nil {
		return s.GetSnapshotId()
	}
	return src.GetVolume().GetVolumeId()
}

// source returns the key of the data that a volume is made of, and how large that is.
func (d *driver) source(rpc string, src *csi.VolumeContentSource) (key string, size int64, err error) {
	switch {
	case src == nil:
		return "", 0, nil
	case src.GetSnapshot() != nil:
		if err := d.lacking(rpc, d.o.Snapshots); err != nil {
			return "", 0, err
		}
		s := d.s.snapshots[src.GetSnapshot().GetSnapshotId()]
		if s == nil {
			return "", 0, status.Errorf(codes.NotFound, "no snapshot %s", src.GetSnapshot().GetSnapshotId())
		}
		if !d.ready(s) {
			return "", 0, d.wrong(rpc, "snapshot not ready", codes.FailedPrecondition, "snapshot %s is not ready", s.ID)
		}
		return s.Key, s.Size, nil
	case src.GetVolume() != nil:
		if err := d.lacking(rpc, d.o.Clones); err != nil {
			return "", 0, err
		}
		v := d.s.volumes[src.GetVolume().GetVolumeId()]
		if v == nil {
			return "", 0, status.Errorf(codes.NotFound, "no volume %s", src.GetVolume().GetVolumeId())
		}
		return v.Key, v.Size, nil
	}
	return "", 0, d.wrong(rpc, "arguments", codes.InvalidArgument, "a volume_content_source of nothing")
}

func (d *driver) ready(s *Snapshot) bool { return s.Calls >= d.o.ReadyAfter }

// CreateSnapshot makes a snapshot, once for each name.
func (d *driver) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	const rpc = "CreateSnapshot"
	if err := d.lacking(rpc, d.o.Snapshots); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "source_volume_id", r.GetSourceVolumeId(), "name", r.GetName()); err != nil {
		return nil, err
	}
	for k, want := range d.o.SnapshotParameters {
		if r.GetParameters()[k] != want {
			return nil, status.Errorf(codes.InvalidArgument, "parameter %s is %q, not %q", k, r.GetParameters()[k], want)
		}
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	s, err := d.snapshot(rpc, r.GetName(), r.GetSourceVolumeId(), "")
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: d.snapshotAnswer(s)}, nil
}

// snapshot makes a snapshot, or finds it.
func (d *driver) snapshot(rpc, name, of, group string) (*Snapshot, error) {
	if s := d.s.snapshotNamed(name); s != nil {
		if s.Volume != of {
			return nil, d.wrong(rpc, "different arguments", codes.AlreadyExists, "snapshot %q is there, of volume %s", name, s.Volume)
		}
		if s.Calls < d.o.ReadyAfter {
			s.Calls++
			if err := d.s.save("snapshots", s.Key, s); err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
		}
		return s, nil
	}
	v, err := d.volume(rpc, of)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Name: name, Key: newKey(), Volume: of, Group: group, Size: v.Size, Created: time.Now(), Calls: 1}
	s.ID = "snap-" + s.Key
	if err := d.s.copyData(v.Key, s.Key); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := d.s.save("snapshots", s.Key, s); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	d.s.snapshots[s.ID] = s
	return s, nil
}

func (d *driver) snapshotAnswer(s *Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.Volume, SizeBytes: s.Size, CreationTime: timestamppb.New(s.Created), ReadyToUse: d.ready(s), GroupSnapshotId: s.Group,
	}
}

// failedBefore is what a liar leaves where a call failed before it had its effect.
func (d *driver) failedBefore(req any) {
	r, ok := req.(*csi.CreateSnapshotRequest)
	if !ok || !d.o.Lies.EmptySnapshot {
		return
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.s.snapshotNamed(r.GetName()) != nil || d.s.volumes[r.GetSourceVolumeId()] == nil {
		return
	}
	s := &Snapshot{Name: r.GetName(), Key: newKey(), Volume: r.GetSourceVolumeId(), Size: 4096, Created: time.Now(), Calls: d.o.ReadyAfter}
	s.ID = "snap-" + s.Key
	if err := errors.Join(os.MkdirAll(d.s.data(s.Key), 0o755), d.s.save("snapshots", s.Key, s)); err == nil { //nolint:gosec // as a volume is
		d.s.snapshots[s.ID] = s
	}
}

// DeleteSnapshot removes a snapshot.
func (d *driver) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	const rpc = "DeleteSnapshot"
	if err := d.lacking(rpc, d.o.Snapshots); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "snapshot_id", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	s := d.s.snapshots[r.GetSnapshotId()]
	if s == nil {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	if s.Group != "" {
		return nil, d.wrong(rpc, "snapshot of a group", codes.FailedPrecondition, "snapshot %s is of group %s", s.ID, s.Group)
	}
	if err := d.dropSnapshot(s); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (d *driver) dropSnapshot(s *Snapshot) error {
	if err := d.s.drop("snapshots", s.Key); err != nil {
		return err
	}
	delete(d.s.snapshots, s.ID)
	return os.RemoveAll(d.s.data(s.Key))
}
