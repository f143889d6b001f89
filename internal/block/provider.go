package block

import (
	"context"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
)

// Provider is one account of one cloud, or one pool of one cluster: what is different between
// block storages, and nothing else. Its methods are safe for concurrent use.
//
// Each method is one request to the cloud (List: one for each page). None waits for the
// cloud to get done, none polls and none tries again: the core does, for all waiting volumes
// with one call of List. Each comes back soon after ctx ends. Each may be called again after
// it succeeded, after it failed, and after its answer was lost.
//
// Errors have a class of package errdefs, on which the core acts:
//
//	ErrNotFound     the disk, snapshot or host is not there
//	ErrInUse        the disk is attached, or busy with something that will end by itself
//	ErrExists       only from Create, see there
//	ErrInvalid      asked again it will be refused again: a wrong option, a quota, a size
//	ErrDenied       the credentials do not allow it
//	ErrUnavailable  no answer, an answer that says nothing, a fault of the cloud: it is tried again
//
// An answer that says "too many requests" is [Throttled]. A provider that is an [io.Closer] is closed
// with its driver.
type Provider interface { //nolint:interfacebloat // all of it is what every provider has
	// Traits says what the provider can do. It answers from memory, always the same.
	Traits() Traits

	// Self says who this host is to the cloud. The core asks once, and again after an error.
	Self(ctx context.Context) (Host, error)

	// List returns the disks that carry our tag with q.Namespace, in whichever zone of the
	// account's scope, all pages of them. Where a q with Names or IDs can be answered for
	// less than all pages, it is. One of IDs that is not there is left out. A disk that is
	// being deleted may be left out or told as such. Who holds a disk may be left out of the
	// answer to a q of all, where it costs a call for each (Disk.Unlooked); never else. Where
	// some zones cannot be looked at, the answer to a q of all may be the disks of the others
	// and a [Partial] error.
	List(ctx context.Context, q Query) ([]Disk, error)

	// Create begins to make a disk with s.Tags, all of which it has from its first moment
	// (a disk without them would be nobody's). UUID is the token that makes it idempotent: a
	// disk with this UUID that is there already is returned as it is, whatever else s says.
	// ErrExists means that the token was spent on something that is gone, or that is not
	// ours, and another one will do. Where s.Snapshot or s.Source is set, the disk begins
	// with that data. The state of what it returns may be Creating.
	Create(ctx context.Context, s Spec) (Disk, error)

	// Delete begins to delete the disk for good. One that is gone, or being deleted, is a
	// success; one that is attached to any host is ErrInUse.
	Delete(ctx context.Context, d Disk) error

	// Attach begins to attach the disk to this host for writing. It succeeds for one host at
	// a time at the most: where the cloud would let several (multi-attach, images in Ceph),
	// the provider takes a lock there first. Where the disk is with another host it is
	// ErrInUse; where it is here already, or on its way here, a success.
	Attach(ctx context.Context, d Disk, self Host) error

	// Detach begins to take the disk from a host. Where that host has it no more it is a
	// success. force takes it from a host that does not answer and may lose what that host
	// has not written yet; what it still writes afterwards must not reach the disk (fencing).
	Detach(ctx context.Context, d Disk, host string, force bool) error

	// SetTags changes tags of the disk: an empty value takes one away, tags that are not
	// named stay.
	SetTags(ctx context.Context, d Disk, tags Tags) error

	// Match tells whether a device of this machine is the disk, by what the device says of
	// itself: its serial, or a link by-id that is made of it. It never believes a name that
	// was asked for or that the cloud tells. It looks at nothing else, and does no I/O.
	Match(d Disk, v Device) bool
}

