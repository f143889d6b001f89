package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
	"github.com/kopia/kopia/repo/content"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Repaired says what was damaged, and mended or, in a dry run, would be.
type Repaired struct {
	// Mended are the blobs that are what they were, from their copies.
	Mended []string
	// Indexes are those that were made anew of what the packs say of themselves.
	Indexes []string
	// Pieces are those of files and directories that cannot be read. They are forgotten, so that
	// the next backup with Reread stores them anew, which mends the old ones too.
	Pieces int
	// Copies are how many copies were missing or damaged, and made.
	Copies int
}

// Damaged tells whether anything was.
func (r Repaired) Damaged() bool { return len(r.Mended)+len(r.Indexes)+r.Pieces > 0 }

// Repair mends a repository in which bytes are damaged. A dry run changes nothing; where
// indexes have to be made anew, or where it lies in its directory is not known, it does not see what
// is behind that.
func Repair(ctx context.Context, p Place, dryRun bool, tell func(Progress)) (Repaired, error) {
	var done Repaired
	err := p.repair(ctx, dryRun, tell, &done)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return done, p.explain(err)
}

func (p Place) repair(ctx context.Context, dryRun bool, tell func(Progress), done *Repaired) (err error) {
	defer frugal()()
	if _, err := password(p.Repository); err != nil {
		return err
	}
	if damaged, err := p.mendLayout(dryRun); damaged {
		done.Mended = append(done.Mended, sharded.ParametersFile)
		if err != nil || dryRun {
			return err
		}
	}
	st, err := p.storage(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close(context.WithoutCancel(ctx))) }()
	c := copied{st.(named).Storage.(copied).Storage}
	p.mended = map[blob.ID][]byte{}
	if err := c.mend(ctx, dryRun, done, p.mended); err != nil {
		return err
	}
	r, err := p.openHiding(ctx, done)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	if len(done.Indexes) > 0 {
		if dryRun {
			return nil
		}
		if err := r.reindex(ctx); err != nil {
			return err
		}
	}
	if err := r.bringBack(ctx, c, dryRun, done); err != nil {
		return err
	}
	if err := r.forget(ctx, dryRun, tell, done); err != nil {
		return err
	}
	done.Copies, err = c.complete(ctx, dryRun, true)
	return err
}

// mend writes the blobs that differ from their copies as these are.
func (s copied) mend(ctx context.Context, dryRun bool, done *Repaired, mended map[blob.ID][]byte) error {
	all, err := blob.ListAllBlobs(ctx, s.Storage, copyPrefix)
	if err != nil {
		return err
	}
	for _, m := range all {
		id := m.BlobID[len(copyPrefix):]
		want, err := s.getCopy(ctx, id)
		if errors.Is(err, errNoCopy) {
			continue // complete sees to it
		}
		if err != nil {
			return err
		}
		is, err := get(ctx, s.Storage, id)
		format := strings.HasPrefix(string(id), "kopia.")
		switch {
		case errors.Is(err, blob.ErrBlobNotFound) && !format:
			continue // somebody else has removed it
		case err != nil && !errors.Is(err, blob.ErrBlobNotFound):
			return err
		case bytes.Equal(is, want), format && changed(is, want):
			continue
		}
		done.Mended = append(done.Mended, string(id))
		if mended[id] = want; dryRun {
			continue
		}
		if err := putBlob(ctx, s.Storage, id, want); err != nil {
			return err
		}
	}
	return nil
}

// complete makes the copies that are not there or, if they are to be read, damaged, and removes
// those of what is gone.
func (s copied) complete(ctx context.Context, dryRun, read bool) (made int, err error) {
	all, err := blob.ListAllBlobs(ctx, s.Storage, "")
	if err != nil {
		return 0, err
	}
	there := map[blob.ID]bool{}
	for _, m := range all {
		there[m.BlobID] = true
	}
	for _, m := range all {
		id := m.BlobID
		if of, isCopy := strings.CutPrefix(string(id), copyPrefix); isCopy && !there[blob.ID(of)] && !strings.HasPrefix(of, "kopia.") && !dryRun {
			if err := s.Storage.DeleteBlob(ctx, id); err != nil {
				return made, err
			}
		}
		if !isCopied(id) {
			continue
		}
		if there[copyPrefix+id] {
			if !read {
				continue
			}
			_, err := s.getCopy(ctx, id)
			if err == nil {
				continue
			}
			if !errors.Is(err, errNoCopy) {
				return made, err
			}
		}
		made++
		if dryRun {
			continue
		}
		b, err := get(ctx, s.Storage, id)
		if err == nil {
			err = s.putCopy(ctx, id, b, blob.PutOptions{})
		}
		if err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
			return made, err
		}
	}
	return made, nil
}

// indexName finds in an error of kopia's which index it is that cannot be read.
var indexName = regexp.MustCompile(`index blob (x[a-z][0-9a-z_]+-s[0-9a-z]+-c\d+)`)

