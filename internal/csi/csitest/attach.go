package csitest

import (
	"context"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/remora-plugins/remora/internal/mount"
)

// ControllerPublishVolume attaches a volume to a node.
func (d *driver) ControllerPublishVolume(_ context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	const rpc = "ControllerPublishVolume"
	if err := d.lacking(rpc, d.o.Attach); err != nil {
		return nil, err
	}
	if err := d.required(rpc, "volume_id", r.GetVolumeId(), "node_id", r.GetNodeId()); err != nil {
		return nil, err
	}
	c, err := d.capability(rpc, r.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	if r.GetReadonly() && !d.o.PublishReadonly {
		return nil, d.wrong(rpc, "not announced", codes.InvalidArgument, "readonly without PUBLISH_READONLY")
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.volume(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if !d.s.isNode(r.GetNodeId()) {
		return nil, status.Errorf(codes.NotFound, "no node %s", r.GetNodeId())
	}
	if err := d.sameContext(rpc, v, r.GetVolumeContext()); err != nil {
		return nil, err
	}
	if !v.granted(c) {
		return nil, d.wrong(rpc, "capability", codes.InvalidArgument, "%s, and volume %s was made for %q", c, v.ID, v.Caps)
	}
	if a := v.Attached[r.GetNodeId()]; a != nil {
		if a.Cap != c || a.Readonly != r.GetReadonly() {
			return nil, d.wrong(rpc, "different arguments", codes.AlreadyExists, "volume %s is attached with %s, readonly %t", v.ID, a.Cap, a.Readonly)
		}
		return &csi.ControllerPublishVolumeResponse{PublishContext: a.Context}, nil
	}
	for _, node := range sortedKeys(v.Attached) {
		if !multiNode(v.Attached[node].Cap) || !multiNode(c) {
			return nil, d.inUse(v, node)
		}
	}
	if zone := d.s.nodes[r.GetNodeId()]; v.Topology != nil && zone != nil && !maps.Equal(v.Topology, zone) {
		return nil, d.wrong(rpc, "topology", codes.FailedPrecondition, "volume %s is at %v, and the node at %v", v.ID, v.Topology, zone)
	}
	if d.o.MaxVolumes > 0 && d.s.attachedTo(r.GetNodeId()) >= d.o.MaxVolumes {
		return nil, status.Errorf(codes.ResourceExhausted, "node %s has %d volumes attached", r.GetNodeId(), d.o.MaxVolumes)
	}
	a := &Attachment{Cap: c, Readonly: r.GetReadonly(), Context: map[string]string{"csitest/device": "/dev/csitest/" + v.Key, "csitest/attachment": newKey()}}
	v.Attached[r.GetNodeId()] = a
	if err := d.s.saveVolume(v); err != nil {
		delete(v.Attached, r.GetNodeId())
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: a.Context}, nil
}

// ControllerUnpublishVolume detaches a volume from a node, or from all.
func (d *driver) ControllerUnpublishVolume(_ context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	const rpc = "ControllerUnpublishVolume"
	if err := d.lacking(rpc, d.o.Attach); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	v, err := d.gone(rpc, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if v == nil {
		return &csi.ControllerUnpublishVolumeResponse{}, d.noVolume(r.GetVolumeId())
	}
	nodes := []string{r.GetNodeId()}
	if r.GetNodeId() == "" {
		nodes = sortedKeys(v.Attached)
	}
	for _, node := range nodes {
		if s := v.staged(node); s != nil {
			return nil, d.wrong(rpc, "detach while staged", codes.FailedPrecondition, "volume %s is staged at %s", v.ID, s.Path)
		}
		if p := v.published(node); len(p) > 0 {
			return nil, d.wrong(rpc, "detach while published", codes.FailedPrecondition, "volume %s is published at %s", v.ID, p[0].Target)
		}
		if m := d.mountsOf(v); len(m) > 0 && node == d.o.NodeID {
			return nil, d.wrong(rpc, "detach under a mount", codes.FailedPrecondition, "volume %s is mounted at %s", v.ID, m[0])
		}
		delete(v.Attached, node)
		delete(v.Staged, node) // of before a reboot
		maps.DeleteFunc(v.Published, func(_ string, p *Publication) bool { return p.Node == node })
	}
	if err := d.s.saveVolume(v); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

func (d *driver) sameContext(rpc string, v *Volume, given map[string]string) error {
	if maps.Equal(v.Context, given) {
		return nil
	}
	err := d.wrong(rpc, "volume context", codes.InvalidArgument, "the volume_context of %s is not the one that CreateVolume gave", v.ID)
	if len(given) == 0 {
		return nil // it is optional, and many drivers work without it
	}
	return err
}

// mountsOf are the mounts on this host of what a volume has, by whomever.
func (d *driver) mountsOf(v *Volume) (at []string) {
	list, err := mount.List("/")
	if err != nil {
		return nil
	}
	for _, m := range list {
		// A bind mount has the path within its file system as its root.
		if within(m.Root, "/data/"+v.Key) {
			at = append(at, m.Mountpoint)
		}
	}
	return at
}
