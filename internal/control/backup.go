package control

import (
	"context"
	"time"
)

// The methods about backups. Those that take long answer with a JSON object per line: a
// Progress for each step, and at the end a Result or an Error.
const (
	MethodBackupInit    = "Backup.Init"
	MethodBackupCreate  = "Backup.Create"
	MethodBackupList    = "Backup.List"
	MethodBackupInspect = "Backup.Inspect"
	MethodBackupVerify  = "Backup.Verify"
	MethodBackupRemove  = "Backup.Remove"
	MethodBackupPrune   = "Backup.Prune"
	MethodBackupRestore = "Backup.Restore"
	MethodBackupProve   = "Backup.Prove"
	MethodBackupRepair  = "Backup.Repair"
)

// Backups does what the methods Backup.* ask for. Its methods are safe for concurrent use. In
// every request an empty Repository is the only one that is configured.
type Backups interface { //nolint:interfacebloat // one method of the API each
	// Init makes a repository, ErrExists where it is made already.
	Init(ctx context.Context, req BackupRepository) (BackupRepository, error)
	// Create backs up a volume, from a snapshot of its own where the driver can.
	Create(ctx context.Context, req BackupCreateRequest, progress func(Progress)) (Backup, error)
	// List returns backups, the oldest first.
	List(ctx context.Context, req BackupListRequest) ([]Backup, error)
	// Inspect returns one backup.
	Inspect(ctx context.Context, req BackupRequest) (Backup, error)
	// Verify reads all of one backup, or of every one, and says what is damaged.
	Verify(ctx context.Context, req BackupRequest, progress func(Progress)) (BackupVerify, error)
	// Prove restores the newest backup of a volume, or of each, to where it is thrown away again,
	// and says whether all was there. It tells each proof when it has ended.
	Prove(ctx context.Context, req BackupListRequest, progress func(Progress)) (BackupProofs, error)
	// Remove forgets a backup.
	Remove(ctx context.Context, req BackupRequest) error
	// Prune removes the backups that are not to be kept, and frees room.
	Prune(ctx context.Context, req BackupPruneRequest, progress func(Progress)) (BackupPrune, error)
	// Repair mends a repository in which bytes are damaged.
	Repair(ctx context.Context, req BackupRepairRequest, progress func(Progress)) (BackupRepair, error)
	// Restore writes a backup, or some paths of it, into a volume.
	Restore(ctx context.Context, req BackupRestoreRequest, progress func(Progress)) (BackupRestore, error)
}

// BackupRepository names a repository.
type BackupRepository struct {
	Repository string `json:"Repository,omitempty"`
	// URL is in answers alone.
	URL string `json:"URL,omitempty"`
}

// BackupCreateRequest asks for a backup of a volume.
type BackupCreateRequest struct {
	Repository string `json:"Repository,omitempty"`
	Pool       string `json:"Pool,omitempty"`
	Name       string `json:"Name"`
	// Kind is files, database or block; empty is that of the last backup, or files.
	Kind string `json:"Kind,omitempty"`
	// Reread reads also files whose size and times are those of the last backup.
	Reread bool              `json:"Reread,omitempty"`
	Labels map[string]string `json:"Labels,omitempty"`
}

// BackupListRequest asks for the backups of a volume; what is empty asks for all.
type BackupListRequest struct {
	Repository string `json:"Repository,omitempty"`
	Pool       string `json:"Pool,omitempty"`
	Name       string `json:"Name,omitempty"`
}

// BackupRequest names a backup. Four letters of the ID will do, if no other begins so.
type BackupRequest struct {
	Repository string `json:"Repository,omitempty"`
	ID         string `json:"ID,omitempty"`
}

// BackupPruneRequest says which backups of each volume are kept: the newest, and the newest of
// each of so many hours, days, weeks, months and years.
type BackupPruneRequest struct {
	Repository string `json:"Repository,omitempty"`
	// Pool and Name are the volume whose backups are looked at; empty is all.
	Pool    string `json:"Pool,omitempty"`
	Name    string `json:"Name,omitempty"`
	Last    int    `json:"Last,omitempty"`
	Hourly  int    `json:"Hourly,omitempty"`
	Daily   int    `json:"Daily,omitempty"`
	Weekly  int    `json:"Weekly,omitempty"`
	Monthly int    `json:"Monthly,omitempty"`
	Yearly  int    `json:"Yearly,omitempty"`
	// DryRun only says what would be done.
	DryRun bool `json:"DryRun,omitempty"`
	// TakeOver makes this host the one that frees room from now on.
	TakeOver bool `json:"TakeOver,omitempty"`
}

// BackupRepairRequest asks for a repository to be mended.
type BackupRepairRequest struct {
	Repository string `json:"Repository,omitempty"`
	// DryRun only says what would be done.
	DryRun bool `json:"DryRun,omitempty"`
}