// Traits are what the core has to know of a provider beforehand.
type Traits struct {
	// Kind is the word for the driver, such as "ebs".
	Kind string
	// Scope says in errors where it was looked, such as "region eu-west-1".
	Scope string
	// Region is where the disks are, as the cloud calls it, for "volume move --region"; empty
	// where it has no regions, or one pool has them all.
	Region string
	// Client is the account's, through which every request of the provider goes.
	Client *Client
	// Options are the names of options, besides those that every volume has, which the
	// provider takes: of "type", "iops", "throughput", "zone", "encrypted", "kms_key" and
	// "snapshot". See [Options].
	Options []string
	// Extra are options of the provider's own. Their values come as text in Spec.Extra.
	Extra []catalog.Key
	// Check refuses, before the cloud is asked, what it would refuse. It may fill in or
	// round up. nil takes everything.
	Check func(s *Spec) error
	// Unit is what sizes are rounded up to, MinSize and MaxSize are what a disk can have.
	Unit, MinSize, MaxSize int64
	// Zonal: a disk can be attached to hosts of its own zone alone.
	Zonal bool
	// Clones: Create takes Spec.Source. Without it a clone is made by a snapshot.
	Clones bool
	// Outlive: snapshots do not depend on the disk of which they were made, which can be
	// deleted before them.
	Outlive bool
	// Poll is how long to wait, after something was begun, before the first look whether it is done; 0 is
	// 400 ms. Each look after that waits half as long again.
	Poll time.Duration
}

// Host is a host as the cloud calls it.
type Host struct {
	// ID is what Holder.Host of a disk says, such as "i-0abc".
	ID string
	// Zone is where it is, empty where there are none.
	Zone string
}

// partial is the error of a list in which some zones have no part.
type partial struct {
	error
	zones []string
}

func (e *partial) Unwrap() error { return e.error }

// Partial marks the error of a List of all that comes with the disks of all zones but some: what
// was known of those stays as it was.
func Partial(err error, zones []string) error { return &partial{err, zones} }

// Query is which disks, or snapshots, are wanted: those of the namespace with one of Names (by
// their tag) or one of IDs, all where both are empty.
type Query struct {
	Namespace string
	Names     []string
	IDs       []string
}

// All tells whether everything is wanted.
func (q Query) All() bool { return len(q.Names) == 0 && len(q.IDs) == 0 }

// Takes tells whether a disk of the namespace is wanted.
func (q Query) Takes(id, name string) bool {
	if q.All() {
		return true
	}
	return slices.Contains(q.Names, name) || slices.Contains(q.IDs, id)
}

// Tags is what we write on a disk or snapshot, keys without the prefix "remora:" that the
// provider adds (or whatever its cloud can do). Keys are of [a-z0-9._], values any UTF-8 of
// up to 255 bytes, and there are up to 30. Clouds that know less have them encoded.
type Tags map[string]string

// The tags that a provider may want to look for.
const (
	TagUUID      = "id"     // the disk's own, given at Create
	TagNamespace = "pool"   // Query.Namespace
	TagName      = "volume" // the name to Docker, as it is
)

// Spec is a disk to be made.
type Spec struct {
	// UUID is our own for it, in the usual form of 36 characters. What the cloud wants as
	// the name of the disk is derived from it, and means nothing.
	UUID string
	Tags Tags
	// Size is in bytes, rounded as Traits says; 0 with a Snapshot is as large as that one.
	Size int64
	// The rest is what the options say; zero is the provider's default, for Zone that of Self.
	Type             string
	IOPS, Throughput int64
	Zone             string
	Encrypted        *bool
	KMSKey           string
	Extra            map[string]string
	// Snapshot or Source is what the disk begins with.
	Snapshot *Snapshot
	Source   *Disk
}

// State is how a disk or snapshot is.
type State string

// The states. What a cloud calls otherwise is one of these.
const (
	Creating State = "creating"
	Ready    State = "ready" // attached or not
	Deleting State = "deleting"
	Failed   State = "failed" // it will never be Ready; Disk.Reason says why
)

// Disk is a disk of the cloud.
type Disk struct {
	// ID is the cloud's.
	ID    string
	Tags  Tags
	Size  int64
	State State
	// Reason says why the disk is Failed, or a host of it Stuck.
	Reason  string
	Created time.Time
	Zone    string
	Type    string
	// IOPS and Throughput are those that were chosen, zero where the type decides.
	IOPS, Throughput int64
	Encrypted        bool
	// Holders are the hosts to which it is attached, on its way there or on its way off.
	Holders []Holder
	// Unlooked: Holders was not looked at.
	Unlooked bool
	// Facts are what else the provider wants to have back, such as an attachment's ID, and
	// what Match needs. They are kept in a cache on the disk of the host: no secrets.
	Facts map[string]string
}

// Holder is a host that has a disk.
type Holder struct {
	Host  string
	State Holding
	// Since is when it was attached, zero where the cloud does not know.
	Since time.Time
}

