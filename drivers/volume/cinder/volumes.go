package cinder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// prefix is before our tags among the keys of metadata.
const prefix = "remora:"

// limit is how many are asked for at once. Where Cinder is set to give less, it does.
const limit = 1000

// List returns the disks of the namespace. Cinder filters by metadata; what it compares without
// looking at the case, as some databases do, is compared again here.
func (p *provider) List(ctx context.Context, q block.Query) (all []block.Disk, err error) {
	var found []volumes.Volume
	n := len(q.Names) + len(q.IDs)
	switch {
	case n > 0 && int64(n) <= max(1, p.pages.Load()):
		found, err = p.some(ctx, q)
	default:
		found, err = p.where(ctx, map[string]string{block.TagNamespace: q.Namespace}, "")
	}
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, v := range found {
		d := p.disk(v)
		if seen[d.ID] || d.Tags[block.TagNamespace] != q.Namespace || !q.Takes(d.ID, d.Tags[block.TagName]) {
			continue
		}
		seen[d.ID] = true
		if err := p.look(ctx, v, &d, q.All()); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// some asks for a few disks, each by itself.
func (p *provider) some(ctx context.Context, q block.Query) (all []volumes.Volume, err error) {
	for _, name := range q.Names {
		found, err := p.where(ctx, map[string]string{block.TagNamespace: q.Namespace, block.TagName: name}, "")
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	for _, id := range q.IDs {
		v, err := p.get(ctx, id)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// where returns the volumes with tags, or with a name; all of the project where both are empty.
func (p *provider) where(ctx context.Context, tags map[string]string, name string) (all []volumes.Volume, err error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if len(tags) > 0 {
		query.Set("metadata", literal(tags))
	}
	if name != "" {
		query.Set("name", name)
	}
	var pages int64
	for {
		var page struct {
			Volumes []volumes.Volume   `json:"volumes"`
			Links   []gophercloud.Link `json:"volumes_links"`
		}
		err := tell(ctx, p, "ListVolumes", func(ctx context.Context, s *session) error {
			_, err := s.volumes.Get(ctx, s.volumes.ServiceURL("volumes", "detail")+"?"+query.Encode(), &page, nil) //nolint:bodyclose // it is read
			return err
		})
		if err != nil {
			return nil, err
		}
		all, pages = append(all, page.Volumes...), pages+1
		if len(page.Links) == 0 || len(page.Volumes) == 0 {
			break
		}
		// The link is not followed: behind a proxy it may lead elsewhere.
		query.Set("marker", page.Volumes[len(page.Volumes)-1].ID)
	}
	if len(tags) == 1 {
		p.pages.Store(pages)
	}
	return all, nil
}

// literal writes tags as Cinder reads a filter of metadata: as a dictionary of Python.
func literal(tags map[string]string) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`)
	parts := make([]string, 0, len(tags))
	for k, v := range tags {
		parts = append(parts, fmt.Sprintf("'%s': '%s'", quote.Replace(prefix+k), quote.Replace(v)))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (p *provider) get(ctx context.Context, id string) (volumes.Volume, error) {
	return ask(ctx, p, "GetVolume", func(ctx context.Context, s *session) (volumes.Volume, error) {
		v, err := volumes.Get(ctx, s.volumes, id).Extract()
		if err != nil {
			return volumes.Volume{}, err
		}
		return *v, nil
	})
}

// nameOf is what Cinder calls a disk. Cinder keeps no token that would make a request idempotent,
// and lets any number of volumes have one name: the core finds those that were made twice.
func nameOf(uuid string) string { return "remora-" + uuid }

// Create begins to make a disk, unless there is one of this UUID already.
func (p *provider) Create(ctx context.Context, s block.Spec) (none block.Disk, err error) {
	there, err := p.where(ctx, nil, nameOf(s.UUID))
	if err != nil {
		return none, err
	}
	for _, v := range there {
		if d := p.disk(v); d.Tags[block.TagUUID] == s.UUID && d.State != block.Deleting {
			return d, p.look(ctx, v, &d, false)
		}
	}
	opts := volumes.CreateOpts{
		Size: int(s.Size / gib), Name: nameOf(s.UUID), Description: block.Short("volume " + s.Tags[block.TagName] + " of Remora"),
		AvailabilityZone: s.Zone, VolumeType: s.Type, Metadata: metadata(s.Tags),
	}
	switch {
	case s.Snapshot != nil:
		opts.SnapshotID = s.Snapshot.ID
	case s.Source != nil:
		opts.SourceVolID = s.Source.ID
	}
	v, err := ask(ctx, p, "CreateVolume", func(ctx context.Context, c *session) (*volumes.Volume, error) {
		return volumes.Create(ctx, c.volumes, opts, nil).Extract()
	})
	if err != nil {
		return none, p.notCreated(ctx, s, err)
	}
	d := p.disk(*v)
	var why string
	switch {
	case s.Encrypted != nil && *s.Encrypted && !v.Encrypted:
		why = fmt.Sprintf(`option "encrypted": volumes of type %q are not encrypted`, v.VolumeType)
	case v.Multiattach:
		why = fmt.Sprintf(`option "type": Cinder lets several hosts write to volumes of type %q at once, and a file system does not bear that`, v.VolumeType)
	default:
		return d, nil
	}
	if err := p.Delete(ctx, d); err != nil {
		return none, errors.Join(errdefs.Errorf(errdefs.ErrInvalid, "%s", why), err)
	}
	return none, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s", why), "take another type: openstack volume type list")
}

// notCreated says what there is in place of a type or zone that Cinder does not have.
func (p *provider) notCreated(ctx context.Context, s block.Spec, err error) error {
	var path, what string
	switch {
	case statusOf(err) == http.StatusNotFound && says(err, "volume type"):
		path, what = "types", fmt.Sprintf(`option "type": Cinder has no %q in %s`, s.Type, p.t.Scope)
	case statusOf(err) == http.StatusBadRequest && says(err, "availability zone"):
		path, what = "os-availability-zone", fmt.Sprintf(`option "zone": Cinder has no %q in %s`, s.Zone, p.t.Scope)
	case statusOf(err) == http.StatusNotFound: // the snapshot or the source
		return errdefs.As(errdefs.ErrInvalid, err)
	case s.Source != nil && says(err, "source volume status"): // such as "detaching"
		return errdefs.As(errdefs.ErrUnavailable, err)
	default:
		return err
	}
	var got struct {
		Types []struct{ Name string } `json:"volume_types"`
		Zones []struct {
			Name string `json:"zoneName"`
		} `json:"availabilityZoneInfo"`
	}
	if lerr := tell(ctx, p, "ListTypes", func(ctx context.Context, s *session) error {
		_, err := s.volumes.Get(ctx, s.volumes.ServiceURL(path), &got, nil) //nolint:bodyclose // it is read
		return err
	}); lerr != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s", what)
	}
	var names []string
	for _, t := range got.Types {
		names = append(names, t.Name)
	}
	for _, z := range got.Zones {
		names = append(names, z.Name)
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "%s (there are: %s)", what, strings.Join(names, ", "))
}

// Delete begins to delete a disk.
func (p *provider) Delete(ctx context.Context, d block.Disk) error {
	err := tell(ctx, p, "DeleteVolume", func(ctx context.Context, s *session) error {
		return volumes.Delete(ctx, s.volumes, d.ID, nil).ExtractErr()
	})
	switch statusOf(err) {
	case http.StatusNotFound:
		return nil
	case http.StatusBadRequest:
	default:
		return err
	}
	// It is attached, has snapshots, or is being deleted.
	v, gerr := p.get(ctx, d.ID)
	switch {
	case errors.Is(gerr, errdefs.ErrNotFound), gerr == nil && v.Status == "deleting":
		return nil
	case gerr != nil:
		return gerr
	case v.Status == "error_deleting":
		return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "Cinder failed to delete it before; its operator has to reset its state")
	}
	err = errdefs.As(errdefs.ErrInUse, err)
	if says(err, "snapshot") {
		return errdefs.Hint(err, "volumes that were made of its snapshots may have to go before them")
	}
	return err
}

// SetTags changes metadata: Cinder merges the keys that it is sent with those that there are, and
// takes away one with each request.
func (p *provider) SetTags(ctx context.Context, d block.Disk, tags block.Tags) error {
	set := map[string]string{}
	for k, v := range tags {
		if v != "" {
			set[prefix+k] = v
			continue
		}
		err := tell(ctx, p, "DeleteMetadata", func(ctx context.Context, s *session) error {
			_, err := s.volumes.Delete(ctx, s.volumes.ServiceURL("volumes", d.ID, "metadata", prefix+k), &gophercloud.RequestOpts{OkCodes: []int{200, 204}}) //nolint:bodyclose // there is none
			return err
		})
		if err != nil && (statusOf(err) != http.StatusNotFound || !says(err, "metadata")) {
			return err
		}
	}
	if len(set) == 0 {
		return nil
	}
	return tell(ctx, p, "SetMetadata", func(ctx context.Context, s *session) error {
		var got any
		_, err := s.volumes.Post(ctx, s.volumes.ServiceURL("volumes", d.ID, "metadata"), map[string]any{"metadata": set}, &got, //nolint:bodyclose // it is read
			&gophercloud.RequestOpts{OkCodes: []int{200}})
		return err
	})
}
