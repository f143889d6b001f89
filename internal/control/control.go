// Package control is the daemon's own API: what the command line, and a script with
// curl, may ask of a running daemon over its control socket.
//
// It looks like Docker's plugin API: each method is a POST of one JSON object to a
// path that is the method's name, such as /Volume.Create. An answer is one JSON
// object, or for [MethodReconcile], [MethodVolumeUsage] and [MethodSnapshotDiff] a JSON object
// per line, the last of which says how it ended. An error has the status of its class and the body [Error].
//
// [Server] serves what [Volumes], [Storage] and [Daemon] do; [Client] calls it. The exported
// structs are the wire: their JSON is kept stable, as "--format json" prints it, and
// golden files hold it fast.
package control

import (
	"context"
	"time"
)

// The methods. The path of each is its name behind a slash.
const (
	MethodVolumeCreate  = "Volume.Create"
	MethodVolumeList    = "Volume.List"
	MethodVolumeInspect = "Volume.Inspect"
	MethodVolumeRemove  = "Volume.Remove"
	MethodVolumeMount   = "Volume.Mount"
	MethodVolumeUnmount = "Volume.Unmount"
	MethodVolumePath    = "Volume.Path"
	MethodStatus        = "Daemon.Status"
	MethodReload        = "Daemon.Reload"
	MethodReconcile     = "Daemon.Reconcile"
)

// Volumes does what the methods Volume.* ask for. Its methods are safe for concurrent
// use; each is idempotent as the method of the volume plugin protocol is that it
// stands for. In every request an empty Pool is the default one, which
// [ResolvePool] finds, except in [VolumeListRequest].
//
// Errors have a class of package errdefs and name the volume.
type Volumes interface {
	// Create makes a volume, or adopts the one that has this name already.
	Create(ctx context.Context, req VolumeCreateRequest) (Volume, error)
	// List returns the volumes of one pool, or of all with an empty Pool, sorted by
	// pool and name. It answers from memory.
	List(ctx context.Context, req VolumeListRequest) ([]Volume, error)
	// Inspect returns one volume, or ErrNotFound.
	Inspect(ctx context.Context, req VolumeRequest) (Volume, error)
	// Remove destroys a volume and its data, or brings it into the trash: ErrNotFound where
	// there is none, ErrInUse while it is mounted, ErrDenied while it is protected.
	Remove(ctx context.Context, req VolumeRemoveRequest) error
	// Mount mounts a volume for the mount ID of the request and returns the directory.
	Mount(ctx context.Context, req VolumeMountRequest) (mountpoint string, err error)
	// Unmount undoes one Mount with the same mount ID.
	Unmount(ctx context.Context, req VolumeMountRequest) error
	// Path returns the directory of a volume, or "" while it has none.
	Path(ctx context.Context, req VolumeRequest) (mountpoint string, err error)
}

// Daemon does what the methods Daemon.* ask for. Its methods are safe for concurrent
// use.
type Daemon interface {
	// Status answers from memory and soon, even when a pool is out of reach.
	Status(ctx context.Context) (Status, error)
	// Reload reads the configuration again, as SIGHUP does. When it is wrong nothing
	// changes, and the error says what is wrong.
	Reload(ctx context.Context) (Reload, error)
	// Reconcile compares the ledgers of mounts with the mounts there are, and the
	// volumes in memory with those of the drivers, and puts right what differs. It
	// tells progress, never nil, as it goes, from one goroutine.
	Reconcile(ctx context.Context, progress func(Progress)) (Reconcile, error)
}

// VolumeCreateRequest asks for a volume. Options are the driver's, as in "docker
// volume create -o".
type VolumeCreateRequest struct {
	Pool    string            `json:"Pool,omitempty"`
	Name    string            `json:"Name"`
	Options map[string]string `json:"Options,omitempty"`
}

// VolumeRequest names a volume.
type VolumeRequest struct {
	Pool string `json:"Pool,omitempty"`
	Name string `json:"Name"`
}

// VolumeRemoveRequest names a volume that is to go. Purge destroys it at once, where it
// would otherwise come into the trash.
type VolumeRemoveRequest struct {
	Pool  string `json:"Pool,omitempty"`
	Name  string `json:"Name"`
	Purge bool   `json:"Purge,omitempty"`
}

