package dobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// perPage is how many things a page has, at most.
const perPage = 200

// pages follows the pages of a list. They are cut anew for each request: what is deleted meanwhile
// moves another thing to a page that was read already. So the numbers have to be right.
func pages[T any](ctx context.Context, p *provider, call string, id func(T) string, get func(context.Context, godo.ListOptions) ([]T, *godo.Response, error)) ([]T, error) {
	const tries = 4
	for range tries {
		var all []T
		ids, steady, total := map[string]bool{}, true, 0
		for page := 1; ; page++ {
			list, resp, err := ask(ctx, p, call, func(ctx context.Context) ([]T, *godo.Response, error) {
				return get(ctx, godo.ListOptions{Page: page, PerPage: perPage})
			})
			if err != nil {
				return nil, err
			}
			for _, v := range list {
				if !ids[id(v)] {
					ids[id(v)] = true
					all = append(all, v)
				}
			}
			if resp.Meta != nil {
				steady = steady && (page == 1 || resp.Meta.Total == total)
				total = resp.Meta.Total
			}
			if resp.Links == nil || resp.Links.IsLastPage() || len(list) == 0 {
				if page == 1 || steady && len(all) >= total {
					p.pages.Store(int64(page))
					return all, nil
				}
				break
			}
		}
	}
	return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: the list changed %d times while it was read", call, tries),
		"others make and remove volumes in this account all the time; ask again")
}

// volumes lists volumes of the account, in all regions where region is empty.
func (p *provider) volumes(ctx context.Context, name, region string) ([]godo.Volume, error) {
	list, err := pages(ctx, p, "volumes.list", func(v godo.Volume) string { return v.ID }, func(ctx context.Context, o godo.ListOptions) ([]godo.Volume, *godo.Response, error) {
		return p.do.Storage.ListVolumes(ctx, &godo.ListVolumeParams{Name: name, Region: region, ListOptions: &o})
	})
	for _, v := range list {
		p.seen(v.Tags...)
	}
	return list, err
}

// get returns a volume as DigitalOcean knows it now.
func (p *provider) get(ctx context.Context, id string) (*godo.Volume, error) {
	v, _, err := ask(ctx, p, "volumes.get", func(ctx context.Context) (*godo.Volume, *godo.Response, error) {
		return p.do.Storage.GetVolume(ctx, id)
	})
	if err == nil {
		p.seen(v.Tags...)
	}
	return v, err
}

// List returns the disks of a namespace in all regions. There is no list by tag; a disk by its ID
// is asked for by it where that is less than all pages.
func (p *provider) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	var list []godo.Volume
	if len(q.IDs) > 0 && len(q.Names) == 0 && int64(len(q.IDs)) <= max(1, p.pages.Load()) {
		for _, id := range q.IDs {
			v, err := p.get(ctx, id)
			if errors.Is(err, errdefs.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			list = append(list, *v)
		}
	} else {
		var err error
		if list, err = p.volumes(ctx, "", ""); err != nil {
			return nil, err
		}
	}
	disks := make([]block.Disk, 0, len(list))
	for _, v := range list {
		if d := disk(v); ours(d, q.Namespace) && q.Takes(d.ID, d.Tags[block.TagName]) {
			disks = append(disks, d)
		}
	}
	return disks, p.moving(ctx, q, disks)
}

func ours(d block.Disk, namespace string) bool {
	return d.Tags[block.TagUUID] != "" && d.Tags[block.TagNamespace] == namespace
}

// factName is the name of a disk at DigitalOcean, which is in that of its device.
const factName = "name"

// namePrefix begins the name of a disk that we made; our UUID is the rest.
const namePrefix = "remora-"

