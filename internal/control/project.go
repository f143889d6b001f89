package control

import "context"

// The methods for all volumes of a Compose project at once.
const (
	MethodProjectSnapshot = "Project.Snapshot"
	MethodProjectBackup   = "Project.Backup"
)

// Projects does what the methods Project.* ask for. The engines are asked which volumes a project
// has: those with its label, and those of its containers. Where none of them belongs to a pool
// the error is ErrNotFound.
type Projects interface {
	// Snapshot makes a snapshot of every volume, all at the same time. What cannot be made is in
	// the answer.
	Snapshot(ctx context.Context, req ProjectSnapshotRequest) (ProjectSnapshots, error)
	// Backup backs up every volume, of snapshots that are made at the same time where the driver
	// can. What cannot be made is in the answer.
	Backup(ctx context.Context, req ProjectBackupRequest, progress func(Progress)) (ProjectBackups, error)
}

// ProjectSnapshotRequest asks for snapshots of the volumes of a Compose project. An empty Name is
// made of the time; all get the same.
type ProjectSnapshotRequest struct {
	Project string            `json:"Project"`
	Name    string            `json:"Name,omitempty"`
	Labels  map[string]string `json:"Labels,omitempty"`
	// Pause has the containers that use the volumes paused while the snapshots are made.
	Pause bool `json:"Pause,omitempty"`
}

// ProjectBackupRequest asks for backups of the volumes of a Compose project. The rest is as in
// [BackupCreateRequest].
type ProjectBackupRequest struct {
	Project    string            `json:"Project"`
	Repository string            `json:"Repository,omitempty"`
	Kind       string            `json:"Kind,omitempty"`
	Reread     bool              `json:"Reread,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
	// Pause is as in [ProjectSnapshotRequest].
	Pause bool `json:"Pause,omitempty"`
}

// ProjectSnapshots answers [MethodProjectSnapshot].
type ProjectSnapshots struct {
	// Snapshots is never null.
	Snapshots []Snapshot `json:"Snapshots"`
	ProjectSum
}

// ProjectBackups answers [MethodProjectBackup].
type ProjectBackups struct {
	// Backups is never null.
	Backups []Backup `json:"Backups"`
	ProjectSum
}

// ProjectSum says what else came of it.
type ProjectSum struct {
	// Within is how many nanoseconds lie between the begin of the first snapshot and the end of
	// the last; 0 where there are none.
	Within int64 `json:"Within"`
	// Together are the volumes whose snapshots a storage made by one call, and so of one moment; Alone are those
	// whose snapshots are each of a moment of its own, unless containers were paused.
	Together []Together `json:"Together,omitempty"`
	Alone    []string   `json:"Alone,omitempty"`
	// Paused are the containers that were paused meanwhile, and PausedFor for how many nanoseconds.
	Paused    []string `json:"Paused,omitempty"`
	PausedFor int64    `json:"PausedFor,omitempty"`
	// Warnings name volumes of the project that are left out, as they are in no pool.
	Warnings []string `json:"Warnings,omitempty"`
	// Errors has a line for each volume with which something went wrong.
	Errors []string `json:"Errors,omitempty"`
}

// Together names volumes of one pool whose snapshots are of one moment.
type Together struct {
	Pool    string   `json:"Pool"`
	Volumes []string `json:"Volumes"`
}

// handleProjects adds the methods about projects.
func handleProjects(s *Server, p Projects) {
	handle(s, MethodProjectSnapshot, func(ctx context.Context, r ProjectSnapshotRequest) (ProjectSnapshots, error) {
		a, err := p.Snapshot(ctx, r)
		if a.Snapshots == nil {
			a.Snapshots = []Snapshot{}
		}
		return a, err
	})
	handleLong(s, MethodProjectBackup, func(ctx context.Context, r ProjectBackupRequest, progress func(Progress)) (ProjectBackups, error) {
		a, err := p.Backup(ctx, r, progress)
		if a.Backups == nil {
			a.Backups = []Backup{}
		}
		return a, err
	})
}

// Projects returns the methods about projects.
func (c *Client) Projects() Projects { return clientProjects{c} }

type clientProjects struct{ c *Client }

// Snapshot implements [Projects].
func (p clientProjects) Snapshot(ctx context.Context, req ProjectSnapshotRequest) (ProjectSnapshots, error) {
	return call[ProjectSnapshots](ctx, p.c, MethodProjectSnapshot, req)
}

// Backup implements [Projects].
func (p clientProjects) Backup(ctx context.Context, req ProjectBackupRequest, progress func(Progress)) (ProjectBackups, error) {
	return callLong[ProjectBackups](ctx, p.c, MethodProjectBackup, req, progress)
}
