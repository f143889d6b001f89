package rbd

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A snapshot has no metadata of its own: its tags are on its image, by its name. They are written
// before it is made, and are nobody's until then.

// snap is what rbd snap ls says.
type snap struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

func snapName(uuid string) string { return ours + uuid }

// snapshotSpec returns what a snapshot is called by rbd, of its ID: that of one of ours, or
// IMAGE@SNAPSHOT of any in the pool.
func (p *provider) snapshotSpec(ctx context.Context, id string) (string, error) {
	of, name, ok := strings.Cut(id, "@")
	if !ok || of == "" || name == "" || strings.ContainsAny(id, "/ ") || strings.HasPrefix(id, "-") {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "snapshot %q: not of the form IMAGE@SNAPSHOT", id)
	}
	image, err := p.nameOf(ctx, of)
	if errors.Is(err, errdefs.ErrNotFound) {
		image, err = of, nil
	}
	return p.spec(image) + "@" + name, err
}

func (w written) snapshot(id, name string, size int64) block.Snapshot {
	return block.Snapshot{ID: id + "@" + name, Tags: w.Tags, Size: size, State: block.Ready, Created: w.Made}
}

// Snapshots lists the pool, and asks those images for their tags that have snapshots.
func (p *provider) Snapshots(ctx context.Context, q block.Query) (all []block.Snapshot, err error) {
	err = p.do(ctx, "Snapshots", func(ctx context.Context) error {
		all, err = p.snapshots(ctx, q)
		return err
	})
	return all, err
}

func (p *provider) snapshots(ctx context.Context, q block.Query) (all []block.Snapshot, err error) {
	rows, err := p.rows(ctx)
	if err != nil {
		return nil, err
	}
	of := map[string][]row{}
	ids := map[string]string{}
	for _, r := range rows {
		switch {
		case r.Snapshot == "":
			ids[r.Image] = r.ID
		case strings.HasPrefix(r.Image, ours) && strings.HasPrefix(r.Snapshot, ours):
			of[r.Image] = append(of[r.Image], r)
		}
	}
	var images []string
	for image := range of {
		images = append(images, image)
	}
	found, err := each(ctx, images, func(ctx context.Context, image string) ([]block.Snapshot, bool, error) {
		m, err := p.meta(ctx, image)
		if _, own := m.tags(image); err != nil || !own {
			return nil, false, err
		}
		var list []block.Snapshot
		for _, r := range of[image] {
			var w written
			if json.Unmarshal([]byte(m[metaSnap+r.Snapshot]), &w) != nil || snapName(w.Tags[block.TagUUID]) != r.Snapshot {
				continue
			}
			s := w.snapshot(ids[image], r.Snapshot, r.Size)
			if s.Tags[block.TagNamespace] == q.Namespace && q.Takes(s.ID, s.Tags[block.TagName]) {
				list = append(list, s)
			}
		}
		return list, true, nil
	})
	return slices.Concat(found...), err
}

// CreateSnapshot makes a snapshot of the image as it is.
func (p *provider) CreateSnapshot(ctx context.Context, d block.Disk, tags block.Tags) (s block.Snapshot, err error) {
	err = p.do(ctx, "CreateSnapshot", func(ctx context.Context) error {
		image, err := p.imageOf(ctx, d)
		if err != nil {
			return err
		}
		name := snapName(tags[block.TagUUID])
		w := written{Made: time.Now().UTC().Truncate(time.Second), Tags: tags}
		text, err := json.Marshal(w)
		if err != nil {
			return err
		}
		if err := p.setMeta(ctx, image, metaSnap+name, string(text)); err != nil {
			return p.missing(d.ID, err)
		}
		if _, err := p.rbd(ctx, "snap", "create", p.spec(image)+"@"+name, "--no-progress"); err != nil && status(err) != syscall.EEXIST {
			return p.missing(d.ID, err)
		}
		s = w.snapshot(d.ID, name, d.Size)
		return nil
	})
	return s, err
}

// DeleteSnapshot removes a snapshot. Clones of it keep what they need.
func (p *provider) DeleteSnapshot(ctx context.Context, s block.Snapshot) error {
	return p.do(ctx, "DeleteSnapshot", func(ctx context.Context) error {
		id, name, _ := strings.Cut(s.ID, "@")
		image, err := p.nameOf(ctx, id)
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		err = p.long(ctx, "snap rm "+s.ID, "snap", "rm", p.spec(image)+"@"+name, "--no-progress")
		if status(err) == syscall.EBUSY {
			return errdefs.Hint(err, "it is protected, or has clones of format 1: rbd children "+p.spec(image)+"@"+name)
		}
		if err != nil && status(err) != enoent {
			return err
		}
		if _, err := p.rbd(ctx, "image-meta", "remove", p.spec(image), metaSnap+name); err != nil && status(err) != enoent {
			return err
		}
		return nil
	})
}

// rolling is the nonce of a lock that is held while an image is brought back to a snapshot.
const rolling = "rollback"

// Rollback brings an image back, under a lock: no host gets it while half of it is old.
func (p *provider) Rollback(ctx context.Context, d block.Disk, s block.Snapshot) error {
	return p.do(ctx, "Rollback", func(ctx context.Context) error {
		image, err := p.imageOf(ctx, d)
		if err != nil {
			return err
		}
		mine := func(l lock) bool {
			c, ok := l.claim()
			return ok && c.Host == p.host && c.Nonce == rolling
		}
		locks, err := p.locks(ctx, image)
		if err != nil {
			return p.missing(d.ID, err)
		}
		if !slices.ContainsFunc(locks, mine) {
			if err := p.acquire(ctx, image, claim{Host: p.host, Boot: p.boot, Nonce: rolling, Since: time.Now()}); err != nil {
				return err
			}
		}
		_, name, _ := strings.Cut(s.ID, "@")
		if err := p.long(ctx, "rollback "+d.ID, "snap", "rollback", p.spec(image)+"@"+name, "--no-progress"); err != nil {
			return err // the lock stays, as the image may be half of what it was: it is tried again
		}
		if locks, err = p.locks(ctx, image); err != nil {
			return err
		}
		for _, l := range locks {
			if mine(l) {
				return p.release(ctx, image, l)
			}
		}
		return nil
	})
}
