package volume

import (
	"context"
	"time"
)

// Usage is how much of the storage a volume takes, in bytes.
type Usage struct {
	// Used is what the volume's data takes, or [Unknown]. What snapshots alone still hold is
	// not in it.
	Used int64
	// Limit is what it may take at the most; 0 is no limit of its own.
	Limit int64
}

// Unknown is Usage.Used where the storage tells the limit, and not what is used of it: a disk whose
// file system is not mounted, say.
const Unknown = -1

// Sizer is implemented by a driver whose storage knows how large a volume is, so that
// nobody has to read all of it.
type Sizer interface {
	// Usage returns what the volume takes now, soon and without reading its files. It may
	// be ErrUnsupported where nothing is known for this one, as while it is not mounted, or as
	// long as it has no limit. While it is mounted, Used is known.
	Usage(ctx context.Context, name string) (Usage, error)
}

// Resizer is implemented by a driver that can change the limit of a volume.
type Resizer interface {
	// Resize sets the limit to size bytes, whether the volume is mounted or not; a driver
	// may round it up to what its storage can do. One below what is used, or one below the
	// limit where the storage cannot shrink, is ErrInvalid. To set it again changes nothing. It
	// may be ErrUnsupported where nobody would keep the limit.
	Resize(ctx context.Context, name string, size int64) error
}

// Snapshot is a volume as it was at one moment.
type Snapshot struct {
	// Name is unique among the snapshots of its volume.
	Name      string
	CreatedAt time.Time
	// Labels are those it was made with; nil where there are none.
	Labels map[string]string
}

// Snapshotter is implemented by a driver that can keep a volume as it is at one moment, at
// once and while it is written to. A snapshot holds what a power cut at that moment would
// have left. Removing a volume removes its snapshots.
type Snapshotter interface {
	// CreateSnapshot makes the snapshot; labels may be nil. One that has the name already
	// is ErrExists, a volume that does not exist ErrNotFound.
	CreateSnapshot(ctx context.Context, name, snapshot string, labels map[string]string) error
	// Snapshots returns the snapshots of a volume, the oldest first.
	Snapshots(ctx context.Context, name string) ([]Snapshot, error)
	// RemoveSnapshot destroys a snapshot, and nothing else. One that does not exist is
	// ErrNotFound.
	RemoveSnapshot(ctx context.Context, name, snapshot string) error
}

// GroupSnapshotter is implemented by a [Snapshotter] whose storage can keep several volumes as they are
// at one and the same moment.
type GroupSnapshotter interface {
	// CreateSnapshots makes a snapshot of this name of each of the volumes, all of one moment. It makes
	// all of them or none, after a crash as well; each is one like any other afterwards. It is ErrUnsupported
	// where the storage cannot do so for these volumes.
	CreateSnapshots(ctx context.Context, names []string, snapshot string, labels map[string]string) error
}

// Rollbacker is implemented by a [Snapshotter] that can make a volume what it was.
type Rollbacker interface {
	// Rollback makes the data of a volume, which is not mounted, that of the snapshot. The
	// snapshot stays, and so do those that are younger. After a crash the volume is one or
	// the other.
	Rollback(ctx context.Context, name, snapshot string) error
}

// Cloner is implemented by a driver that can make a volume out of another one.
type Cloner interface {
	// Clone makes the volume name with the data of the volume from, or of its snapshot if
	// that is not empty. The two have nothing to do with each other afterwards. opts are as
	// for Create; where they leave something open it is as in from. A volume that has the
	// name already is ErrExists. Calls for from do not wait for a Clone, which may take long:
	// it may be mounted, written to and even removed meanwhile.
	Clone(ctx context.Context, name, from, snapshot string, opts map[string]string) error
}

// SnapshotOpener is implemented by a [Snapshotter] whose snapshots can be read.
type SnapshotOpener interface {
	// OpenSnapshot makes the data of a snapshot reachable, not to be written to, and returns
	// the directory in which it lies. target is as for [Driver.Mount].
	OpenSnapshot(ctx context.Context, name, snapshot, target string) (dir string, err error)
	// CloseSnapshot undoes OpenSnapshot; dir is what that returned. Undoing what is undone
	// already succeeds.
	CloseSnapshot(ctx context.Context, name, snapshot, dir string) error
}

// Trashed is a volume in the trash.
type Trashed struct {
	// ID names it among all that are in the trash; several may have had the same name.
	ID string
	// Name is that which the volume had.
	Name      string
	RemovedAt time.Time
}

// Trasher is implemented by a driver that can take a volume out of sight without destroying
// it, at once and for nothing but the room that it takes.
type Trasher interface {
	// Trash takes a volume, which is not mounted, with its snapshots out of Volumes. Its name
	// is free. A volume that does not exist is ErrNotFound.
	Trash(ctx context.Context, name string) error
	// Trashed returns what is in the trash, the oldest first.
	Trashed(ctx context.Context) ([]Trashed, error)
	// Restore makes a volume of what is in the trash. A name that is taken is ErrExists, an
	// ID that is not there ErrNotFound.
	Restore(ctx context.Context, id, name string) error
	// Purge destroys what is in the trash. An ID that is not there is ErrNotFound.
	Purge(ctx context.Context, id string) error
}

// Space is how much room there is where a driver keeps its volumes, in bytes.
type Space struct {
	Free, Total int64
}

// Spacer is implemented by a driver whose volumes share one place, such as a file system.
type Spacer interface {
	// Space returns how much room is there now, soon.
	Space(ctx context.Context) (Space, error)
}
