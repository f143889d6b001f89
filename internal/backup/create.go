package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/fs/localfs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/policy"
	"github.com/kopia/kopia/snapshot/upload"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Request says what to back up.
type Request struct {
	Pool, Volume string
	// Dir is where the data lies.
	Dir string
	// PointInTime: nobody writes to Dir. Otherwise a file that is gone by the time it is read
	// is no error.
	PointInTime bool
	// Kind is what the volume holds; empty is what it held the last time, or files.
	Kind Kind
	// Reread reads every file, also one whose size and times are those of the last backup.
	Reread bool
	Labels map[string]string
	// Tell is told of progress, from one goroutine; nil is for nobody.
	Tell func(Progress)
}

// The tags of a backup. Kopia's own program shows those that begin with tag:.
const (
	tagLabel       = "tag:"
	tagKind        = "remora.kind"
	tagPointInTime = "remora.point-in-time"
	tagSkipped     = "remora.skipped"
)

// checkpointTime is how often what has been stored so far is noted, so that a backup that is cut
// off goes on from there the next time.
const checkpointTime = 30 * time.Second

// partingTime is how long a backup that is called off may take to note that.
const partingTime = 10 * time.Second

// compressor is the fastest of those that are worth their time.
const compressor = "zstd-fastest"

// splitters cut files into the pieces that are stored once. A database that rewrites pages all
// over a file changes as many pieces as pages: they had better be small. Those of other files
// are of 1 MiB, where kopia's default is 4: less is stored of a large file that was changed, and
// the buffers are as much smaller.
var splitters = map[Kind]string{KindFiles: "DYNAMIC-1M-BUZHASH", KindDatabase: "FIXED-128K", KindBlock: "FIXED-128K"}

// Create makes a backup. Where it fails there is none.
func (r *Repository) Create(ctx context.Context, q Request) (Backup, error) {
	b, err := r.create(ctx, q)
	return b, r.place.explain(err)
}

