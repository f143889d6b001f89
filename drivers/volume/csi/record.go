package csi

import (
	"slices"
	"time"
)

// The origins of a volume.
const (
	created = "created" // by us: it is ours to delete
	adopted = "adopted" // found by its name
	static  = "static"  // given by its ID
)

// The phases of a volume at the storage.
const (
	phaseNew      = "new"      // it may be there or not
	phaseCreated  = "created"  // it is there, and not attached to this host as far as is known
	phaseAttached = "attached" // ControllerPublishVolume has succeeded
	phaseDeleting = "deleting" // it is to go
)

// The phases of a volume on this host.
const (
	phaseNone      = ""
	phaseStaged    = "staged"
	phasePublished = "published"
)

// record is what is remembered of a volume. It is copied, never changed in place; maps in it are not written to.
type record struct {
	Name    string            `json:"name"`
	Options map[string]string `json:"options,omitempty"` // as they are shown
	Created time.Time         `json:"created"`
	Origin  string            `json:"origin"`

	// CSIName is what the storage was told as the name; ID and what follows are its answer.
	CSIName  string              `json:"csi_name"`
	ID       string              `json:"volume_id,omitempty"`
	Context  map[string]string   `json:"volume_context,omitempty"`
	Capacity int64               `json:"capacity,omitempty"`
	Topology []map[string]string `json:"topology,omitempty"`

	// What was asked for: a call that is made again has to ask for the same.
	Required   int64               `json:"required,omitempty"`
	Limit      int64               `json:"limit,omitempty"`
	Capability capability          `json:"capability"`
	Parameters map[string]string   `json:"parameters,omitempty"`
	Mutable    map[string]string   `json:"mutable,omitempty"`
	SnapParams map[string]string   `json:"snapshot_parameters,omitempty"`
	Requisite  []map[string]string `json:"requisite,omitempty"`
	Source     *source             `json:"source,omitempty"`

	ReadOnly bool           `json:"readonly,omitempty"`
	Subdir   string         `json:"subdir,omitempty"`
	Retain   bool           `json:"retain,omitempty"`
	Detach   *time.Duration `json:"detach_after,omitempty"`

	Phase string    `json:"phase"`
	Since time.Time `json:"since"`
	// Doing is the RPC of the controller that may be in flight.
	Doing string `json:"doing,omitempty"`
	// Node and Publish are of the attachment, once there is one or there may be.
	Node    string            `json:"node_id,omitempty"`
	Publish map[string]string `json:"publish_context,omitempty"`
	// Grow is the size that an expansion wants; GrowNode that the host has its part still to do.
	Grow     int64 `json:"grow,omitempty"`
	GrowNode bool  `json:"grow_node,omitempty"`
	// Grown: it is larger than it was made.
	Grown bool `json:"grown,omitempty"`

	// SeenFS is the file system of its disk, as it was mounted last.
	SeenFS string `json:"seen_fs,omitempty"`

	// Lineage is whose the snapshots are: it stays when a rollback gives the name another volume.
	Lineage string `json:"lineage"`
	// Suspects are volumes that may be there, half made, under names that are not used any more.
	Suspects []suspect `json:"suspects,omitempty"`
	// Replaced are the IDs of volumes whose place this one has taken, and that are to be deleted.
	Replaced []string `json:"replaced,omitempty"`
	// Trash is its ID in the trash, where it is there, since Trashed.
	Trash   string    `json:"trash,omitempty"`
	Trashed time.Time `json:"trashed,omitzero"`
	// Hidden says what a volume is for that is none to the engine, such as an open snapshot.
	Hidden string `json:"hidden,omitempty"`
	// Problem is why the last step could not be made.
	Problem string `json:"problem,omitempty"`
}

const recordVersion = 1

// capability is what the volume is used as, in the words of CSI.
type capability struct {
	Access string   `json:"access"` // the enum's name, such as SINGLE_NODE_WRITER
	FS     string   `json:"fs,omitempty"`
	Flags  []string `json:"mount_flags,omitempty"`
	Group  string   `json:"volume_mount_group,omitempty"`
	// Chown: the group is set by us, since the CSI driver does not do so.
	Chown string `json:"chown,omitempty"`
}

// source is of what a volume is made.
type source struct {
	Snapshot string `json:"snapshot_id,omitempty"`
	Volume   string `json:"volume_id,omitempty"`
	Size     int64  `json:"size,omitempty"`
	// Shown is what people call it.
	Shown string `json:"shown,omitempty"`
}

// suspect is a volume or snapshot that a call may have made before it was lost. To learn its ID the call is made
// again, and then it is deleted.
type suspect struct {
	CSIName string `json:"csi_name"`
}

// ours tells whether the volume is deleted when it is removed.
func (r record) ours() bool { return r.Origin == created && !r.Retain }

// undone is the RPC whose result is not known.
func (r record) undone(calls ...string) bool { return slices.Contains(calls, r.Doing) }

// node is what is remembered of a volume on this host, until a reboot.
type node struct {
	Volume string `json:"volume"`
	ID     string `json:"volume_id"`
	Dir    string `json:"dir"` // of the staging and target path
	Phase  string `json:"phase"`
	Doing  string `json:"doing,omitempty"`
	// Mountpoint is what the engine was given.
	Mountpoint string    `json:"mountpoint,omitempty"`
	Since      time.Time `json:"since"`
	Boot       string    `json:"boot"`
	// Device is that of what is mounted at the staging path, such as "8:16". Disk is the same where nothing else of
	// it was mounted.
	Device string `json:"device,omitempty"`
	Disk   string `json:"disk,omitempty"`
}

const nodeVersion = 1

// idle tells that there is nothing of the volume on this host.
func (n node) idle() bool { return n.Phase == phaseNone && n.Doing == "" }

// snapshot is what is remembered of a snapshot.
type snapshot struct {
	Name    string            `json:"name"`
	Lineage string            `json:"lineage"`
	Volume  string            `json:"volume"` // the name that the volume had
	Source  string            `json:"source_volume_id"`
	Labels  map[string]string `json:"labels,omitempty"`
	Params  map[string]string `json:"parameters,omitempty"`

	CSIName string    `json:"csi_name"`
	ID      string    `json:"snapshot_id,omitempty"`
	Size    int64     `json:"size,omitempty"`
	Created time.Time `json:"created"`
	Ready   bool      `json:"ready,omitempty"`
	Doing   string    `json:"doing,omitempty"`
	// Capability and the rest are what a volume that is made of it takes over.
	Capability capability `json:"capability"`
	Capacity   int64      `json:"capacity,omitempty"`
	Suspects   []suspect  `json:"suspects,omitempty"`
	// Group is of which group it is, if it was made together with others.
	Group string `json:"group,omitempty"`
	// Temp is the volume for which alone the snapshot was made.
	Temp string `json:"temp,omitempty"`
}

const snapshotVersion = 1
