package control

import (
	"context"
	"time"
)

// The methods for volumes that are disks of a cloud, and for what outlasts a call.
const (
	MethodVolumeAttach = "Volume.Attach"
	MethodVolumeMove   = "Volume.Move"
	MethodVolumeImport = "Volume.Import"
	MethodJobList      = "Job.List"
)

// Disks does what the methods about disks and jobs ask for. Where a driver cannot, the error is
// ErrUnsupported.
type Disks interface {
	// Attach brings a volume to this host without mounting it, and by force from the host that
	// has it. Without force a volume that another host has is ErrInUse.
	Attach(ctx context.Context, req VolumeAttachRequest) error
	// Move brings a volume, which is not mounted, to another zone, region or pool of its
	// driver: ErrInUse where it is mounted.
	Move(ctx context.Context, req VolumeMoveRequest) error
	// Import takes in disks that are no volumes yet, or tells which there are.
	Import(ctx context.Context, req VolumeImportRequest) (ImportList, error)
	// Jobs returns what goes on in a pool, or in all, and what has failed lately.
	Jobs(ctx context.Context, req JobListRequest) (JobList, error)
}

// VolumeAttachRequest names a volume to be brought to this host.
type VolumeAttachRequest struct {
	Pool  string `json:"Pool,omitempty"`
	Name  string `json:"Name"`
	Force bool   `json:"Force,omitempty"`
}

// VolumeMoveRequest names a volume and where it is to be: a zone, and where that is not one of the
// pool's own, the region or the pool. A move outlasts a call: asked for again it goes on.
type VolumeMoveRequest struct {
	Pool   string `json:"Pool,omitempty"`
	Name   string `json:"Name"`
	Zone   string `json:"Zone,omitempty"`
	Region string `json:"Region,omitempty"`
	ToPool string `json:"ToPool,omitempty"`
}

// VolumeImportRequest asks for what would become of disks, or with Apply for it to be done. Disk is
// the ID or the name of one, empty for all there are; Name that of the volume, empty for the name
// that the disk has.
type VolumeImportRequest struct {
	Pool  string `json:"Pool,omitempty"`
	Disk  string `json:"Disk,omitempty"`
	Name  string `json:"Name,omitempty"`
	Apply bool   `json:"Apply,omitempty"`
}

// ImportList answers [MethodVolumeImport].
type ImportList struct {
	// Disks is never null.
	Disks []ImportedDisk `json:"Disks"`
}

// ImportedDisk is what became of a disk, or would.
type ImportedDisk struct {
	Disk string `json:"Disk"`
	// Name is that of the volume.
	Name string `json:"Name"`
	Size int64  `json:"Size"`
	Zone string `json:"Zone,omitempty"`
	// From is the program that made it, as far as that can be told, Holder the host that has it.
	From   string `json:"From,omitempty"`
	Holder string `json:"Holder,omitempty"`
	// Problem is why it cannot be taken; Done tells that it was.
	Problem string `json:"Problem,omitempty"`
	Done    bool   `json:"Done"`
}

// JobListRequest names a pool, or none for all.
type JobListRequest struct {
	Pool string `json:"Pool,omitempty"`
}

// JobList answers [MethodJobList].
type JobList struct {
	// Jobs is never null.
	Jobs []Job `json:"Jobs"`
}

// Job is work that may outlast the call that wanted it.
type Job struct {
	Pool   string    `json:"Pool"`
	ID     string    `json:"ID"`
	Kind   string    `json:"Kind"`
	Object string    `json:"Object"`
	State  string    `json:"State"`
	Began  time.Time `json:"Began"`
	Since  time.Time `json:"Since"`
	Error  string    `json:"Error,omitempty"`
	// Failed tells that it does not go on.
	Failed bool `json:"Failed"`
}

// handleDisks adds the methods about disks and jobs.
func handleDisks(s *Server, d Disks) {
	handle(s, MethodVolumeAttach, nothing(d.Attach))
	handle(s, MethodVolumeMove, nothing(d.Move))
	handle(s, MethodVolumeImport, func(ctx context.Context, r VolumeImportRequest) (ImportList, error) {
		l, err := d.Import(ctx, r)
		if l.Disks == nil {
			l.Disks = []ImportedDisk{}
		}
		return l, err
	})
	handle(s, MethodJobList, func(ctx context.Context, r JobListRequest) (JobList, error) {
		l, err := d.Jobs(ctx, r)
		if l.Jobs == nil {
			l.Jobs = []Job{}
		}
		return l, err
	})
}

// Disks returns the methods about disks and jobs.
func (c *Client) Disks() Disks { return clientDisks{c} }

type clientDisks struct{ c *Client }

// Attach implements [Disks].
func (d clientDisks) Attach(ctx context.Context, req VolumeAttachRequest) error {
	_, err := call[struct{}](ctx, d.c, MethodVolumeAttach, req)
	return err
}

// Move implements [Disks].
func (d clientDisks) Move(ctx context.Context, req VolumeMoveRequest) error {
	_, err := call[struct{}](ctx, d.c, MethodVolumeMove, req)
	return err
}

// Import implements [Disks].
func (d clientDisks) Import(ctx context.Context, req VolumeImportRequest) (ImportList, error) {
	return call[ImportList](ctx, d.c, MethodVolumeImport, req)
}

// Jobs implements [Disks].
func (d clientDisks) Jobs(ctx context.Context, req JobListRequest) (JobList, error) {
	return call[JobList](ctx, d.c, MethodJobList, req)
}