var nameForm = regexp.MustCompile(`^remora-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)

// disk makes of what DigitalOcean says of a volume what the core wants to know.
func disk(v godo.Volume) block.Disk {
	d := block.Disk{
		ID: v.ID, Tags: read(v.Tags), Size: v.SizeGigaBytes * gib, State: block.Ready, Created: v.CreatedAt, Encrypted: true,
		Facts: map[string]string{factName: v.Name},
	}
	if v.Region != nil {
		d.Zone = v.Region.Slug
	}
	if m := nameForm.FindStringSubmatch(v.Name); m != nil && d.Tags[block.TagNamespace] != "" && d.Tags[block.TagUUID] == "" {
		d.Tags[block.TagUUID] = m[1]
	}
	for _, id := range v.DropletIDs {
		d.Holders = append(d.Holders, block.Holder{Host: strconv.Itoa(id), State: block.Attached})
	}
	return d
}

// Create makes a disk, whose name keeps it from being made twice.
func (p *provider) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	region, err := p.regionFor(ctx, s.Zone)
	if err != nil {
		return block.Disk{}, err
	}
	tags := block.Tags{}
	for k, v := range s.Tags {
		if k != block.TagUUID { // the name says it
			tags[k] = v
		}
	}
	req := &godo.VolumeCreateRequest{
		Region: region, Name: namePrefix + s.UUID, SizeGigaBytes: (s.Size + gib - 1) / gib, Tags: append(all(tags), p.c.Tags...),
		Description: fmt.Sprintf("Remora: volume %s of %s", s.Tags[block.TagName], s.Tags[block.TagNamespace]),
	}
	if s.Snapshot != nil {
		if err := p.fromSnapshot(ctx, req, s); err != nil {
			return block.Disk{}, err
		}
	}
	v, _, err := ask(ctx, p, "volumes.create", func(ctx context.Context) (*godo.Volume, *godo.Response, error) {
		return p.do.Storage.CreateVolume(ctx, req)
	})
	switch {
	case err == nil:
	case alreadyThere(err):
		return p.named(ctx, req.Name, region, s)
	case statusOf(err) == 422 && strings.Contains(textOf(err), "region"):
		return block.Disk{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "region %q: %w", region, err), "doctl compute region list shows the regions; not all have volumes")
	default:
		return block.Disk{}, err
	}
	d := disk(*v)
	if !ours(d, tags[block.TagNamespace]) { // a disk without tags is nobody's, and an answer without them says nothing
		d.Tags = s.Tags
		return d, p.SetTags(ctx, d, tags)
	}
	p.seen(v.Tags...)
	p.wrote(v.ID, v.Tags)
	return d, nil
}

// named returns the disk that was made with the same name before.
func (p *provider) named(ctx context.Context, name, region string, s block.Spec) (block.Disk, error) {
	list, err := p.volumes(ctx, name, region)
	if err != nil {
		return block.Disk{}, err
	}
	for _, v := range list {
		if d := disk(v); v.Name == name {
			if ours(d, s.Tags[block.TagNamespace]) && d.Tags[block.TagUUID] == s.UUID {
				return d, nil
			}
			return block.Disk{}, errdefs.Errorf(errdefs.ErrExists, "disk %s in %s is called %s, and has not our tags", v.ID, region, name)
		}
	}
	return block.Disk{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "there is a disk %s in %s, which is not listed yet", name, region), "ask again in a minute")
}

// fromSnapshot sees that a disk can be made of a snapshot. Where nobody has said how large it is to
// be, it has room for it.
func (p *provider) fromSnapshot(ctx context.Context, req *godo.VolumeCreateRequest, s block.Spec) error {
	req.SnapshotID = s.Snapshot.ID
	if s.Snapshot.Size > 0 { // it is one of ours, of which all is known
		return nil
	}
	sn, _, err := ask(ctx, p, "snapshots.get", func(ctx context.Context) (*godo.Snapshot, *godo.Response, error) {
		return p.do.Snapshots.Get(ctx, s.Snapshot.ID)
	})
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return errdefs.Errorf(errdefs.ErrInvalid, `option "snapshot": the account has no snapshot %s`, s.Snapshot.ID)
	case err != nil:
		return err
	case sn.ResourceType != "" && sn.ResourceType != "volume":
		return errdefs.Errorf(errdefs.ErrInvalid, `option "snapshot": %s is one of a %s, not of a volume`, s.Snapshot.ID, sn.ResourceType)
	case len(sn.Regions) > 0 && !slices.Contains(sn.Regions, req.Region):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, `option "snapshot": %s is in region %s, and the volume would be in %s`, s.Snapshot.ID, strings.Join(sn.Regions, ", "), req.Region),
			"DigitalOcean does not copy snapshots of volumes to other regions; back the data up, and restore it there: remora backup create")
	}
	if least := int64(sn.MinDiskSize); req.SizeGigaBytes < least {
		if s.Tags["o.size"] != "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "size %s: the snapshot needs %s", catalog.Bytes(req.SizeGigaBytes*gib), catalog.Bytes(least*gib))
		}
		req.SizeGigaBytes = least
	}
	return nil
}

// regionFor returns where a disk is made.
func (p *provider) regionFor(ctx context.Context, zone string) (string, error) {
	if region := cmp.Or(zone, p.c.Region); region != "" {
		return region, nil
	}
	self, err := p.Self(ctx)
	if err != nil {
		return "", errdefs.Hint(fmt.Errorf("the region of the disk: %w", err), "or say where it is to be: -o zone=, or region in the pool")
	}
	return self.Zone, nil
}

// Delete deletes a disk.
func (p *provider) Delete(ctx context.Context, d block.Disk) error {
	p.forget(d.ID)
	err := tell(ctx, p, "volumes.delete", func(ctx context.Context) (*godo.Response, error) { return p.do.Storage.DeleteVolume(ctx, d.ID) })
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// Online is true: a disk grows while a droplet has it.
func (p *provider) Online() bool { return true }

// Resize begins to make a disk larger.
func (p *provider) Resize(ctx context.Context, d block.Disk, size int64) error {
	want := (size + gib - 1) / gib
	err := undisturbed(ctx, func() error {
		_, _, err := ask(ctx, p, "volumes.resize", func(ctx context.Context) (*godo.Action, *godo.Response, error) {
			return p.do.StorageActions.Resize(ctx, d.ID, int(want), d.Zone)
		})
		return err
	})
	if statusOf(err) != 422 {
		return err
	}
	v, gerr := p.get(ctx, d.ID)
	switch {
	case gerr != nil:
		return gerr
	case v.SizeGigaBytes == want: // by the request before
		return nil
	case v.SizeGigaBytes > want:
		return errdefs.Errorf(errdefs.ErrInvalid, "disk %s has %s, and DigitalOcean makes none smaller", d.ID, catalog.Bytes(v.SizeGigaBytes*gib))
	}
	return err
}