// Holding is how far a host has a disk.
type Holding string

// The stages.
const (
	Attaching Holding = "attaching"
	Attached  Holding = "attached"
	Detaching Holding = "detaching"
	// Stuck: what was begun goes on no more by itself, such as a disk that is "busy".
	Stuck Holding = "stuck"
)

// Device is a disk as this machine sees it.
type Device struct {
	// Name is the kernel's, such as "nvme1n1"; Path is where its node is.
	Name, Path string
	// Serial, Model, Vendor and WWID are from sysfs, without blanks around them.
	Serial, Model, Vendor, WWID string
	// Links are the names below dev/disk/by-id that lead to it.
	Links []string
	// Size is in bytes.
	Size         int64
	Major, Minor uint32
}

// Snapshot is a snapshot of the cloud.
type Snapshot struct {
	ID      string
	Tags    Tags
	Size    int64 // of the disk that it is of
	State   State
	Reason  string
	Created time.Time
	Facts   map[string]string
}

// Snapshotter is implemented by a provider that has snapshots. Its methods are as those for
// disks.
type Snapshotter interface {
	// Snapshots returns the snapshots that carry our tag with q.Namespace. Names are those
	// of volumes ([TagName]), as they were called when the snapshot was made.
	Snapshots(ctx context.Context, q Query) ([]Snapshot, error)
	// CreateSnapshot begins to make a snapshot of the disk as it is at the moment of the
	// call, attached or not, with the tags: what is written afterwards is not in it, however
	// long its state stays Creating. It is idempotent by tags[TagUUID].
	CreateSnapshot(ctx context.Context, d Disk, tags Tags) (Snapshot, error)
	// DeleteSnapshot begins to delete it. One that is gone is a success, one that cannot be
	// deleted since a disk depends on it ErrInUse.
	DeleteSnapshot(ctx context.Context, s Snapshot) error
}

// Rollbacker is implemented by a [Snapshotter] that can bring a disk, which is attached to
// nobody, back in its place, and keeps its younger snapshots. Without it a new disk takes the
// place of the old one, for which Traits.Outlive is needed.
type Rollbacker interface {
	Rollback(ctx context.Context, d Disk, s Snapshot) error
}

// SnapshotCopier is implemented by a [Snapshotter] that can bring a snapshot of another region, or
// of another account, to its own. Where the snapshot can be used as it is, it may return that.
type SnapshotCopier interface {
	// CopySnapshot begins to make a copy of the snapshot, with the tags. from are the traits
	// of the provider that has the snapshot, of the same Kind as this one. It is idempotent
	// by tags[TagUUID], and ErrUnsupported where there is no way from there to here.
	CopySnapshot(ctx context.Context, s Snapshot, from Traits, tags Tags) (Snapshot, error)
}

// Resizer is implemented by a provider whose disks can grow. It is done when List shows the
// new size.
type Resizer interface {
	// Resize begins to make the disk larger, while it is attached if Online says so.
	Resize(ctx context.Context, d Disk, size int64) error
	// Online tells whether a disk can grow while a host has it.
	Online() bool
}

// Prober is implemented by a provider that can tell whether a host is gone for certain.
type Prober interface {
	// Gone is true where the host is stopped or does not exist any more and can write no
	// more, false where that cannot be proved. A host that only does not answer is not gone.
	Gone(ctx context.Context, host string) (bool, error)
}

// Owner is implemented by a provider whose credentials are not all in the name of its Client, or may
// become others while it runs.
type Owner interface {
	// Owner says whose the credentials are, without a secret. It answers from memory, and the
	// same for the same credentials after a restart. What is remembered of the disks of one
	// owner is not shown to another.
	Owner() string
}

// Finder is implemented by a provider whose account may have disks that are not ours, to be
// taken in by an import.
type Finder interface {
	// Find returns the disks without our tag whose ID, or whose name to people, is ref; all
	// where it is empty, but for those that boot a machine. Tags are those they have, with
	// their own keys.
	Find(ctx context.Context, ref string) ([]Foreign, error)
	// Adopt writes our tags on one, which makes it a disk of List.
	Adopt(ctx context.Context, f Foreign, tags Tags) error
}

// Foreign is a disk that is not ours.
type Foreign struct {
	Disk
	// Name is that which people and other tools know it by, empty where it has none.
	Name string
}
