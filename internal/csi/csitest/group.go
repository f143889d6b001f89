package csitest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// GroupControllerGetCapabilities says that there are group snapshots.
func (d *driver) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{
			Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
		}},
	}}}, nil
}

// CreateVolumeGroupSnapshot makes snapshots of several volumes, of one moment: all, or none.
func (d *driver) CreateVolumeGroupSnapshot(_ context.Context, r *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	const rpc = "CreateVolumeGroupSnapshot"
	if err := d.required(rpc, "name", r.GetName()); err != nil {
		return nil, err
	}
	if len(r.GetSourceVolumeIds()) == 0 {
		return nil, d.wrong(rpc, "arguments", codes.InvalidArgument, "no source_volume_ids")
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for _, g := range d.s.groups {
		if g.Name != r.GetName() {
			continue
		}
		if !maps.Equal(set(d.sources(g)), set(r.GetSourceVolumeIds())) {
			return nil, d.wrong(rpc, "different arguments", codes.AlreadyExists, "group %q is there, of %q", g.Name, d.sources(g))
		}
		if err := d.ripen(g); err != nil {
			return nil, err
		}
		return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: d.groupAnswer(g)}, nil
	}
	for _, id := range r.GetSourceVolumeIds() {
		if _, err := d.volume(rpc, id); err != nil {
			return nil, err
		}
	}
	g := &Group{Name: r.GetName(), Key: newKey(), Created: time.Now()}
	g.ID = "group-" + g.Key
	// A group that was cut off has snapshots that its repetition takes away.
	for _, s := range d.snapshotsOf("group of " + g.Name) {
		if err := d.dropSnapshot(s); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	var made []*Snapshot
	for i, id := range r.GetSourceVolumeIds() {
		s, err := d.snapshot(rpc, g.ID+"-"+string(rune('a'+i%26))+newKey(), id, "group of "+g.Name)
		if err != nil {
			return nil, err
		}
		made = append(made, s)
		g.Snapshots = append(g.Snapshots, s.ID)
	}
	err := d.s.save("groups", g.Key, g)
	for _, s := range made {
		s.Group = g.ID
		err = errors.Join(err, d.s.save("snapshots", s.Key, s))
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	d.s.groups[g.ID] = g
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: d.groupAnswer(g)}, nil
}

func (d *driver) snapshotsOf(group string) (list []*Snapshot) {
	for _, id := range sortedKeys(d.s.snapshots) {
		if s := d.s.snapshots[id]; s.Group == group {
			list = append(list, s)
		}
	}
	return list
}

func (d *driver) sources(g *Group) (ids []string) {
	for _, id := range g.Snapshots {
		if s := d.s.snapshots[id]; s != nil {
			ids = append(ids, s.Volume)
		}
	}
	return ids
}

func set(list []string) map[string]bool {
	m := map[string]bool{}
	for _, v := range list {
		m[v] = true
	}
	return m
}

func (d *driver) groupAnswer(g *Group) *csi.VolumeGroupSnapshot {
	a := &csi.VolumeGroupSnapshot{GroupSnapshotId: g.ID, CreationTime: timestamppb.New(g.Created), ReadyToUse: true}
	for _, id := range g.Snapshots {
		s := *d.s.snapshots[id]
		s.Group = g.ID
		a.Snapshots = append(a.Snapshots, d.snapshotAnswer(&s))
		a.ReadyToUse = a.ReadyToUse && d.ready(&s)
	}
	return a
}

// ripen has each call bring the snapshots nearer to being ready.
func (d *driver) ripen(g *Group) error {
	for _, id := range g.Snapshots {
		if s := d.s.snapshots[id]; s.Calls < d.o.ReadyAfter {
			s.Calls++
			if err := d.s.save("snapshots", s.Key, s); err != nil {
				return status.Error(codes.Internal, err.Error())
			}
		}
	}
	return nil
}

// group returns a group, and checks that the caller knows its snapshots.
func (d *driver) group(rpc, id string, snapshots []string) (*Group, error) {
	if err := d.required(rpc, "group_snapshot_id", id); err != nil {
		return nil, err
	}
	g := d.s.groups[id]
	if g != nil && len(snapshots) > 0 && !maps.Equal(set(g.Snapshots), set(snapshots)) {
		return nil, d.wrong(rpc, "different arguments", codes.InvalidArgument, "group %s is of %q", g.ID, g.Snapshots)
	}
	return g, nil
}

// DeleteVolumeGroupSnapshot removes all snapshots of a group.
func (d *driver) DeleteVolumeGroupSnapshot(_ context.Context, r *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	const rpc = "DeleteVolumeGroupSnapshot"
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	g, err := d.group(rpc, r.GetGroupSnapshotId(), r.GetSnapshotIds())
	if err != nil || g == nil {
		return &csi.DeleteVolumeGroupSnapshotResponse{}, err
	}
	for _, id := range slices.Clone(g.Snapshots) {
		if s := d.s.snapshots[id]; s != nil {
			if err := d.dropSnapshot(s); err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
		}
	}
	if err := d.s.drop("groups", g.Key); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	delete(d.s.groups, g.ID)
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

// GetVolumeGroupSnapshot tells of a group.
func (d *driver) GetVolumeGroupSnapshot(_ context.Context, r *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	const rpc = "GetVolumeGroupSnapshot"
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	g, err := d.group(rpc, r.GetGroupSnapshotId(), r.GetSnapshotIds())
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, status.Errorf(codes.NotFound, "no group %s", r.GetGroupSnapshotId())
	}
	if err := d.ripen(g); err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: d.groupAnswer(g)}, nil
}
