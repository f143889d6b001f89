package backup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/restore"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Restore writes the backup whose ID begins with id to dir, which must be empty, with owners,
// modes and times, and returns it.
func (r *Repository) Restore(ctx context.Context, id, dir string, tell func(Progress)) (Backup, error) {
	ready, err := r.Ready(ctx, id)
	if err != nil {
		return Backup{}, err
	}
	return ready(ctx, dir, tell)
}

// Ready returns a [Repository.Restore] of a backup that has been found: should it be removed from
// now on, by whomever, that comes too late to be in its way.
func (r *Repository) Ready(ctx context.Context, id string) (restore func(ctx context.Context, dir string, tell func(Progress)) (Backup, error), err error) {
	m, err := r.find(ctx, id)
	if err != nil {
		return nil, r.place.explain(err)
	}
	root, err := snapshotfs.SnapshotRoot(r.rep, m)
	if err != nil {
		return nil, r.place.explain(err)
	}
	return func(ctx context.Context, dir string, tell func(Progress)) (Backup, error) {
		return r.restore(ctx, m, root, dir, tell)
	}, nil
}

func (r *Repository) restore(ctx context.Context, m *snapshot.Manifest, root kopiafs.Entry, dir string, tell func(Progress)) (Backup, error) {
	b := toBackup(m)
	err := target("", os.MkdirAll(dir, 0o700))
	if err == nil {
		err = r.writeInto(ctx, root, dir, b.Size, tell)
	}
	if err == nil { // the root has no parent that knows its time
		err = os.Chtimes(dir, m.RootEntry.ModTime.ToTime(), m.RootEntry.ModTime.ToTime())
	}
	if err == nil { // who is told that it is whole finds it so after a power cut
		err = target("", flush(dir)) // some file systems find out late
	}
	if err != nil {
		return Backup{}, r.place.explain(fmt.Errorf("backup %.12s: %w", b.ID, r.place.classify(err)))
	}
	return b, nil
}

// writeInto writes all of a backup into a directory, and never outside of it.
func (r *Repository) writeInto(ctx context.Context, e kopiafs.Entry, dir string, size int64, tell func(Progress)) error {
	volume, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer volume.Close()
	return r.write(ctx, e, &rooted{volume, ".", r}, size, tell)
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
		return errdefs.Errorf(errdefs.ErrNotFound, "backup %.12s: has no %q", id, clean)
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
	sweep(volume)
	fresh, locked, err := beside(volume)
	if err != nil {
		return err
	}
	defer func() { _, _ = volume.RemoveAll(fresh), locked.Close() }() // what is left there is told by the error, and swept by the next
	to := path.Join(fresh, path.Base(clean))
	if err := r.write(ctx, e, &rooted{volume, to, r}, e.Size(), tell); err != nil {
		return fmt.Errorf("backup %.12s: %s: %w", id, clean, r.place.classify(err))
	}
	if _, isDir := e.(kopiafs.Directory); isDir {
		err := r.setTimes(ctx, above, path.Base(clean), func(_ string, at time.Time) error { return volume.Chtimes(to, at, at) })
		if err != nil {
			return err
		}
	}
	return exchange(volume, to, clean)
}

// write writes an entry of a backup.
func (r *Repository) write(ctx context.Context, e kopiafs.Entry, out restore.Output, size int64, tell func(Progress)) error {
	defer frugal()()
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
