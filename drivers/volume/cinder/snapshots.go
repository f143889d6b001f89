package cinder

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Snapshots returns those of the namespace.
func (p *provider) Snapshots(ctx context.Context, q block.Query) (all []block.Snapshot, err error) {
	if len(q.IDs) == 1 && len(q.Names) == 0 {
		s, err := ask(ctx, p, "GetSnapshot", func(ctx context.Context, c *session) (*snapshots.Snapshot, error) {
			return snapshots.Get(ctx, c.volumes, q.IDs[0]).Extract()
		})
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if v := snapshot(*s); v.Tags[block.TagNamespace] == q.Namespace {
			all = append(all, v)
		}
		return all, nil
	}
	tags := map[string]string{block.TagNamespace: q.Namespace}
	if len(q.Names) == 1 && len(q.IDs) == 0 {
		tags[block.TagName] = q.Names[0]
	}
	found, err := p.snapshotsWhere(ctx, url.Values{"metadata": {literal(tags)}})
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		v := snapshot(s)
		if v.Tags[block.TagNamespace] == q.Namespace && q.Takes(v.ID, v.Tags[block.TagName]) {
			all = append(all, v)
		}
	}
	return all, nil
}

func (p *provider) snapshotsWhere(ctx context.Context, query url.Values) (all []snapshots.Snapshot, err error) {
	query.Set("limit", strconv.Itoa(limit))
	for {
		var page struct {
			Snapshots []snapshots.Snapshot `json:"snapshots"`
			Links     []gophercloud.Link   `json:"snapshots_links"`
		}
		err := tell(ctx, p, "ListSnapshots", func(ctx context.Context, s *session) error {
			_, err := s.volumes.Get(ctx, s.volumes.ServiceURL("snapshots", "detail")+"?"+query.Encode(), &page, nil) //nolint:bodyclose // it is read
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, page.Snapshots...)
		if len(page.Links) == 0 || len(page.Snapshots) == 0 {
			return all, nil
		}
		query.Set("marker", page.Snapshots[len(page.Snapshots)-1].ID)
	}
}

func snapshot(s snapshots.Snapshot) block.Snapshot {
	v := block.Snapshot{ID: s.ID, Tags: tags(s.Metadata), Size: int64(s.Size) * gib, State: block.Ready, Created: s.CreatedAt}
	switch s.Status {
	case "creating":
		v.State = block.Creating
	case "deleting":
		v.State = block.Deleting
	case "error", "error_deleting":
		v.State, v.Reason = block.Failed, "its status is "+s.Status
	}
	return v
}

// CreateSnapshot begins to make a snapshot, also of a disk that is in use: what is mounted here was
// written out before.
func (p *provider) CreateSnapshot(ctx context.Context, d block.Disk, tags block.Tags) (none block.Snapshot, err error) {
	name := nameOf(tags[block.TagUUID])
	there, err := p.snapshotsWhere(ctx, url.Values{"name": {name}})
	if err != nil {
		return none, err
	}
	for _, s := range there {
		if v := snapshot(s); v.Tags[block.TagUUID] == tags[block.TagUUID] {
			return v, nil
		}
	}
	s, err := ask(ctx, p, "CreateSnapshot", func(ctx context.Context, c *session) (*snapshots.Snapshot, error) {
		return snapshots.Create(ctx, c.volumes, snapshots.CreateOpts{VolumeID: d.ID, Name: name, Force: true, Metadata: metadata(tags)}).Extract()
	})
	if err != nil {
		return none, busy(err)
	}
	return snapshot(*s), nil
}

// DeleteSnapshot begins to delete a snapshot.
func (p *provider) DeleteSnapshot(ctx context.Context, s block.Snapshot) error {
	err := tell(ctx, p, "DeleteSnapshot", func(ctx context.Context, c *session) error {
		return snapshots.Delete(ctx, c.volumes, s.ID).ExtractErr()
	})
	switch statusOf(err) {
	case http.StatusNotFound:
		return nil
	case http.StatusBadRequest:
	default:
		return err
	}
	now, gerr := p.Snapshots(ctx, block.Query{Namespace: s.Tags[block.TagNamespace], IDs: []string{s.ID}})
	if gerr != nil {
		return gerr
	}
	if len(now) == 0 || now[0].State == block.Deleting {
		return nil
	}
	return errdefs.As(errdefs.ErrInUse, err)
}

// Rollback brings a disk back to its last snapshot. Cinder knows no way to one before it.
func (p *provider) Rollback(ctx context.Context, d block.Disk, s block.Snapshot) error {
	err := tell(ctx, p, "RevertVolume", func(ctx context.Context, c *session) error {
		_, err := c.volumes.Post(ctx, c.volumes.ServiceURL("volumes", d.ID, "action"), map[string]any{"revert": map[string]any{"snapshot_id": s.ID}}, nil, //nolint:bodyclose // there is none
			&gophercloud.RequestOpts{OkCodes: []int{202}})
		return err
	})
	if statusOf(err) != http.StatusBadRequest {
		return err
	}
	if says(err, "latest") {
		err := errdefs.Errorf(errdefs.ErrUnsupported, "Cinder brings a disk back to its last snapshot alone, and this one has younger ones")
		return errdefs.Hint(err, "remove the snapshots that are younger, or make a clone of this one")
	}
	v, gerr := p.get(ctx, d.ID)
	switch {
	case gerr != nil:
		return gerr
	case v.Status == "reverting":
		return nil
	case v.Status == "in-use":
		return errdefs.As(errdefs.ErrInUse, err)
	}
	return busy(err)
}

// busy makes of a refusal one after which to try again, where it was for a status that passes by
// itself: a volume is "detaching" for a moment after its device is gone.
func busy(err error) error {
	for _, status := range []string{"attaching", "detaching", "reserved", "extending", "reverting", "retyping", "maintenance", "backing-up", "creating"} {
		if statusOf(err) == http.StatusBadRequest && says(err, "status") && says(err, status) {
			return errdefs.As(errdefs.ErrUnavailable, err)
		}
	}
	return err
}

// Online tells that a disk grows while a server has it, from Cinder 3.42 on.
func (p *provider) Online() bool { return true }

// Resize begins to make a disk larger.
func (p *provider) Resize(ctx context.Context, d block.Disk, size int64) error {
	err := tell(ctx, p, "ExtendVolume", func(ctx context.Context, s *session) error {
		return volumes.ExtendSize(ctx, s.volumes, d.ID, volumes.ExtendSizeOpts{NewSize: int((size + gib - 1) / gib)}).ExtractErr()
	})
	if statusOf(err) != http.StatusBadRequest {
		return err
	}
	v, gerr := p.get(ctx, d.ID)
	switch {
	case gerr != nil:
		return gerr
	case int64(v.Size)*gib >= size, v.Status == "extending":
		return nil
	}
	return busy(err)
}

// Find returns volumes of the project that are not ours. Those that boot a server are left out.
func (p *provider) Find(ctx context.Context, ref string) (all []block.Foreign, err error) {
	found, err := p.where(ctx, nil, "")
	if err != nil {
		return nil, err
	}
	for _, v := range found {
		d := p.disk(v)
		if d.Tags[block.TagUUID] != "" || v.Bootable == "true" || ref != "" && ref != v.ID && ref != v.Name {
			continue
		}
		d.Tags = v.Metadata
		all = append(all, block.Foreign{Disk: d, Name: v.Name})
	}
	return all, nil
}

// Adopt writes our tags on one.
func (p *provider) Adopt(ctx context.Context, f block.Foreign, tags block.Tags) error {
	return p.SetTags(ctx, f.Disk, tags)
}