// BackupRestoreRequest asks for a backup to be restored.
type BackupRestoreRequest struct {
	Repository string `json:"Repository,omitempty"`
	// ID is that of a backup, or the name of a volume, of which the newest backup is meant, or
	// with At the newest that was begun at that time or before.
	ID string    `json:"ID"`
	At time.Time `json:"At,omitzero"`
	// Pool is where the volume is; empty is the pool of the backup.
	Pool string `json:"Pool,omitempty"`
	// To is a volume that is made, with Options; without Paths it must not be there. Empty is
	// the volume of the backup, in place.
	To      string            `json:"To,omitempty"`
	Options map[string]string `json:"Options,omitempty"`
	// Paths are files and directories; nil is everything.
	Paths []string `json:"Paths,omitempty"`
	// Purge keeps nothing of what is replaced in place.
	Purge bool `json:"Purge,omitempty"`
}

// Backup is a backup of a volume.
type Backup struct {
	ID         string    `json:"ID"`
	Repository string    `json:"Repository"`
	Host       string    `json:"Host"`
	Pool       string    `json:"Pool"`
	Volume     string    `json:"Volume"`
	Kind       string    `json:"Kind"`
	Started    time.Time `json:"Started"`
	Ended      time.Time `json:"Ended"`
	// PointInTime is whether it holds what the volume was at one moment.
	PointInTime bool  `json:"PointInTime"`
	Size        int64 `json:"Size"`
	Files       int64 `json:"Files"`
	// Skipped are how many devices, sockets and pipes are not in it.
	Skipped int64 `json:"Skipped,omitempty"`
	// Stored is what was added to the repository; in the answer to Create alone.
	Stored int64             `json:"Stored,omitempty"`
	Labels map[string]string `json:"Labels,omitempty"`
	// Warnings are in the answer to Create alone.
	Warnings []string `json:"Warnings,omitempty"`
	// Errors say what went wrong beside it, such as a hook after its snapshot; likewise.
	Errors []string `json:"Errors,omitempty"`
}

// BackupList answers [MethodBackupList].
type BackupList struct {
	// Backups is never null.
	Backups []Backup `json:"Backups"`
}

// BackupVerify says what was read, and what is damaged.
type BackupVerify struct {
	Backups int             `json:"Backups"`
	Bytes   int64           `json:"Bytes"`
	Damaged []BackupDamaged `json:"Damaged,omitempty"`
}

// BackupDamaged is a backup that cannot be restored whole.
type BackupDamaged struct {
	ID     string `json:"ID"`
	Volume string `json:"Volume"`
	// Files is how many are damaged; Error says of one what is wrong.
	Files int    `json:"Files"`
	Error string `json:"Error"`
}

// BackupPrune says what was kept and what was removed, or would be.
type BackupPrune struct {
	// Choices is never null.
	Choices []BackupChoice `json:"Choices"`
	// Warnings say what could not be done beside it.
	Warnings []string `json:"Warnings,omitempty"`
}

// BackupChoice is a backup and why it is kept; without a reason it goes.
type BackupChoice struct {
	Backup
	Reasons []string `json:"Reasons,omitempty"`
}

// BackupRepair says what was damaged and mended, or would be.
type BackupRepair struct {
	Repository string `json:"Repository"`
	// Mended are parts that were written again from their copies.
	Mended []string `json:"Mended,omitempty"`
	// Indexes are those that were made anew.
	Indexes []string `json:"Indexes,omitempty"`
	// Pieces are how many pieces of files and directories cannot be read, and were forgotten.
	Pieces int `json:"Pieces,omitempty"`
	// Copies are how many copies were made that were not there.
	Copies int `json:"Copies,omitempty"`
}

// BackupRestore says what was restored, and to where.
type BackupRestore struct {
	Backup Backup `json:"Backup"`
	Pool   string `json:"Pool"`
	Volume string `json:"Volume"`
	// Kept is the ID that what was replaced has in the trash.
	Kept     string   `json:"Kept,omitempty"`
	Warnings []string `json:"Warnings,omitempty"`
}

// Proof says of a volume what came of the last restore of its newest backup that was made to show
// that it can be.
type Proof struct {
	Repository string `json:"Repository"`
	Pool       string `json:"Pool"`
	Volume     string `json:"Volume"`
	// Backup is the one that was restored, which was begun at Made.
	Backup string    `json:"Backup"`
	Made   time.Time `json:"Made"`
	// At is when that began, Seconds how long it took.
	At      time.Time `json:"At"`
	Seconds float64   `json:"Seconds"`
	// Files and Bytes are what was read from the disk and compared.
	Files int64 `json:"Files"`
	Bytes int64 `json:"Bytes"`
	// Check is the image in which a command looked at it; empty is none.
	Check string `json:"Check,omitempty"`
	// Error says why it is no proof; empty is success.
	Error string `json:"Error,omitempty"`
	// Proven is when it succeeded last, ProvenBackup with which backup, of ProvenMade.
	Proven        time.Time `json:"Proven,omitzero"`
	ProvenBackup  string    `json:"ProvenBackup,omitempty"`
	ProvenMade    time.Time `json:"ProvenMade,omitzero"`
	ProvenSeconds float64   `json:"ProvenSeconds,omitempty"`
}

