package control

import (
	"context"
	"time"
)

// The methods for what a driver can do beyond the plugin protocol.
const (
	MethodVolumeClone    = "Volume.Clone"
	MethodVolumeResize   = "Volume.Resize"
	MethodVolumeRollback = "Volume.Rollback"
	MethodVolumeUsage    = "Volume.Usage"
	MethodVolumeProtect  = "Volume.Protect"
	MethodSnapshotCreate = "Snapshot.Create"
	MethodSnapshotList   = "Snapshot.List"
	MethodSnapshotRemove = "Snapshot.Remove"
	MethodSnapshotDiff   = "Snapshot.Diff"
	MethodTrashList      = "Trash.List"
	MethodTrashRestore   = "Trash.Restore"
	MethodTrashPurge     = "Trash.Purge"
	MethodScheduleList   = "Schedule.List"
)

// Storage does what drivers can do beyond the plugin protocol. Where a driver cannot, the
// error is ErrUnsupported. Its methods are safe for concurrent use.
type Storage interface {
	// Clone makes a volume out of another one of its pool, or of a snapshot of it. One that
	// has the name already is ErrExists.
	Clone(ctx context.Context, req VolumeCloneRequest) (Volume, error)
	// Resize sets the limit of a volume, and returns the one that holds then.
	Resize(ctx context.Context, req VolumeResizeRequest) (Usage, error)
	// Rollback makes a volume, which is not mounted, what it was: ErrInUse where it is.
	Rollback(ctx context.Context, req VolumeRollbackRequest) error
	// Usage returns how large a volume is now. Where the driver does not know, the files are
	// counted, and progress, never nil, tells how many.
	Usage(ctx context.Context, req VolumeRequest, progress func(Progress)) (Usage, error)
	// Protect keeps a volume from being removed by anybody, until it is not protected any more.
	Protect(ctx context.Context, req VolumeProtectRequest) error

	Snapshots
	Trash
}

// Snapshots is what [Storage] can do with snapshots.
type Snapshots interface {
	// CreateSnapshot keeps a volume as it is now; a snapshot that has the name already is
	// ErrExists.
	CreateSnapshot(ctx context.Context, req SnapshotCreateRequest) (Snapshot, error)
	// ListSnapshots returns the snapshots of a volume, of all in a pool, or with neither of all
	// there are, sorted by pool, volume and age.
	ListSnapshots(ctx context.Context, req SnapshotListRequest) (SnapshotList, error)
	// RemoveSnapshot destroys a snapshot.
	RemoveSnapshot(ctx context.Context, req SnapshotRequest) error
	// DiffSnapshot tells each file that differs, in the order of a walk, from one goroutine.
	DiffSnapshot(ctx context.Context, req SnapshotDiffRequest, each func(Change)) (Diff, error)

	Schedules
}

// Trash is what [Storage] can do with volumes that were removed.
type Trash interface {
	// Trash returns what is in the trash of one pool, or of all with an empty Pool, sorted by
	// pool and age.
	Trash(ctx context.Context, req TrashListRequest) (TrashList, error)
	// Restore makes a volume of what is in the trash.
	Restore(ctx context.Context, req TrashRestoreRequest) (Volume, error)
	// Purge destroys what is in the trash.
	Purge(ctx context.Context, req TrashRequest) error
}

// Schedules is what [Snapshots] tells of those that make snapshots by themselves.
type Schedules interface {
	// Schedules returns the schedules of the configuration, sorted by name.
	Schedules(ctx context.Context) (ScheduleList, error)
}

// VolumeCloneRequest asks for a volume with the data of From, or of its snapshot if one is
// named. Options are as in [VolumeCreateRequest].
type VolumeCloneRequest struct {
	Pool     string            `json:"Pool,omitempty"`
	Name     string            `json:"Name"`
	From     string            `json:"From"`
	Snapshot string            `json:"Snapshot,omitempty"`
	Options  map[string]string `json:"Options,omitempty"`
}

// VolumeResizeRequest asks for another limit, in bytes: Size, or By more than it is.
type VolumeResizeRequest struct {
	Pool string `json:"Pool,omitempty"`
	Name string `json:"Name"`
	Size int64  `json:"Size,omitempty"`
	By   int64  `json:"By,omitempty"`
}

// VolumeRollbackRequest names a volume and the snapshot that it is to be like.
type VolumeRollbackRequest struct {
	Pool     string `json:"Pool,omitempty"`
	Name     string `json:"Name"`
	Snapshot string `json:"Snapshot"`
}

// VolumeProtectRequest says whether a volume is to be protected.
type VolumeProtectRequest struct {
	Pool      string `json:"Pool,omitempty"`
	Name      string `json:"Name"`
	Protected bool   `json:"Protected"`
}

// Usage is how large a volume is, in bytes.
type Usage struct {
	Used int64 `json:"Used"`
	// Limit is absent where there is none, or none that is known.
	Limit int64 `json:"Limit,omitempty"`
}