// openHiding opens a repository without the indexes that cannot be read. Where one of them is
// of several others, those are there still and take its place.
func (p *Place) openHiding(ctx context.Context, done *Repaired) (*Repository, error) {
	for {
		r, err := p.open(ctx, uncached)
		if err == nil || !isDamage(err) {
			return r, err
		}
		name := indexName.FindStringSubmatch(err.Error())
		if name == nil || slices.Contains(p.hidden, blob.ID(name[1])) {
			return nil, err
		}
		p.hidden = append(p.hidden, blob.ID(name[1]))
		done.Indexes = append(done.Indexes, name[1])
	}
}

// reindex makes indexes anew, of what each pack says of itself, and removes the bad ones. What
// an index has that is good and newer counts.
func (r *Repository) reindex(ctx context.Context) error {
	return r.direct(ctx, "make indexes anew", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		for _, prefix := range content.PackBlobIDPrefixes {
			packs, err := blob.ListAllBlobs(ctx, w.BlobReader(), prefix)
			if err != nil {
				return err
			}
			for _, pack := range packs {
				_, err := w.ContentManager().RecoverIndexFromPackBlob(ctx, pack.BlobID, pack.Length, true)
				if err != nil && (ctx.Err() != nil || errdefs.Class(err) != nil || isNet(err)) {
					return err // one that says nothing of itself is passed over
				}
			}
		}
		if err := w.Flush(ctx); err != nil {
			return err
		}
		for _, id := range r.place.hidden {
			if err := w.BlobStorage().DeleteBlob(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// bringBack writes packs of metadata that are not there, while the index says that they are, as
// their copies are. Of those that the index does not have somebody has removed the one, and left
// the other.
func (r *Repository) bringBack(ctx context.Context, c copied, dryRun bool, done *Repaired) error {
	return r.direct(ctx, "bring back what is lost", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		packs := map[blob.ID]bool{}
		if err := w.ContentManager().IterateContents(ctx, content.IterateOptions{}, func(i content.Info) error {
			if isCopied(i.PackBlobID) {
				packs[i.PackBlobID] = true
			}
			return nil
		}); err != nil {
			return err
		}
		for _, id := range slices.Sorted(maps.Keys(packs)) {
			_, err := c.GetMetadata(ctx, id)
			if !errors.Is(err, blob.ErrBlobNotFound) {
				if err != nil {
					return err
				}
				continue
			}
			want, err := c.getCopy(ctx, id)
			if errors.Is(err, errNoCopy) {
				continue
			}
			if err != nil {
				return err
			}
			done.Mended = append(done.Mended, string(id))
			if r.place.mended[id] = want; dryRun {
				continue
			}
			if err := putBlob(ctx, c.Storage, id, want); err != nil {
				return err
			}
		}
		return nil
	})
}

// forget has the index forget what cannot be read.
func (r *Repository) forget(ctx context.Context, dryRun bool, tell func(Progress), done *Repaired) error {
	return r.direct(ctx, "forget what is damaged", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		m := w.ContentManager()
		var total int64
		if err := m.IterateContents(ctx, content.IterateOptions{}, func(i content.Info) error {
			total += int64(i.PackedLength)
			return nil
		}); err != nil {
			return err
		}
		var read atomic.Int64
		var mu sync.Mutex
		var bad []content.ID
		stop := follow(tell, func() Progress { return Progress{Done: read.Load(), Total: total} })
		err := m.IterateContents(ctx, content.IterateOptions{Parallel: r.place.parallel()}, func(i content.Info) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			defer read.Add(int64(i.PackedLength))
			_, err := m.GetContent(ctx, i.ContentID)
			if isDamage(err) { // it may have been the line, or the memory
				_, err = m.GetContent(ctx, i.ContentID)
			}
			if !isDamage(err) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			bad = append(bad, i.ContentID)
			return nil
		})
		stop()
		done.Pieces = len(bad)
		if err != nil || dryRun {
			return err
		}
		slices.SortFunc(bad, func(a, b content.ID) int { return strings.Compare(a.String(), b.String()) })
		for _, id := range slices.Compact(bad) {
			if err := m.DeleteContent(ctx, id); err != nil {
				return fmt.Errorf("piece %s: %w", id, err)
			}
		}
		return nil
	})
}

func (r *Repository) direct(ctx context.Context, purpose string, do func(context.Context, repo.DirectRepositoryWriter) error) error {
	return repo.DirectWriteSession(ctx, r.rep, repo.WriteSessionOptions{Purpose: purpose}, do)
}

// repairing is a storage as it is to be seen while it is mended.
type repairing struct {
	blob.Storage
	hidden []blob.ID
	mended map[blob.ID][]byte
}

// ListBlobs implements [blob.Storage].
func (s repairing) ListBlobs(ctx context.Context, prefix blob.ID, tell func(blob.Metadata) error) error {
	return s.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		if slices.Contains(s.hidden, m.BlobID) {
			return nil
		}
		return tell(m)
	})
}

// GetBlob implements [blob.Storage].
func (s repairing) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	b, ok := s.mended[id]
	if !ok {
		return s.Storage.GetBlob(ctx, id, offset, length, out)
	}
	if length < 0 {
		offset, length = 0, int64(len(b))
	}
	if offset < 0 || offset+length > int64(len(b)) {
		return blob.ErrInvalidRange
	}
	out.Reset()
	_, err := out.Write(b[offset : offset+length])
	return err
}
