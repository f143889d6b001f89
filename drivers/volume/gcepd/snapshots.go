package gcepd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// factKey is the key with which a snapshot is encrypted: a disk that is made of it has it too.
const factKey = "kms_key"

// Snapshots returns the snapshots of a namespace. They are of the project and not of a zone: a disk
// of any zone can be made of one.
func (p *provider) Snapshots(ctx context.Context, q block.Query) (all []block.Snapshot, err error) {
	filter := labelIs(block.TagNamespace, encodeValue(q.Namespace))
	if len(q.Names) > 0 && len(q.Names) <= most && len(q.IDs) == 0 {
		filter += " AND (" + join(q.Names, nameIs) + ")"
	}
	if len(q.IDs) > 0 && len(q.IDs) <= most && len(q.Names) == 0 {
		filter = join(q.IDs, func(id string) string { return fmt.Sprintf(`(name = "%s")`, id) })
	}
	r := p.api.Snapshots.List(p.c.Project).Filter(filter).MaxResults(pageSize).Context(ctx)
	for {
		page, err := ask(ctx, p, "snapshots.list", "the project", r)
		if err != nil {
			return nil, err
		}
		for _, s := range page.Items {
			if sn := snapshot(s); sn.Tags[block.TagNamespace] == q.Namespace && q.Takes(sn.ID, sn.Tags[block.TagName]) {
				all = append(all, sn)
			}
		}
		if page.NextPageToken == "" {
			return all, nil
		}
		r.PageToken(page.NextPageToken)
	}
}

func snapshot(s *compute.Snapshot) block.Snapshot {
	out := block.Snapshot{ID: s.Name, Tags: decode(s.Labels), Size: s.DiskSizeGb * gib, Created: stamp(s.CreationTimestamp), State: block.Creating}
	switch s.Status {
	case "READY":
		out.State = block.Ready
	case "DELETING":
		out.State = block.Deleting
	case "FAILED":
		out.State, out.Reason = block.Failed, "Google says no more than that"
	}
	if s.SnapshotEncryptionKey != nil && s.SnapshotEncryptionKey.KmsKeyName != "" {
		key, _, _ := strings.Cut(s.SnapshotEncryptionKey.KmsKeyName, "/cryptoKeyVersions/") // whichever is the first one by then
		out.Facts = map[string]string{factKey: key}
	}
	return out
}

// CreateSnapshot begins to make a snapshot.
func (p *provider) CreateSnapshot(ctx context.Context, d block.Disk, tags block.Tags) (block.Snapshot, error) {
	zone, disk := split(d.ID)
	labels, err := p.c.labelsOf(tags)
	if err != nil {
		return block.Snapshot{}, err
	}
	uuid := tags[block.TagUUID]
	in := &compute.Snapshot{Name: nameOf(uuid), Labels: labels, Description: fmt.Sprintf("Remora: of volume %q of namespace %q", tags[block.TagName], tags[block.TagNamespace])}
	if p.c.SnapshotLocation != "" {
		in.StorageLocations = []string{p.c.SnapshotLocation}
	}
	op, err := ask(ctx, p, "disks.createSnapshot", "zone "+zone, p.api.Disks.CreateSnapshot(p.c.Project, zone, disk, in).RequestId(requestID("snapshot", uuid, zone)).Context(ctx))
	if err == nil && op.Status != done {
		return block.Snapshot{ID: in.Name, Tags: tags, Size: d.Size, State: block.Creating, Created: stamp(op.InsertTime)}, nil
	}
	if err != nil && reasonOf(err) != exists {
		return block.Snapshot{}, passing(err)
	}
	s, gerr := ask(ctx, p, "snapshots.get", "the project", p.api.Snapshots.Get(p.c.Project, in.Name).Context(ctx))
	if gerr == nil {
		return snapshot(s), nil
	}
	if op != nil && errors.Is(gerr, errdefs.ErrNotFound) {
		if why := p.failure(op); why != nil {
			return block.Snapshot{}, why
		}
	}
	return block.Snapshot{}, gerr
}

// DeleteSnapshot begins to delete a snapshot.
func (p *provider) DeleteSnapshot(ctx context.Context, s block.Snapshot) error {
	_, err := ask(ctx, p, "snapshots.delete", "the project", p.api.Snapshots.Delete(p.c.Project, s.ID).Context(ctx))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if reasonOf(err) == notReady {
		now, gerr := ask(ctx, p, "snapshots.get", "the project", p.api.Snapshots.Get(p.c.Project, s.ID).Context(ctx))
		if errors.Is(gerr, errdefs.ErrNotFound) || gerr == nil && now.Status == "DELETING" {
			return nil
		}
	}
	return passing(err)
}

// Find returns disks that are not ours. Those that boot a machine were made of an image.
func (p *provider) Find(ctx context.Context, ref string) ([]block.Foreign, error) {
	var list []*compute.Disk
	if zone, name := split(ref); zoneForm.MatchString(zone) && name != "" {
		d, err := p.one(ctx, ref)
		switch {
		case err == nil:
			list = []*compute.Disk{d}
		case !errors.Is(err, errdefs.ErrNotFound):
			return nil, err
		}
	} else {
		filter := ""
		switch {
		case ref != "" && !resourceForm.MatchString(ref): // no disk of Google has such a name
			return nil, nil
		case ref != "":
			filter = fmt.Sprintf(`name = "%s"`, ref)
		}
		all, cut, err := p.aggregated(ctx, filter)
		if err != nil {
			return nil, err
		}
		if list = all; len(cut) > 0 && len(all) == 0 {
			return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "some zones of %s cannot be looked at, as Google says", p.t.Scope), faulty)
		}
	}
	var found []block.Foreign
	for _, d := range list {
		f := block.Foreign{Disk: p.disk(d), Name: d.Name}
		if f.Tags[block.TagUUID] != "" || f.State == block.Deleting || ref == "" && (d.SourceImage != "" || len(d.Licenses) > 0) {
			continue
		}
		f.Tags = block.Tags{}
		maps.Copy(f.Tags, d.Labels)
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b block.Foreign) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// Adopt writes our tags on a disk. Labels that it has stay.
func (p *provider) Adopt(ctx context.Context, f block.Foreign, tags block.Tags) error {
	if f.Facts[factAccess] != "" {
		return errAccess(f.Disk)
	}
	return p.SetTags(ctx, f.Disk, tags)
}
