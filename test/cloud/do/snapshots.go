package do

import (
	"errors"
	"net/http"
	"slices"
	"time"
)

type snapshot struct {
	id, name, volume, region string
	minSize                  int64 // GiB
	used                     int64 // bytes
	created                  time.Time
	tags                     []string
}

func (s *snapshot) json() snapshotJSON {
	return snapshotJSON{
		ID: s.id, Name: s.name, Regions: []string{s.region}, CreatedAt: stamp(s.created), ResourceID: s.volume,
		ResourceType: "volume", MinDiskSize: s.minSize, SizeGigabytes: float64(s.used) / gib,
		Tags: append([]string{}, s.tags...),
	}
}

func (c *Cloud) createSnapshot(r *http.Request) (int, any, error) {
	var req struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := read(r, &req); err != nil {
		return 0, nil, err
	}
	v, err := c.volume(r.PathValue("id"))
	switch {
	case err != nil:
		return 0, nil, err
	case req.Name == "":
		return 0, nil, unprocessable("name is required")
	case v.pending != nil:
		return 0, nil, conflict("volume has a pending event")
	}
	if err := c.makeTags(req.Tags); err != nil {
		return 0, nil, err
	}
	s := &snapshot{
		id: newUUID(), name: req.Name, volume: v.id, region: v.region, minSize: v.size, created: c.clock.Now(),
		tags: union(nil, c.canonical(req.Tags)),
	}
	if err := c.files.Copy(s.id, v.id, v.size*gib); err != nil {
		return 0, nil, errors.Join(err, c.files.Remove(s.id))
	}
	s.used = c.files.Used(s.id)
	c.snapshots[s.id] = s
	c.snapshotList.Set(s.id, s.json(), c.clock.Now())
	return http.StatusCreated, map[string]any{"snapshot": s.json()}, nil
}

// listSnapshots lists those of one volume, or of the account.
func (c *Cloud) listSnapshots(r *http.Request) (int, any, error) {
	of := r.PathValue("id")
	if of != "" {
		if _, err := c.volume(of); err != nil {
			return 0, nil, err
		}
	}
	kind, slug := r.FormValue("resource_type"), r.FormValue("region")
	all := slices.DeleteFunc(c.snapshotList.At(c.clock.Now().Add(-c.cfg.ListLag)), func(s snapshotJSON) bool {
		return of != "" && s.ResourceID != of || kind != "" && s.ResourceType != kind ||
			slug != "" && !slices.Contains(s.Regions, slug)
	})
	return paged(r, "snapshots", all)
}

func (c *Cloud) getSnapshot(r *http.Request) (int, any, error) {
	s := c.snapshots[r.PathValue("id")]
	if s == nil {
		return 0, nil, notFound("snapshot not found")
	}
	return http.StatusOK, map[string]any{"snapshot": s.json()}, nil
}

func (c *Cloud) deleteSnapshot(r *http.Request) (int, any, error) {
	s := c.snapshots[r.PathValue("id")]
	if s == nil {
		return 0, nil, notFound("snapshot not found")
	}
	if err := c.files.Remove(s.id); err != nil {
		return 0, nil, err
	}
	delete(c.snapshots, s.id)
	c.snapshotList.Delete(s.id, c.clock.Now())
	return http.StatusNoContent, nil, nil
}