func (r *Repository) create(ctx context.Context, q Request) (Backup, error) {
	defer frugal()()
	if _, ok := splitters[q.Kind]; !ok && q.Kind != "" {
		return Backup{}, errdefs.Errorf(errdefs.ErrInvalid, "kind %q: want files, database or block", q.Kind)
	}
	dir, err := localfs.Directory(q.Dir)
	if err == nil && !q.PointInTime {
		var closed func()
		if dir, closed, err = openLive(q.Dir); err == nil {
			defer closed()
		}
	}
	if err != nil {
		return Backup{}, fmt.Errorf("volume %q: %w", q.Volume, err)
	}
	defer dir.Close()
	p := &progress{live: !q.PointInTime}
	var stored atomic.Int64
	var m *snapshot.Manifest
	stop := follow(q.Tell, p.now)
	defer stop()
	// Who calls it off ends the reading. What is on its way by then arrives and is noted, if it
	// can soon, for the next backup to go on from.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { time.AfterFunc(partingTime, func() { cancel(context.Cause(ctx)) }) })()
	err = repo.WriteSession(work, r.rep, repo.WriteSessionOptions{
		Purpose: "backup", OnUpload: func(n int64) { stored.Add(n) },
	}, func(work context.Context, w repo.RepositoryWriter) (err error) {
		if m, err = r.upload(work, ctx.Done(), w, dir, q, p); err != nil && ctx.Err() != nil {
			_ = w.Flush(work) // what is not noted is stored again the next time, that is all
		}
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Backup{}, fmt.Errorf("volume %q: %w", q.Volume, err)
	}
	b := toBackup(m)
	b.Stored = stored.Load()
	return b, nil
}

// upload stores a directory until enough is closed.
func (r *Repository) upload(ctx context.Context, enough <-chan struct{}, w repo.RepositoryWriter, dir kopiafs.Directory, q Request, p *progress) (*snapshot.Manifest, error) {
	src := snapshot.SourceInfo{Host: r.place.Host, UserName: userName, Path: "/" + q.Pool + "/" + q.Volume}
	all, err := snapshot.ListSnapshots(ctx, w, src)
	if err != nil {
		return nil, err
	}
	last, err := snapshot.FindPreviousManifests(ctx, w, src, nil)
	if err != nil {
		return nil, err
	}
	if q.Kind == "" {
		q.Kind = KindFiles
		if newest := snapshot.SortByTime(all, true); len(newest) > 0 && newest[0].Tags[tagKind] != "" {
			q.Kind = Kind(newest[0].Tags[tagKind])
		}
	}
	tags := tagsOf(q)
	k := &keeping{RepositoryWriter: w}
	u := upload.NewUploader(k)
	u.DisableIgnoreRules = true // else what a file in the volume names, and caches, would be left out
	u.CheckpointInterval = cmp.Or(r.place.checkpoint, checkpointTime)
	u.ParallelUploads = r.place.parallel()
	u.CheckpointLabels = maps.Clone(tags)
	u.Progress = p
	p.cancel = u.Cancel
	if q.Reread {
		u.ForceHashPercentage = 100
	}
	uploaded := make(chan struct{})
	defer close(uploaded)
	go func() {
		select {
		case <-enough:
			u.Cancel()
		case <-uploaded:
		}
	}()
	m, err := u.Upload(ctx, dir, policyOf(q.Kind, r.place.parallel()), src, last...)
	k.end()
	switch {
	case p.err() != nil:
		return nil, p.err()
	case err != nil:
		return nil, err
	case m.IncompleteReason != "":
		// Of a checkpoint that failed kopia says no more than that.
		if err := cmp.Or(k.wrong, r.how.watched.reason()); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("not complete: %s", m.IncompleteReason)
	}
	tags[tagSkipped] = strconv.FormatInt(p.skipped.Load(), 10)
	m.Tags = tags
	if m.ID, err = snapshot.SaveSnapshot(ctx, w, m); err != nil {
		return nil, err
	}
	if all, err = snapshot.ListSnapshots(ctx, w, src); err != nil { // with those of this one
		return nil, err
	}
	return m, deleteIncomplete(ctx, w, all)
}

// keeping is a writer for kopia's uploader, which at each checkpoint removes old backups as
// kopia's own policy says: here a person does, and nobody else. A checkpoint may be under way
// still when the uploader has ended, and the repository is closed behind it: then it neither writes
// anything, nor reads in indexes that are not in memory any more, which would end the process.
type keeping struct {
	repo.RepositoryWriter
	mu    sync.RWMutex // held for reading as long as a call runs
	ended bool

	wrongOnce sync.Once
	wrong     error // what went wrong first; it is looked at after the end
}

var errEnded = errors.New("the upload has ended")

// end waits until no call runs, and lets none do so any more.
func (k *keeping) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
}

func (k *keeping) unlessEnded(do func() error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.ended {
		return errEnded
	}
	err := do()
	if err != nil {
		k.wrongOnce.Do(func() { k.wrong = err })
	}
	return err
}

// FindManifests implements [repo.RepositoryWriter].
func (k *keeping) FindManifests(ctx context.Context, labels map[string]string) (all []*manifest.EntryMetadata, err error) {
	err = k.unlessEnded(func() (err error) {
		all, err = k.RepositoryWriter.FindManifests(ctx, labels)
		return err
	})
	return all, err
}

// GetManifest implements [repo.RepositoryWriter].
func (k *keeping) GetManifest(ctx context.Context, id manifest.ID, data any) (m *manifest.EntryMetadata, err error) {
	err = k.unlessEnded(func() (err error) {
		m, err = k.RepositoryWriter.GetManifest(ctx, id, data)
		return err
	})
	return m, err
}

// OpenObject implements [repo.RepositoryWriter].
func (k *keeping) OpenObject(ctx context.Context, id object.ID) (r object.Reader, err error) {
	err = k.unlessEnded(func() (err error) {
		r, err = k.RepositoryWriter.OpenObject(ctx, id)
		return err
	})
	return r, err
}

// PutManifest implements [repo.RepositoryWriter].
func (k *keeping) PutManifest(ctx context.Context, labels map[string]string, payload any) (id manifest.ID, err error) {
	err = k.unlessEnded(func() (err error) {
		id, err = k.RepositoryWriter.PutManifest(ctx, labels, payload)
		return err
	})
	return id, err
}

// Flush implements [repo.RepositoryWriter].
func (k *keeping) Flush(ctx context.Context) error {
	return k.unlessEnded(func() error { return k.RepositoryWriter.Flush(ctx) })
}

