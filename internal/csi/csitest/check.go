package csitest

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// subject returns what a call is of: the keys of which only one may be in flight, and what to call it.
func subject(req any) (keys []string, of string) {
	switch r := req.(type) {
	case *csi.CreateVolumeRequest:
		keys = []string{"name " + r.GetName()}
		if src := r.GetVolumeContentSource().GetVolume(); src != nil {
			keys = append(keys, "volume "+src.GetVolumeId())
		}
		return keys, r.GetName()
	case *csi.CreateSnapshotRequest:
		return []string{"volume " + r.GetSourceVolumeId(), "snapshot name " + r.GetName()}, r.GetSourceVolumeId()
	case *csi.DeleteSnapshotRequest:
		return []string{"snapshot " + r.GetSnapshotId()}, r.GetSnapshotId()
	case *csi.CreateVolumeGroupSnapshotRequest:
		for _, id := range r.GetSourceVolumeIds() {
			keys = append(keys, "volume "+id)
		}
		return append(keys, "group name "+r.GetName()), r.GetName()
	case *csi.DeleteVolumeGroupSnapshotRequest:
		return []string{"group " + r.GetGroupSnapshotId()}, r.GetGroupSnapshotId()
	case *csi.DeleteVolumeRequest, *csi.ControllerPublishVolumeRequest, *csi.ControllerUnpublishVolumeRequest,
		*csi.ControllerExpandVolumeRequest, *csi.ControllerModifyVolumeRequest, *csi.NodeStageVolumeRequest,
		*csi.NodeUnstageVolumeRequest, *csi.NodePublishVolumeRequest, *csi.NodeUnpublishVolumeRequest, *csi.NodeExpandVolumeRequest:
		id := req.(interface{ GetVolumeId() string }).GetVolumeId()
		return []string{"volume " + id}, id
	case interface{ GetVolumeId() string }: // those that change nothing
		return nil, r.GetVolumeId()
	}
	return nil, ""
}

// maxBytes are the limits of strings that have another one than most.
var maxBytes = map[protoreflect.Name]int{"node_id": 256, "staging_target_path": 4096, "target_path": 4096, "volume_path": 4096}

// wellFormed checks what is the same for all calls: the size of fields, and the secrets.
func (d *driver) wellFormed(rpc string, req any) (err error) {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	var walk func(protoreflect.Message)
	walk = func(m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsMap():
				n := 0
				v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
					n += len(k.String()) + len(v.String())
					return true
				})
				if n > 4096 {
					err = d.wrong(rpc, "size", codes.InvalidArgument, "%s has %d bytes", f.Name(), n)
				}
			case f.Kind() == protoreflect.MessageKind && f.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			case f.Kind() == protoreflect.MessageKind:
				walk(v.Message())
			case f.Kind() == protoreflect.StringKind && !f.IsList():
				limit := maxBytes[f.Name()]
				if limit == 0 {
					limit = 128
				}
				if n := len(v.String()); n > limit {
					err = d.wrong(rpc, "size", codes.InvalidArgument, "%s has %d bytes", f.Name(), n)
				}
				if f.Name() == "name" && strings.ContainsFunc(v.String(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
					err = d.wrong(rpc, "arguments", codes.InvalidArgument, "a control character in %s %q", f.Name(), v.String())
				}
			}
			return true
		})
	}
	walk(m.ProtoReflect())
	if err != nil {
		return err
	}
	// The calls that look at things alone can do without.
	switch req.(type) {
	case *csi.ValidateVolumeCapabilitiesRequest, *csi.ListSnapshotsRequest, *csi.GetSnapshotRequest:
		return nil
	}
	r, ok := req.(interface{ GetSecrets() map[string]string })
	if ok && len(d.o.Secrets) > 0 && !maps.Equal(r.GetSecrets(), d.o.Secrets) {
		return d.wrong(rpc, "secrets", codes.Unauthenticated, "the keys %q, not %q, or other values", sortedKeys(r.GetSecrets()), sortedKeys(d.o.Secrets))
	}
	return nil
}

// required checks that fields have a value, which come as names and values by turns.
func (d *driver) required(rpc string, fields ...string) error {
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" {
			return d.wrong(rpc, "arguments", codes.InvalidArgument, "no %s", fields[i])
		}
	}
	return nil
}

// capability returns a capability as text, by which two are compared.
func (d *driver) capability(rpc string, c *csi.VolumeCapability) (string, error) {
	mode := c.GetAccessMode().GetMode()
	single := mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER || mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	switch {
	case c == nil:
		return "", d.wrong(rpc, "arguments", codes.InvalidArgument, "no volume_capability")
	case c.GetAccessType() == nil:
		return "", d.wrong(rpc, "arguments", codes.InvalidArgument, "no access_type")
	case mode == csi.VolumeCapability_AccessMode_UNKNOWN:
		return "", d.wrong(rpc, "arguments", codes.InvalidArgument, "no access_mode")
	case single && !d.o.MultiWriter:
		return "", d.wrong(rpc, "capability", codes.InvalidArgument, "%s without SINGLE_NODE_MULTI_WRITER", mode)
	case c.GetBlock() != nil:
		return mode.String() + " block", nil
	}
	m := c.GetMount()
	if m.GetVolumeMountGroup() != "" && !d.o.MountGroup {
		return "", d.wrong(rpc, "capability", codes.InvalidArgument, "volume_mount_group without VOLUME_MOUNT_GROUP")
	}
	return strings.Join([]string{
		mode.String(), "mount", "fs=" + m.GetFsType(), "flags=" + strconv.Quote(strings.Join(m.GetMountFlags(), ",")),
		"group=" + m.GetVolumeMountGroup(),
	}, " "), nil
}

// granted tells whether a capability is one that the volume was made with. Flags of the mount may be others.
func (v *Volume) granted(c string) bool {
	return len(v.Caps) == 0 || slices.ContainsFunc(v.Caps, func(has string) bool { return coarse(has) == coarse(c) })
}

func coarse(c string) string {
	words := strings.Fields(c)
	return strings.Join(words[:min(2, len(words))], " ")
}

func multiNode(c string) bool { return strings.HasPrefix(c, "MULTI_NODE") }

func manyTargets(c string) bool {
	return multiNode(c) || strings.HasPrefix(c, "SINGLE_NODE_MULTI_WRITER")
}