// VolumeListRequest asks for the volumes of a pool; an empty Pool asks for all. With Usage the
// drivers are asked, for a short time, how large they are and how many snapshots they have.
type VolumeListRequest struct {
	Pool  string `json:"Pool,omitempty"`
	Usage bool   `json:"Usage,omitempty"`
}

// ByHand is the ID of mounts by "remora volume mount": there is one for each volume.
const ByHand = "remora-cli"

// VolumeMountRequest names a volume and one who mounts it. The ID is chosen by the
// caller; an engine's is 64 hexadecimal digits.
type VolumeMountRequest struct {
	Pool string `json:"Pool,omitempty"`
	Name string `json:"Name"`
	ID   string `json:"ID"`
}

// Volume is a volume as the daemon knows it.
type Volume struct {
	Pool   string `json:"Pool"`
	Driver string `json:"Driver"`
	Name   string `json:"Name"`
	// CreatedAt is absent where the driver does not know.
	CreatedAt time.Time `json:"CreatedAt,omitzero"`
	// Mountpoint is empty where the data can be reached only while it is mounted.
	Mountpoint string `json:"Mountpoint"`
	Mounted    bool   `json:"Mounted"`
	// Mounts has one entry per mount ID, sorted by Since and ID.
	Mounts []Mount `json:"Mounts,omitempty"`
	// Protected says that it cannot be removed.
	Protected bool `json:"Protected,omitempty"`
	// Restoring says that the volume is not whole: "restoring", with how far it is, while it is
	// being filled from a backup, "partial" where that was cut off, and "proof" for one that is
	// thrown away.
	Restoring string `json:"Restoring,omitempty"`
	// Used is what the data takes, in bytes. It is absent where nobody knows.
	Used *int64 `json:"Used,omitempty"`
	// UsedAt is when Used was found by counting the files; absent where the driver knows.
	UsedAt time.Time `json:"UsedAt,omitzero"`
	// Limit is what the data may take at the most, in bytes, where there is a limit.
	Limit int64 `json:"Limit,omitempty"`
	// Snapshots is how many there are; absent where the driver has none.
	Snapshots *int `json:"Snapshots,omitempty"`
	// LastBackup is when the newest backup by this host was begun; absent where there is none.
	LastBackup time.Time `json:"LastBackup,omitzero"`
	// Consumers are the containers that have the volume, as far as an engine tells.
	Consumers []Consumer `json:"Consumers,omitempty"`
	// Unknown has the names of those of the fields above that are not known yet, or that the
	// driver did not tell in time.
	Unknown []string `json:"Unknown,omitempty"`
	// Schedules are those that the volume asks for by an option or a label; answered to Inspect and
	// Create alone.
	Schedules []string `json:"Schedules,omitempty"`
	// Status is what the driver tells; answered to Inspect and Create alone.
	Status map[string]any `json:"Status,omitempty"`
	// Options are those the volume was made with, where the driver remembers them, without
	// secrets; answered to Inspect and Create alone.
	Options map[string]string `json:"Options,omitempty"`
}

// Mount is one who mounted a volume.
type Mount struct {
	ID string `json:"ID"`
	// Count is how often the ID mounted and has not unmounted; never below 1.
	Count int       `json:"Count"`
	Since time.Time `json:"Since,omitzero"`
}

// Consumer is a container that has a volume.
type Consumer struct {
	Name    string `json:"Name"`
	Running bool   `json:"Running"`
}

// VolumeList answers [MethodVolumeList].
type VolumeList struct {
	// Volumes is never null.
	Volumes []Volume `json:"Volumes"`
}

// Mountpoint answers [MethodVolumeMount] and [MethodVolumePath].
type Mountpoint struct {
	Mountpoint string `json:"Mountpoint"`
}

