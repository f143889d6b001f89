package csitest

import (
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// Options says what the driver can do, and how it lies. The zero value can make, publish and delete volumes, and
// nothing else.
type Options struct {
	Name, Version, NodeID string
	// Split gives the controller a socket of its own.
	Split bool
	// Process runs the driver in a process of its own.
	Process bool
	// MayViolate leaves it to the test to look at the violations.
	MayViolate bool

	NodeOnly        bool // no controller service at all
	Attach          bool // ControllerPublishVolume
	PublishReadonly bool
	Stage           bool // NodeStageVolume
	Clones          bool
	Snapshots       bool
	Group           bool // group snapshots
	List            bool // ListVolumes with the nodes that volumes are at, ListSnapshots, GetVolume, GetSnapshot
	Capacity        bool // GetCapacity
	Modify          bool // ControllerModifyVolume
	Stats           bool // NodeGetVolumeStats
	ExpandOnline    bool
	ExpandOffline   bool // ControllerExpandVolume of what is not at a node alone, if not ExpandOnline as well
	NodeExpand      bool // an expansion needs NodeExpandVolume, too; without the other two it is all there is
	MultiWriter     bool // SINGLE_NODE_MULTI_WRITER
	MountGroup      bool
	// OldConditions announces the capabilities that version 1.13 of the specification took away.
	OldConditions bool
	// Topology is where this node is. Volumes are where they were asked to be.
	Topology map[string]string
	// MaxVolumes is how many the node can have attached; 0 says nothing.
	MaxVolumes int64
	// Bytes is how much there is to give, 1 TiB if zero.
	Bytes int64
	// DefaultSize is that of volumes for which none was asked, 1 GiB if zero.
	DefaultSize int64
	// Secrets are wanted by every call that can have any.
	Secrets map[string]string
	// Parameters are wanted by CreateVolume, with these values, and SnapshotParameters by CreateSnapshot.
	Parameters, SnapshotParameters map[string]string
	// Latency is how long each call of an RPC takes; that of "" is for all others.
	Latency map[string]time.Duration
	// FUSE has a process of sshfs serve each volume, see [Mock.KillFUSE].
	FUSE bool
	// SharedOnly refuses paths that are not on a shared mount.
	SharedOnly bool
	// KeepTarget leaves the directory of a target when it is unpublished.
	KeepTarget bool
	// NotFound answers NOT_FOUND where a volume that is not there is detached, unpublished, unstaged or deleted.
	NotFound bool
	// OddIDs makes ids of volumes long, with slashes in them.
	OddIDs bool
	// ReadyAfter is how often CreateSnapshot has to be called until a snapshot is ready, or GetVolumeGroupSnapshot for one of a group.
	ReadyAfter int
	// PendingAfter is how often CreateVolume from a source answers ABORTED, as it is still being copied.
	PendingAfter int

	Lies Lies
}

// Lies are what drivers of this world have been seen to do.
type Lies struct {
	// NoCapacity answers CreateVolume with a capacity of 0.
	NoCapacity bool
	// Larger makes volumes that are larger than the limit that was asked for.
	Larger bool
	// Smaller makes volumes that are smaller than what was asked for.
	Smaller bool
	// AnySize answers CreateVolume for a name that it has, whatever else is asked of it.
	AnySize bool
	// EmptySnapshot leaves an empty snapshot where CreateSnapshot crashed, or was made to fail, before it had an
	// effect. The repetition says that it is ready.
	EmptySnapshot bool
	// WrongCodes answers INTERNAL where a volume is in use at another node.
	WrongCodes bool
	// Unmounted says that it published, and has not.
	Unmounted bool
	// ForgetsGrowth gives the file system the size that the volume was made with whenever it is staged.
	ForgetsGrowth bool
	// CrashOnList ends the driver at ListVolumes, if there is a volume.
	CrashOnList bool
}

// All is the options of a driver that can do everything, at a node "node-1".
func All() Options {
	return Options{
		Attach: true, PublishReadonly: true, Stage: true, Clones: true, Snapshots: true, Group: true, List: true, Capacity: true, Modify: true,
		Stats: true, ExpandOnline: true, ExpandOffline: true, NodeExpand: true, MultiWriter: true, MountGroup: true,
		Topology: map[string]string{"csitest/zone": "a"},
	}
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "csitest.remora.example"
	}
	if o.Version == "" {
		o.Version = "1.0.0"
	}
	if o.NodeID == "" {
		o.NodeID = "node-1"
	}
	if o.Bytes == 0 {
		o.Bytes = 1 << 40
	}
	if o.DefaultSize == 0 {
		o.DefaultSize = 1 << 30
	}
	return o
}

func (o Options) plugin() (caps []*csi.PluginCapability) {
	services := map[csi.PluginCapability_Service_Type]bool{
		csi.PluginCapability_Service_CONTROLLER_SERVICE:               !o.NodeOnly,
		csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS: o.Topology != nil,
		csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE:         o.Group,
	}
	for _, s := range sortedKeys(services) {
		if services[s] {
			caps = append(caps, &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: s}}})
		}
	}
	var expand csi.PluginCapability_VolumeExpansion_Type
	switch {
	case o.ExpandOnline:
		expand = csi.PluginCapability_VolumeExpansion_ONLINE
	case o.ExpandOffline:
		expand = csi.PluginCapability_VolumeExpansion_OFFLINE
	default:
		return caps
	}
	return append(caps, &csi.PluginCapability{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: expand}}})
}

func (o Options) controller() (caps []*csi.ControllerServiceCapability) {
	has := map[csi.ControllerServiceCapability_RPC_Type]bool{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME:         true,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME:     o.Attach,
		csi.ControllerServiceCapability_RPC_PUBLISH_READONLY:             o.Attach && o.PublishReadonly,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES:                 o.List,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES: o.List && o.Attach,
		csi.ControllerServiceCapability_RPC_GET_VOLUME:                   o.List,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY:                 o.Capacity,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT:       o.Snapshots,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS:               o.Snapshots && o.List,
		csi.ControllerServiceCapability_RPC_GET_SNAPSHOT:                 o.Snapshots && o.List,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME:                 o.Clones,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME:                o.ExpandOnline || o.ExpandOffline,
		csi.ControllerServiceCapability_RPC_MODIFY_VOLUME:                o.Modify,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER:     o.MultiWriter,
		11: o.OldConditions,
	}
	for _, c := range sortedKeys(has) {
		if has[c] {
			caps = append(caps, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: c}}})
		}
	}
	return caps
}

func (o Options) node() (caps []*csi.NodeServiceCapability) {
	has := map[csi.NodeServiceCapability_RPC_Type]bool{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME:     o.Stage,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS:         o.Stats,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME:            o.NodeExpand,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER: o.MultiWriter,
		csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP:       o.MountGroup,
		4: o.OldConditions,
	}
	for _, c := range sortedKeys(has) {
		if has[c] {
			caps = append(caps, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: c}}})
		}
	}
	return caps
}
