package quirk

import "google.golang.org/grpc/codes"

// The quirks. What the bridge does of its own for every driver is not here: it compares answers with requests,
// asks the node's socket for what is the node's, and takes ABORTED for "still at it".
const (
	// InUseInText: the code is another one where the text says that the volume is in use.
	InUseInText ID = "in-use-in-text"
	// NoListVolumes: ListVolumes is never called, not even when a person asks for a list.
	NoListVolumes ID = "no-list-volumes"
	// OneAtATime: one RPC of the controller at a time.
	OneAtATime ID = "one-at-a-time"
	// StatsOfBacking: the size in NodeGetVolumeStats is that of what the volume lies on.
	StatsOfBacking ID = "stats-of-backing"
	// AnySize: a volume that exists with another size is answered as if it were the one asked for.
	AnySize ID = "any-size"
	// ForgetsGrowth: what is staged has the size that the volume was made with, until NodeExpandVolume says more.
	ForgetsGrowth ID = "forgets-growth"
	// NoCapacity: the answer to CreateVolume may have no capacity.
	NoCapacity ID = "no-capacity"
	// SharedMounts: the staging path must be on a shared mount.
	SharedMounts ID = "shared-mounts"
	// KeepsTarget: the target path is left behind by NodeUnpublishVolume.
	KeepsTarget ID = "keeps-target"
	// ManyWriters: only MULTI_NODE_MULTI_WRITER is confirmed.
	ManyWriters ID = "many-writers"
	// LooseValidate: what ValidateVolumeCapabilities does not confirm works all the same.
	LooseValidate ID = "loose-validate"
	// DeletesAll: DeleteVolume removes more than what the driver has made.
	DeletesAll ID = "deletes-all"
	// NoChmod: the mode of the volume's root cannot be changed.
	NoChmod ID = "no-chmod"
	// MountsDieWithDriver: what serves the mounts is a process of the driver.
	MountsDieWithDriver ID = "mounts-die-with-driver"
	// SuspectSnapshot: a snapshot that is asked for again after a crash may be empty and said to be ready.
	SuspectSnapshot ID = "suspect-snapshot"
	// SnapshotParameters: snapshots need parameters of their own.
	SnapshotParameters ID = "snapshot-parameters"
	// NeedsKubernetes: the driver asks Kubernetes for its node.
	NeedsKubernetes ID = "needs-kubernetes"
	// NeedsMetadata: the driver asks the cloud's metadata service.
	NeedsMetadata ID = "needs-metadata"
	// NeedsTools: programs that the driver runs.
	NeedsTools ID = "needs-tools"
	// NeedsModules: kernel modules without which the node does not work.
	NeedsModules ID = "needs-modules"
	// NeedsOwnRoot: the driver wants files of its own image.
	NeedsOwnRoot ID = "needs-own-root"
	// NeedsSysResource: an expansion of ext4 that is mounted needs CAP_SYS_RESOURCE.
	NeedsSysResource ID = "needs-sys-resource"
	// SlowSource: a volume from a snapshot or a clone is answered ABORTED until it is there.
	SlowSource ID = "slow-source"
	// StealsDisks: an attach takes the disk from the host that has it.
	StealsDisks ID = "steals-disks"
	// OnlyKubernetes: the driver keeps what it knows in Kubernetes.
	OnlyKubernetes ID = "only-kubernetes"
	// WrongCodes: codes that are wrong in another way than InUseInText.
	WrongCodes ID = "wrong-codes"
	// NeedsVersion: a driver that was built without a version does not answer.
	NeedsVersion ID = "needs-version"
)

// kind is what one quirk means.
type kind struct {
	means string
	// particular: without an entry of the table it says nothing.
	particular bool
	codes      []correction
}

var inUse = []correction{{
	from: []codes.Code{codes.Internal, codes.Unknown},
	text: []string{"in use", "in-use", "already attached", "is attached to", "still attached"},
	to:   codes.FailedPrecondition,
}}

var kinds = map[ID]kind{
	InUseInText:         {means: "says with a wrong code that a volume is in use elsewhere; it is told by the text, and not tried again", codes: inUse},
	NoListVolumes:       {means: "ListVolumes is never called, since it breaks the driver"},
	OneAtATime:          {means: "gets one call of its controller at a time"},
	StatsOfBacking:      {means: "tells the size of the file system below as the volume's: the size is not enforced"},
	AnySize:             {means: "takes a volume of another size for the one that was asked for; the size is compared here"},
	ForgetsGrowth:       {means: "stages a volume with the size that it was made with; how large it is by now is said again with each mount"},
	NoCapacity:          {means: "may not say how large a new volume is; the size that was asked for is taken"},
	SharedMounts:        {means: "refuses paths that are not on a shared mount"},
	KeepsTarget:         {means: "leaves the target's directory behind, which is removed if it is empty"},
	ManyWriters:         {means: "wants the access mode rw-many, and confirms no other"},
	LooseValidate:       {means: "does not confirm access modes that work; that is only a warning"},
	DeletesAll:          {means: "removes more than it has made when a volume is deleted; only volumes made here are"},
	NoChmod:             {means: "refuses a change of the root's mode, with which an engine's copy-up fails: use the option subdir, or :nocopy"},
	MountsDieWithDriver: {means: "serves its mounts by processes of its own: when it stops they are gone, and are made anew with the next mount"},
	SuspectSnapshot:     {means: "may call an empty snapshot ready when it is asked again after a crash; a new name is used"},
	SnapshotParameters:  {means: "wants snapshot_parameters"},
	NeedsKubernetes:     {means: "asks Kubernetes for its node: set kubeshim = true"},
	NeedsMetadata:       {means: "asks the cloud's metadata service at 169.254.169.254 who this host is"},
	NeedsTools:          {means: "runs programs that must be in its PATH", particular: true},
	NeedsModules:        {means: "needs kernel modules on this host", particular: true},
	NeedsOwnRoot:        {means: "wants files of its own image: run it by image, not by command"},
	NeedsSysResource:    {means: "needs CAP_SYS_RESOURCE to grow ext4 while it is mounted; without it a grown volume can no longer be mounted"},
	SlowSource:          {means: "answers ABORTED while a copy of a snapshot or volume is made, which may take long"},
	StealsDisks:         {means: "takes a disk from the host that has it in order to attach it here, and does not ask"},
	OnlyKubernetes:      {means: "keeps its volumes as objects of Kubernetes: it cannot be used without a cluster"},
	WrongCodes:          {means: "says with a wrong code what went wrong; it is told by the text", particular: true},
	NeedsVersion:        {means: "does not answer when it was built without a version: take a released image"},
}
