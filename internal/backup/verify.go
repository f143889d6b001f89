package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

// Damage is a backup that cannot be restored whole.
type Damage struct {
	Backup Backup
	// Err says of one file what is wrong with it, Files how many there are.
	Err   error
	Files int
}

// Verified says what was read.
type Verified struct {
	Backups int
	// Bytes are those that were read, each once, however many backups have them.
	Bytes   int64
	Damaged []Damage
}

// Verify reads everything that backups consist of from the repository at p, never from a
// cache, and returns what cannot be restored. Without IDs it is all backups.
func Verify(ctx context.Context, p Place, ids []string, tell func(Progress)) (Verified, error) {
	r, err := p.open(ctx, uncached)
	if err != nil {
		return Verified{}, p.explain(err)
	}
	v, err := r.verify(ctx, ids, tell)
	return v, p.explain(errors.Join(err, r.close(ctx)))
}

func (r *Repository) verify(ctx context.Context, ids []string, tell func(Progress)) (v Verified, err error) {
	defer frugal()()
	var all []*snapshot.Manifest
	if len(ids) == 0 {
		if all, err = r.manifests(ctx); err != nil {
			return v, err
		}
	}
	for _, id := range ids {
		m, err := r.find(ctx, id)
		if err != nil {
			return v, err
		}
		all = append(all, m)
	}
	var done atomic.Int64
	var total int64
	for _, m := range all {
		total += toBackup(m).Size
	}
	stop := follow(tell, func() Progress { return Progress{Done: done.Load(), Total: total} })
	defer stop()
	v.Backups = len(all)
	w, err := r.walk(ctx, all, &done)
	v.Bytes = w.read.Load()
	if err != nil || w.bad == 0 {
		return v, err
	}
	for _, m := range all { // a part that several have was found bad in the first of them alone
		w, err := r.walk(ctx, []*snapshot.Manifest{m}, nil)
		if err != nil {
			return v, err
		}
		if w.bad > 0 {
			v.Damaged = append(v.Damaged, Damage{Backup: toBackup(m), Err: w.err, Files: w.bad})
		}
	}
	return v, nil
}

// walked is what came of reading some backups.
type walked struct {
	read atomic.Int64
	bad  int
	err  error
}

// walk reads all parts of some backups, each once.
func (r *Repository) walk(ctx context.Context, all []*snapshot.Manifest, done *atomic.Int64) (*walked, error) {
	w := &walked{}
	tw, err := snapshotfs.NewTreeWalker(ctx, snapshotfs.TreeWalkerOptions{
		MaxErrors: -1, // all of them
		EntryCallback: func(ctx context.Context, e kopiafs.Entry, id object.ID, _ string) error {
			if e.IsDir() {
				return nil // the walker reads it
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			f, err := r.rep.OpenObject(ctx, id)
			if err != nil {
				return err
			}
			defer f.Close()
			n, err := io.Copy(io.Discard, f)
			w.read.Add(n)
			if done != nil {
				done.Add(n)
			}
			return err
		},
	})
	if err != nil {
		return w, err
	}
	defer tw.Close(ctx)
	for _, m := range all {
		root, err := snapshotfs.SnapshotRoot(r.rep, m)
		if err == nil {
			err = tw.Process(ctx, root, ".")
		}
		if ctx.Err() != nil {
			return w, context.Cause(ctx)
		}
		if err != nil && tw.Err() == nil {
			tw.ReportError(ctx, ".", err)
		}
	}
	errs, n := tw.GetErrors()
	w.bad = n
	if len(errs) > 0 {
		w.err = fmt.Errorf("%w", errs[0])
	}
	return w, nil
}