// DeleteManifest implements [repo.RepositoryWriter]: backups that were cut off may go.
func (k *keeping) DeleteManifest(ctx context.Context, id manifest.ID) error {
	return k.unlessEnded(func() error {
		m, err := snapshot.LoadSnapshot(ctx, k.RepositoryWriter, id)
		if err != nil || m.IncompleteReason == "" {
			return err
		}
		return k.RepositoryWriter.DeleteManifest(ctx, id)
	})
}

// deleteIncomplete removes what backups have left that were cut off: the one that has just
// been made has all that is in them.
func deleteIncomplete(ctx context.Context, w repo.RepositoryWriter, all []*snapshot.Manifest) error {
	for _, m := range all {
		if m.IncompleteReason == "" {
			continue
		}
		if err := w.DeleteManifest(ctx, m.ID); err != nil && !errors.Is(err, manifest.ErrNotFound) {
			return err
		}
	}
	return nil
}

func tagsOf(q Request) map[string]string {
	tags := map[string]string{tagKind: string(q.Kind), tagPointInTime: strconv.FormatBool(q.PointInTime)}
	for k, v := range q.Labels {
		tags[tagLabel+k] = v
	}
	return tags
}

func policyOf(k Kind, parallel int) *policy.Tree {
	no, files := policy.OptionalBool(false), policy.OptionalInt(parallel)
	p := *policy.DefaultPolicy
	p.CompressionPolicy = policy.CompressionPolicy{CompressorName: compressor}
	p.UploadPolicy.MaxParallelFileReads = &files
	p.SplitterPolicy = policy.SplitterPolicy{Algorithm: splitters[k]}
	p.ErrorHandlingPolicy = policy.ErrorHandlingPolicy{IgnoreFileErrors: &no, IgnoreDirectoryErrors: &no, IgnoreUnknownTypes: &no}
	return policy.BuildTree(map[string]*policy.Policy{".": &p}, policy.DefaultPolicy)
}

// progress listens to an upload.
type progress struct {
	upload.NullUploadProgress
	live                 bool
	cancel               func()
	done, total, skipped atomic.Int64

	mu    sync.Mutex
	first error
}

func (p *progress) now() Progress {
	done, total := p.done.Load(), p.total.Load()
	return Progress{Done: done, Total: max(done, total)}
}

// Enabled implements [upload.Progress].
func (p *progress) Enabled() bool { return true }

// HashedBytes implements [upload.Progress].
func (p *progress) HashedBytes(n int64) { p.done.Add(n) }

// CachedFile implements [upload.Progress].
func (p *progress) CachedFile(_ string, n int64) { p.done.Add(n) }

// EstimatedDataSize implements [upload.Progress].
func (p *progress) EstimatedDataSize(_, n int64) { p.total.Store(n) }

// EstimationParameters implements [upload.Progress].
func (p *progress) EstimationParameters() upload.EstimationParameters {
	return upload.EstimationParameters{Type: upload.EstimationTypeClassic}
}

// Error implements [upload.Progress].
func (p *progress) Error(path string, err error, _ bool) {
	if errors.Is(err, kopiafs.ErrUnknown) {
		p.skipped.Add(1)
		return
	}
	if p.live && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)) {
		return // whoever writes there has removed it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil {
		p.first = fmt.Errorf("%s: %w", path, err)
		p.cancel()
	}
}

func (p *progress) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first
}

func toBackup(m *snapshot.Manifest) Backup {
	b := Backup{
		ID: string(m.ID), Host: m.Source.Host, Started: m.StartTime.ToTime(), Ended: m.EndTime.ToTime(),
		Kind: Kind(m.Tags[tagKind]), PointInTime: m.Tags[tagPointInTime] == "true",
	}
	b.Pool, b.Volume, _ = strings.Cut(strings.TrimPrefix(m.Source.Path, "/"), "/")
	b.Skipped, _ = strconv.ParseInt(m.Tags[tagSkipped], 10, 64) // absent in what kopia's program made
	if m.RootEntry != nil && m.RootEntry.DirSummary != nil {
		b.Size, b.Files = m.RootEntry.DirSummary.TotalFileSize, m.RootEntry.DirSummary.TotalFileCount
	}
	for k, v := range maps.All(m.Tags) {
		if name, ok := strings.CutPrefix(k, tagLabel); ok {
			if b.Labels == nil {
				b.Labels = map[string]string{}
			}
			b.Labels[name] = v
		}
	}
	return b
}
