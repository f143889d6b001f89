package dobs

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The name of a snapshot of ours is for people, and ends in our UUID.
var (
	snapshotForm = regexp.MustCompile(`-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	notInName    = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// maxSaid is how much of its name says which snapshot of which volume it is.
const maxSaid = 80

func snapshotName(tags block.Tags) string {
	said := notInName.ReplaceAllString(tags[block.TagName]+"-"+tags["snapshot"], "_")
	return strings.Trim(said[:min(len(said), maxSaid)], "-._") + "-" + tags[block.TagUUID]
}

// factCopies are snapshots that were made twice, as an answer was lost and the list was behind.
const factCopies = "copies"

func snapshot(s godo.Snapshot) block.Snapshot {
	out := block.Snapshot{ID: s.ID, Tags: read(s.Tags), Size: int64(s.MinDiskSize) * gib, State: block.Ready}
	out.Created, _ = time.Parse(time.RFC3339, s.Created)
	if m := snapshotForm.FindStringSubmatch(s.Name); m != nil && out.Tags[block.TagNamespace] != "" {
		out.Tags[block.TagUUID] = m[1]
	}
	return out
}

// Snapshots returns the snapshots of a namespace, in all regions.
func (p *provider) Snapshots(ctx context.Context, q block.Query) ([]block.Snapshot, error) {
	list, err := p.snapshots(ctx, q)
	if err != nil {
		return nil, err
	}
	byUUID := map[string]int{}
	var all []block.Snapshot
	slices.SortFunc(list, func(a, b godo.Snapshot) int {
		return cmp.Or(strings.Compare(a.Created, b.Created), strings.Compare(a.ID, b.ID))
	})
	for _, v := range list {
		s := snapshot(v)
		uuid := s.Tags[block.TagUUID]
		if uuid == "" || s.Tags[block.TagNamespace] != q.Namespace || !q.Takes(s.ID, s.Tags[block.TagName]) {
			continue
		}
		if i, twice := byUUID[uuid]; twice {
			all[i].Facts = map[string]string{factCopies: strings.TrimSpace(all[i].Facts[factCopies] + " " + s.ID)}
			continue
		}
		byUUID[uuid] = len(all)
		all = append(all, s)
	}
	return all, nil
}

func (p *provider) snapshots(ctx context.Context, q block.Query) ([]godo.Snapshot, error) {
	if len(q.IDs) != 1 || len(q.Names) != 0 {
		return p.listSnapshots(ctx, p.do.Snapshots.ListVolume)
	}
	s, _, err := ask(ctx, p, "snapshots.get", func(ctx context.Context) (*godo.Snapshot, *godo.Response, error) {
		return p.do.Snapshots.Get(ctx, q.IDs[0])
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []godo.Snapshot{*s}, nil
}

func (p *provider) listSnapshots(ctx context.Context, list func(context.Context, *godo.ListOptions) ([]godo.Snapshot, *godo.Response, error)) ([]godo.Snapshot, error) {
	before := p.pages.Load()
	defer p.pages.Store(before) // which are those of volumes
	return pages(ctx, p, "snapshots.list", func(s godo.Snapshot) string { return s.ID }, func(ctx context.Context, o godo.ListOptions) ([]godo.Snapshot, *godo.Response, error) {
		return list(ctx, &o)
	})
}

// CreateSnapshot makes a snapshot, unless it is there.
func (p *provider) CreateSnapshot(ctx context.Context, d block.Disk, tags block.Tags) (block.Snapshot, error) {
	there, err := p.listSnapshots(ctx, func(ctx context.Context, o *godo.ListOptions) ([]godo.Snapshot, *godo.Response, error) {
		return p.do.Storage.ListSnapshots(ctx, d.ID, o)
	})
	if err != nil {
		return block.Snapshot{}, err
	}
	name := snapshotName(tags)
	for _, v := range there {
		if v.Name == name {
			return snapshot(v), nil
		}
	}
	set := block.Tags{}
	for k, v := range tags {
		if k != block.TagUUID { // the name says it
			set[k] = v
		}
	}
	var v *godo.Snapshot
	err = undisturbed(ctx, func() (err error) {
		v, _, err = ask(ctx, p, "snapshots.create", func(ctx context.Context) (*godo.Snapshot, *godo.Response, error) {
			return p.do.Storage.CreateSnapshot(ctx, &godo.SnapshotCreateRequest{VolumeID: d.ID, Name: name, Tags: append(all(set), p.c.Tags...)})
		})
		return err
	})
	if err != nil {
		return block.Snapshot{}, err
	}
	return snapshot(*v), nil
}

// DeleteSnapshot deletes a snapshot. Disks that were made of it have their own data.
func (p *provider) DeleteSnapshot(ctx context.Context, s block.Snapshot) error {
	for _, id := range append(strings.Fields(s.Facts[factCopies]), s.ID) {
		err := tell(ctx, p, "snapshots.delete", func(ctx context.Context) (*godo.Response, error) { return p.do.Snapshots.Delete(ctx, id) })
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	return nil
}