// Status is the state of the daemon.
type Status struct {
	Version string    `json:"Version"`
	PID     int       `json:"PID"`
	Started time.Time `json:"Started"`
	// ConfigFile is empty when the daemon runs without a file.
	ConfigFile string `json:"ConfigFile"`
	// ConfigError says why the last reload was refused; the configuration before it
	// is in force.
	ConfigError string `json:"ConfigError,omitempty"`
	PluginDir   string `json:"PluginDir"`
	RunDir      string `json:"RunDir"`
	StateDir    string `json:"StateDir"`
	// Pools is sorted by name and never null.
	Pools []Pool `json:"Pools"`
	// EngineSocket is where the engine's API is answered; empty is nowhere.
	EngineSocket string `json:"EngineSocket,omitempty"`
	// Plugins are the managed plugins, sorted by name, as [Plugins.List] has them; PluginsError is why there can be none.
	Plugins      []PluginStatus `json:"Plugins,omitempty"`
	PluginsError string         `json:"PluginsError,omitempty"`
	// Proofs are what is known of restores of backups, by repository, pool and volume.
	Proofs []Proof `json:"Proofs,omitempty"`
	// Network is the network across hosts, where it was launched.
	Network *NetworkSummary `json:"Network,omitempty"`
}

// PluginStatus is a managed plugin as it stands in [Status].
type PluginStatus struct {
	Name    string `json:"Name"`
	Enabled bool   `json:"Enabled"`
	State   string `json:"State"`
	Error   string `json:"Error,omitempty"`
	// Restarts is how often it ended by itself, or could not be started again, since the daemon started.
	Restarts uint64 `json:"Restarts,omitempty"`
}

// Pool is a pool as it stands in [Status].
type Pool struct {
	Name   string `json:"Name"`
	Driver string `json:"Driver"`
	// Socket is the path at which an engine finds the pool.
	Socket string `json:"Socket"`
	// Volumes is the number of volumes, Mounted how many of them are mounted.
	Volumes   int  `json:"Volumes"`
	Mounted   int  `json:"Mounted"`
	Reachable bool `json:"Reachable"`
	// Trash says that volumes which are removed can be brought back.
	Trash bool `json:"Trash,omitempty"`
	// Error says why the pool is not reachable, or what else is wrong with it.
	Error string `json:"Error,omitempty"`
	// Mend is what to do about it, if that is known.
	Mend string `json:"Mend,omitempty"`
	// About is what the storage is served by, such as the name and version of a CSI driver.
	About string `json:"About,omitempty"`
	// Advice is what the driver says of the host, nil if it has nothing to say.
	Advice *Advice `json:"Advice,omitempty"`
}

// Advice is how something is, and what to do for it to be better, empty if it is well.
type Advice struct {
	Text string `json:"Text"`
	Mend string `json:"Mend,omitempty"`
}

// Reload says which pools, schedules and so on a reload touched. Each list is sorted.
type Reload struct {
	Added   []string `json:"Added,omitempty"`
	Changed []string `json:"Changed,omitempty"`
	Removed []string `json:"Removed,omitempty"`
	// Repositories are those that are new, changed or gone.
	Repositories []string `json:"Repositories,omitempty"`
	// Schedules are those that are new, changed or gone.
	Schedules []string `json:"Schedules,omitempty"`
	// Hooks are those that are new, changed or gone.
	Hooks []string `json:"Hooks,omitempty"`
	// Verifies are those that are new, changed or gone.
	Verifies []string `json:"Verifies,omitempty"`
	// NeedRestart lists the keys that changed in the file but take effect only when
	// the daemon is started again.
	NeedRestart []string `json:"NeedRestart,omitempty"`
	// Warnings are about the file, such as its permissions.
	Warnings []string `json:"Warnings,omitempty"`
}

// Reconcile says what a reconciliation looked at and put right.
type Reconcile struct {
	Volumes int `json:"Volumes"`
	Mounts  int `json:"Mounts"`
	// Changes has a line for each thing that was put right, such as
	// "volume "data": mount 2f73… is gone, count dropped".
	Changes []string `json:"Changes,omitempty"`
}

// Progress tells how far a long method has come. Total is 0 where it is not known.
type Progress struct {
	Object string `json:"Object"`
	Done   int64  `json:"Done"`
	Total  int64  `json:"Total,omitempty"`
}

// Error is the body of an answer that is an error. Class is the word of errdefs.Name.
type Error struct {
	Error string   `json:"Error"`
	Class string   `json:"Class"`
	Hints []string `json:"Hints,omitempty"`
}