// BackupProofs answers [MethodBackupProve].
type BackupProofs struct {
	// Proofs is never null.
	Proofs []Proof `json:"Proofs"`
}

// handleBackups adds the methods about backups.
func handleBackups(s *Server, b Backups) {
	handle(s, MethodBackupInit, b.Init)
	handle(s, MethodBackupList, func(ctx context.Context, r BackupListRequest) (BackupList, error) {
		all, err := b.List(ctx, r)
		if all == nil {
			all = []Backup{}
		}
		return BackupList{all}, err
	})
	handle(s, MethodBackupInspect, b.Inspect)
	handle(s, MethodBackupRemove, func(ctx context.Context, r BackupRequest) (struct{}, error) { return struct{}{}, b.Remove(ctx, r) })
	handleLong(s, MethodBackupCreate, b.Create)
	handleLong(s, MethodBackupVerify, b.Verify)
	handleLong(s, MethodBackupPrune, b.Prune)
	handleLong(s, MethodBackupProve, b.Prove)
	handleLong(s, MethodBackupRepair, b.Repair)
	handleLong(s, MethodBackupRestore, b.Restore)
}

// handleLong adds a method that tells progress. When the caller hangs up it is given up.
func handleLong[Req, Resp any](s *Server, method string, call func(context.Context, Req, func(Progress)) (Resp, error)) {
	stream(s, method, func(ctx context.Context, req Req, send func(line)) (Resp, error) {
		return call(ctx, req, sendProgress(send))
	})
}

// Backups returns the methods about backups.
func (c *Client) Backups() Backups { return clientBackups{c} }

type clientBackups struct{ c *Client }

// Init implements [Backups].
func (b clientBackups) Init(ctx context.Context, req BackupRepository) (BackupRepository, error) {
	return call[BackupRepository](ctx, b.c, MethodBackupInit, req)
}

// Create implements [Backups].
func (b clientBackups) Create(ctx context.Context, req BackupCreateRequest, progress func(Progress)) (Backup, error) {
	return callLong[Backup](ctx, b.c, MethodBackupCreate, req, progress)
}

// List implements [Backups].
func (b clientBackups) List(ctx context.Context, req BackupListRequest) ([]Backup, error) {
	l, err := call[BackupList](ctx, b.c, MethodBackupList, req)
	return l.Backups, err
}

// Inspect implements [Backups].
func (b clientBackups) Inspect(ctx context.Context, req BackupRequest) (Backup, error) {
	return call[Backup](ctx, b.c, MethodBackupInspect, req)
}

// Verify implements [Backups].
func (b clientBackups) Verify(ctx context.Context, req BackupRequest, progress func(Progress)) (BackupVerify, error) {
	return callLong[BackupVerify](ctx, b.c, MethodBackupVerify, req, progress)
}

// Prove implements [Backups].
func (b clientBackups) Prove(ctx context.Context, req BackupListRequest, progress func(Progress)) (BackupProofs, error) {
	return callLong[BackupProofs](ctx, b.c, MethodBackupProve, req, progress)
}

// Remove implements [Backups].
func (b clientBackups) Remove(ctx context.Context, req BackupRequest) error {
	_, err := call[struct{}](ctx, b.c, MethodBackupRemove, req)
	return err
}

// Prune implements [Backups].
func (b clientBackups) Prune(ctx context.Context, req BackupPruneRequest, progress func(Progress)) (BackupPrune, error) {
	return callLong[BackupPrune](ctx, b.c, MethodBackupPrune, req, progress)
}

// Restore implements [Backups].
func (b clientBackups) Restore(ctx context.Context, req BackupRestoreRequest, progress func(Progress)) (BackupRestore, error) {
	return callLong[BackupRestore](ctx, b.c, MethodBackupRestore, req, progress)
}

// Repair implements [Backups].
func (b clientBackups) Repair(ctx context.Context, req BackupRepairRequest, progress func(Progress)) (BackupRepair, error) {
	return callLong[BackupRepair](ctx, b.c, MethodBackupRepair, req, progress)
}

// callLong calls a method that tells progress.
func callLong[Resp any](ctx context.Context, c *Client, method string, req any, progress func(Progress)) (Resp, error) {
	return follow[Resp](ctx, c, method, req, progressOf(progress))
}