// Snapshot is a volume as it was at one moment.
type Snapshot struct {
	Pool      string            `json:"Pool"`
	Volume    string            `json:"Volume"`
	Name      string            `json:"Name"`
	CreatedAt time.Time         `json:"CreatedAt,omitzero"`
	Labels    map[string]string `json:"Labels,omitempty"`
	// Errors say what went wrong beside it, such as a hook after it; in the answer to Create alone.
	Errors []string `json:"Errors,omitempty"`
}

// SnapshotCreateRequest asks for a snapshot. An empty Name is made of the time.
type SnapshotCreateRequest struct {
	Pool   string            `json:"Pool,omitempty"`
	Volume string            `json:"Volume"`
	Name   string            `json:"Name,omitempty"`
	Labels map[string]string `json:"Labels,omitempty"`
}

// SnapshotListRequest asks for the snapshots of a volume. An empty Volume asks for those of
// all volumes of a pool, and an empty Pool besides for those of all pools.
type SnapshotListRequest struct {
	Pool   string `json:"Pool,omitempty"`
	Volume string `json:"Volume,omitempty"`
}

// SnapshotList answers [MethodSnapshotList].
type SnapshotList struct {
	// Snapshots is never null.
	Snapshots []Snapshot `json:"Snapshots"`
	// Errors has a line for each volume of many whose snapshots cannot be told, or not in time.
	Errors []string `json:"Errors,omitempty"`
}

// SnapshotRequest names a snapshot.
type SnapshotRequest struct {
	Pool   string `json:"Pool,omitempty"`
	Volume string `json:"Volume"`
	Name   string `json:"Name"`
}

// SnapshotDiffRequest names a snapshot and what to compare it with: another one of the
// volume, or with an empty To the volume as it is now.
type SnapshotDiffRequest struct {
	Pool   string `json:"Pool,omitempty"`
	Volume string `json:"Volume"`
	From   string `json:"From"`
	To     string `json:"To,omitempty"`
}

// Change is a file that differs.
type Change struct {
	// Kind is "added", "removed" or "changed".
	Kind string `json:"Kind"`
	// Path is that below the top of the volume.
	Path string `json:"Path"`
	// What says what has changed: "type", "size", "mtime", "mode", "owner", "target".
	What []string `json:"What,omitempty"`
}

// The kinds of a [Change].
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Diff counts the changes, at the end of them.
type Diff struct {
	Added   int `json:"Added"`
	Removed int `json:"Removed"`
	Changed int `json:"Changed"`
}

// Trashed is a volume in the trash.
type Trashed struct {
	Pool      string    `json:"Pool"`
	Name      string    `json:"Name"`
	ID        string    `json:"ID"`
	RemovedAt time.Time `json:"RemovedAt"`
	// Expires is when it will be destroyed at the latest; absent where it is kept for ever.
	Expires time.Time `json:"Expires,omitzero"`
}

// TrashListRequest asks for the trash of a pool; an empty Pool asks for all.
type TrashListRequest struct {
	Pool string `json:"Pool,omitempty"`
}

// TrashList answers [MethodTrashList].
type TrashList struct {
	// Trashed is never null.
	Trashed []Trashed `json:"Trashed"`
	// Errors has a line for each pool of several that cannot tell, or not in time.
	Errors []string `json:"Errors,omitempty"`
}

// TrashRestoreRequest names what is in the trash of a pool, and what it is to be called.
type TrashRestoreRequest struct {
	Pool string `json:"Pool,omitempty"`
	ID   string `json:"ID"`
	Name string `json:"Name"`
}

// TrashRequest names what is in the trash of a pool.
type TrashRequest struct {
	Pool string `json:"Pool,omitempty"`
	ID   string `json:"ID"`
}

// Schedule is a schedule and how far it has come.
type Schedule struct {
	Name string `json:"Name"`
	Cron string `json:"Cron"`
	// Tasks are what it does: "snapshot", or "backup to" a repository.
	Tasks []string `json:"Tasks"`
	// Volumes is for how many volumes it is.
	Volumes int `json:"Volumes"`
	// Failed is with how many runs something went wrong the last time.
	Failed int `json:"Failed,omitempty"`
	// Last is the youngest run of any of them, Next the first to come; absent where there is none.
	Last time.Time `json:"Last,omitzero"`
	Next time.Time `json:"Next,omitzero"`
	// Error says what went wrong with a volume the last time it was its turn.
	Error string `json:"Error,omitempty"`
	// Runs has one for each task and volume.
	Runs []ScheduleRun `json:"Runs,omitempty"`
}

// ScheduleRun is how far a task of a schedule is for one volume.
type ScheduleRun struct {
	Pool   string `json:"Pool"`
	Volume string `json:"Volume"`
	Task   string `json:"Task"`
	// Running says that it is being done, or waits for another one to end.
	Running bool `json:"Running,omitempty"`
	// Last is when it was done last, Next when it is due; absent where that is not known.
	Last time.Time `json:"Last,omitzero"`
	Next time.Time `json:"Next,omitzero"`
	// Error says what went wrong the last time, or who keeps it waiting.
	Error string `json:"Error,omitempty"`
}

// ScheduleList answers [MethodScheduleList].
type ScheduleList struct {
	// Schedules is never null.
	Schedules []Schedule `json:"Schedules"`
}
