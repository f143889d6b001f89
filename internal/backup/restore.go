package backup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot/restore"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Restore writes the backup whose ID begins with id to dir, which must be empty, with owners,
// modes and times, and returns it.
func (r *Repository) Restore(ctx context.Context, id, dir string, tell func(Progress)) (Backup, error) {
	m, err := r.find(ctx, id)
	if err != nil {
		return Backup{}, r.place.explain(err)
	}
	b := toBackup(m)
	root, err := snapshotfs.SnapshotRoot(r.rep, m)
	if err == nil {
		err = r.write(ctx, root, dir, b.Size, tell)
	}
	if err == nil { // the root has no parent that knows its time
		err = os.Chtimes(dir, m.RootEntry.ModTime.ToTime(), m.RootEntry.ModTime.ToTime())
	}
	if err == nil { // who is told that it is whole finds it so after a power cut
		err = target("", flush(dir)) // some file systems find out late
	}
	if err != nil {
		return Backup{}, r.place.explain(fmt.Errorf("backup %.8s: %w", b.ID, r.place.classify(err)))
	}
	return b, nil
}

// RestorePath writes one file or directory of a backup into dir, at the same path. What is
// there already is replaced, at once.
func (r *Repository) RestorePath(ctx context.Context, id, name, dir string, tell func(Progress)) error {
	m, err := r.find(ctx, id)
	if err == nil {
		err = r.restorePath(ctx, id, name, dir, tell, func() (kopiafs.Entry, error) { return snapshotfs.SnapshotRoot(r.rep, m) })
	}
	return r.place.explain(err)
}

func (r *Repository) restorePath(ctx context.Context, id, name, dir string, tell func(Progress), root func() (kopiafs.Entry, error)) error {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "path %q: want that of a file or directory in the volume", name)
	}
	top, err := root()
	if err != nil {
		return err
	}
	var above kopiafs.Directory
	e := top
	for elem := range strings.SplitSeq(clean, "/") {
		if above, _ = e.(kopiafs.Directory); above == nil {
			err = kopiafs.ErrEntryNotFound
			break
		}
		if e, err = above.Child(ctx, elem); err != nil {
			break
		}
	}
	if errors.Is(err, kopiafs.ErrEntryNotFound) {
		return errdefs.Errorf(errdefs.ErrNotFound, "backup %.8q: has no %q", id, clean)
	}
	if err != nil {
		return err
	}
	volume, err := os.OpenRoot(dir) // a link in the volume must not lead out of it
	if err != nil {
		return err
	}
	defer volume.Close()
	parent := path.Dir(clean)
	if err := volume.MkdirAll(parent, 0o755); err != nil {
		return target("", err)
	}
	fresh, err := os.MkdirTemp(dir, ".remora-restore-")
	if err != nil {
		return target("", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // what is left there is told by the error
	to := filepath.Join(fresh, path.Base(clean))
	if err := r.write(ctx, e, to, e.Size(), tell); err != nil {
		return fmt.Errorf("backup %.8s: %s: %w", id, clean, r.place.classify(err))
	}
	if _, isDir := e.(kopiafs.Directory); isDir {
		if err := r.setTimes(ctx, above, fresh, path.Base(clean)); err != nil {
			return err
		}
	}
	old := path.Join(filepath.Base(fresh), ".old")
	if err := volume.Rename(clean, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return volume.Rename(path.Join(filepath.Base(fresh), path.Base(clean)), clean)
}

// write writes an entry of a backup to a path.
func (r *Repository) write(ctx context.Context, e kopiafs.Entry, to string, size int64, tell func(Progress)) error {
	defer frugal()()
	out := &output{restore.FilesystemOutput{TargetPath: to, OverwriteDirectories: true}, r}
	if _, isDir := e.(kopiafs.Directory); isDir {
		if err := os.MkdirAll(to, 0o700); err != nil { // Init looks at it
			return target("", err)
		}
	}
	if err := out.Init(ctx); err != nil {
		return err
	}
	var mu sync.Mutex
	done := int64(0)
	stop := follow(tell, func() Progress {
		mu.Lock()
		defer mu.Unlock()
		return Progress{Done: min(done, size), Total: size}
	})
	defer stop()
	cancel := make(chan struct{})
	defer context.AfterFunc(ctx, func() { close(cancel) })()
	_, err := restore.Entry(ctx, r.rep, out, e, restore.Options{
		Parallel:               r.place.parallel(),
		RestoreDirEntryAtDepth: math.MaxInt32, // at 0, which is its zero value, it writes placeholders
		Cancel:                 cancel,
		ProgressCallback: func(_ context.Context, s restore.Stats) {
			mu.Lock()
			defer mu.Unlock()
			done = max(done, s.RestoredTotalFileSize)
		},
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if at, ok := errors.AsType[targetError](err); ok { // without how kopia came to it
		return at
	}
	return err
}
