// Package volume makes a Docker volume plugin out of a driver of five methods.
//
// A driver knows one kind of storage and nothing else: no protocol, no counting,
// no locks. [Handler] stands in front of it and does once what every plugin
// needs: it speaks Docker's volume protocol, checks names, serialises the calls
// for one name, counts mounts per caller and remembers the counts across
// restarts, makes and removes mountpoints, bounds the time of every call, and
// keeps List, Get and Path in memory.
//
// # The life of a volume
//
//	Create            the storage for the volume is made, or found and adopted
//	Mount → Unmount   once for the first user and the last one, however many come between
//	Remove            the data is destroyed; never called while the volume is mounted
//
// Any of these may be called again after it succeeded, because an engine repeats a
// call whose answer was lost, and after a crash half way, because nobody undoes
// what a dead process had begun. A driver therefore looks at the world before it
// changes it, and finishes what it finds half done.
//
// # What more a driver may do
//
// A driver says that it can do more by having a method more. [Handler] looks for
// these, and nobody else does: [Inspector], [Stater], [Scoper], [Pinger], [Looker], [io.Closer];
// [Sizer], [Resizer], [Snapshotter], [GroupSnapshotter], [SnapshotOpener], [Rollbacker], [Cloner], [Trasher],
// [Spacer], [Surveyor], [Attacher], [Mover], [Importer], [Worker].
package volume

import (
	"context"
	"iter"
	"time"
)

// Driver is one kind of storage, or one configured instance of it. Its methods are
// safe for concurrent use; the Handler calls them one at a time for any one name,
// except Volumes, which may run beside all of them.
//
// Errors carry a class of package errdefs: ErrNotFound where the volume does not
// exist, ErrInvalid for an option that is wrong, ErrUnavailable where the storage
// is out of reach. Their text need not repeat the volume's name, which the Handler
// puts in front.
//
// A context that ends means that the caller has given up waiting: stop where
// nothing is left half done.
type Driver interface {
	// Create makes the volume, or adopts the one that has this name already, with
	// its data as it is. opts are the engine's "-o" pairs, never nil; an unknown key
	// is ErrInvalid with the keys that would have been right.
	Create(ctx context.Context, name string, opts map[string]string) error

	// Remove destroys the volume and its data. For a volume that does not exist it
	// is ErrNotFound.
	Remove(ctx context.Context, name string) error

	// Mount makes the volume's data reachable and returns the directory in which it
	// lies. target is an empty directory made for this purpose: a driver that mounts
	// a file system mounts it there and returns target; a driver whose data lies in
	// a directory already leaves target alone and returns that directory. When
	// target is a mount already, from before a restart, Mount returns it. It may be
	// the empty string for a volume whose Info has a Mountpoint.
	Mount(ctx context.Context, name, target string) (mountpoint string, err error)

	// Unmount undoes Mount. mountpoint is what Mount returned, perhaps to a process
	// before this one. Undoing what is undone already succeeds.
	Unmount(ctx context.Context, name, mountpoint string) error

	// Volumes yields every volume there is. An error ends the sequence and means
	// that what was yielded before it is not the whole.
	Volumes(ctx context.Context) iter.Seq2[Info, error]
}

// Info is what a driver knows of a volume. Name is required, the rest may be zero.
type Info struct {
	Name string
	// CreatedAt is shown by "docker volume inspect"; zero is unknown.
	CreatedAt time.Time
	// Mountpoint is the directory in which the data lies at all times, for a driver
	// that mounts nothing; empty where there is one only while mounted.
	Mountpoint string
	// External says that the data lies outside of the driver's own place: it is not removed
	// with the volume, and a trash does not keep it.
	External bool
	// Options are those that the volume was made with, as far as the driver remembers
	// them; nil where there are none. They are shown to whoever may ask for the volume: an
	// option that is a secret is left out.
	Options map[string]string
	// Status is shown by "docker volume inspect". Its values must be fit for JSON,
	// and no secret may be among them.
	Status map[string]any
}

// Inspector is implemented by a driver that can look at one volume for less than
// the cost of Volumes. Without it, a name that is not in memory is looked for by
// running Volumes.
type Inspector interface {
	// Inspect returns what is known of the volume, or ErrNotFound.
	Inspect(ctx context.Context, name string) (Info, error)
}

// Stater is implemented by a driver whose volumes change their [Info.Status] by themselves, such
// as when another host takes one.
type Stater interface {
	// Status returns what is known now, from memory and at once, and false for a volume that
	// is not known. Without it Status is as old as the last listing ([Options.Refresh]).
	Status(name string) (map[string]any, bool)
}

// Scoper is implemented by a driver whose volumes are not of this host alone.
type Scoper interface {
	// Scope returns "local" or "global" (Docker volume plugin protocol, VolumeDriver.Capabilities). Without it the
	// scope is "local".
	Scope() string
}

// Pinger is implemented by a driver that can tell whether its storage is in reach.
type Pinger interface {
	// Ping returns nil, or ErrUnavailable with the cause.
	Ping(ctx context.Context) error
}

// Looker is implemented by a driver whose file systems may answer out of their memory for a server
// that is gone. It is asked before each further use of a mount, and has five seconds.
type Looker interface {
	// Look returns nil where what is mounted at mountpoint is whole, or ErrUnavailable with the
	// cause.
	Look(ctx context.Context, name, mountpoint string) error
}
