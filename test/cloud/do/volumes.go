package do

import (
	"cmp"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// What a volume can be, in GiB.
const (
	gib     = 1 << 30
	minSize = 1
	maxSize = 16 * 1024
)

var (
	volumeName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
	tagName    = regexp.MustCompile(`^[A-Za-z0-9_:-]{1,255}$`)
)

type volume struct {
	id, name, description, region string
	size                          int64 // GiB
	created                       time.Time
	fsType, fsLabel               string
	tags                          []string
	// droplet is the one that it is attached to, or 0.
	droplet int
	// pending is the action under way.
	pending *action
}

func (v *volume) json() volumeJSON {
	out := volumeJSON{
		ID: v.id, Region: region(v.region), DropletIDs: []int{}, Name: v.name, Description: v.description,
		SizeGigabytes: v.size, CreatedAt: stamp(v.created), FilesystemType: v.fsType, FilesystemLabel: v.fsLabel,
		Tags: append([]string{}, v.tags...),
	}
	if v.droplet != 0 {
		out.DropletIDs = append(out.DropletIDs, v.droplet)
	}
	return out
}

// changed has lists show the volume as it is, in a while.
func (c *Cloud) changed(v *volume) { c.volumeList.Set(v.id, v.json(), c.clock.Now()) }

func (c *Cloud) createVolume(r *http.Request) (int, any, error) {
	var req struct {
		Region          string   `json:"region"`
		Name            string   `json:"name"`
		Description     string   `json:"description"`
		SizeGigabytes   int64    `json:"size_gigabytes"`
		SnapshotID      string   `json:"snapshot_id"`
		FilesystemType  string   `json:"filesystem_type"`
		FilesystemLabel string   `json:"filesystem_label"`
		Tags            []string `json:"tags"`
	}
	if err := read(r, &req); err != nil {
		return 0, nil, err
	}
	var from *snapshot
	if req.SnapshotID != "" {
		if from = c.snapshots[req.SnapshotID]; from == nil {
			return 0, nil, notFound("snapshot not found")
		}
		req.Region = cmp.Or(req.Region, from.region)
		req.SizeGigabytes = cmp.Or(req.SizeGigabytes, from.minSize)
	}
	maxLabel := map[string]int{"": 0, "ext4": 16, "xfs": 12}
	label, knownFS := maxLabel[req.FilesystemType]
	switch {
	case !volumeName.MatchString(req.Name):
		return 0, nil, unprocessable("invalid name: names begin with a letter and have up to 64 lower-case letters, digits and dashes")
	case !c.hasRegion(req.Region):
		return 0, nil, unprocessable("invalid region")
	case req.SizeGigabytes < minSize || req.SizeGigabytes > maxSize:
		return 0, nil, unprocessable("size must be between %d GB and %d GB", minSize, maxSize)
	case !knownFS:
		return 0, nil, unprocessable("invalid filesystem type")
	case len(req.FilesystemLabel) > label:
		return 0, nil, unprocessable("invalid filesystem label")
	case from != nil && from.region != req.Region:
		return 0, nil, unprocessable("snapshot is not available in region %s", req.Region)
	case from != nil && req.SizeGigabytes < from.minSize:
		return 0, nil, unprocessable("size is smaller than that of the snapshot")
	case c.named(req.Region, req.Name) != nil:
		return 0, nil, conflict("failed to create volume: already exists")
	case c.cfg.VolumeLimit > 0 && len(c.volumes) >= c.cfg.VolumeLimit:
		return 0, nil, &problem{http.StatusForbidden, "forbidden", "failed to create volume: volume/snapshot capacity limit exceeded"}
	}
	if err := c.makeTags(req.Tags); err != nil {
		return 0, nil, err
	}
	v := &volume{
		id: newUUID(), name: req.Name, description: req.Description, region: req.Region, size: req.SizeGigabytes,
		created: c.clock.Now(), fsType: req.FilesystemType, fsLabel: req.FilesystemLabel, tags: union(nil, c.canonical(req.Tags)),
	}
	var err error
	if from != nil {
		err = c.files.Copy(v.id, from.id, v.size*gib)
	} else if err = c.files.Create(v.id, v.size*gib); err == nil && v.fsType != "" {
		err = format(r.Context(), c.files.Path(v.id), v.fsType, v.fsLabel)
	}
	if err != nil {
		return 0, nil, errors.Join(err, c.files.Remove(v.id))
	}
	c.volumes[v.id] = v
	c.changed(v)
	return http.StatusCreated, map[string]any{"volume": v.json()}, nil
}

// named finds a volume by its name, as it is now.
func (c *Cloud) named(region, name string) *volume {
	for _, v := range c.volumes {
		if v.region == region && v.name == name {
			return v
		}
	}
	return nil
}

func (c *Cloud) volume(id string) (*volume, error) {
	v := c.volumes[id]
	if v == nil {
		return nil, notFound("volume not found")
	}
	return v, nil
}

func (c *Cloud) getVolume(r *http.Request) (int, any, error) {
	v, err := c.volume(r.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"volume": v.json()}, nil
}

func (c *Cloud) listVolumes(r *http.Request) (int, any, error) {
	name, slug := r.FormValue("name"), r.FormValue("region")
	all := slices.DeleteFunc(c.volumeList.At(c.clock.Now().Add(-c.cfg.ListLag)), func(v volumeJSON) bool {
		return name != "" && v.Name != name || slug != "" && v.Region.Slug != slug
	})
	return paged(r, "volumes", all)
}

func (c *Cloud) deleteVolume(r *http.Request) (int, any, error) {
	v, err := c.volume(r.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	return c.remove(v)
}

func (c *Cloud) deleteVolumeByName(r *http.Request) (int, any, error) {
	v := c.named(r.FormValue("region"), r.FormValue("name"))
	if v == nil {
		return 0, nil, notFound("volume not found")
	}
	return c.remove(v)
}

func (c *Cloud) remove(v *volume) (int, any, error) {
	switch {
	case v.droplet != 0:
		return 0, nil, conflict("A volume that's attached to a Droplet cannot be deleted. Please detach it first before deleting.")
	case v.pending != nil:
		return 0, nil, conflict("volume has a pending event")
	}
	if err := c.files.Remove(v.id); err != nil {
		return 0, nil, err
	}
	delete(c.volumes, v.id)
	c.volumeList.Delete(v.id, c.clock.Now())
	return http.StatusNoContent, nil, nil
}

// union is list and what of more is not in it, in order.
func union(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
