package do

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// makeTags makes those of tags that there are not.
func (c *Cloud) makeTags(tags []string) error {
	for _, tag := range tags {
		if !tagName.MatchString(tag) {
			return unprocessable("tag names have up to 255 letters, digits, colons, dashes and underscores")
		}
	}
	for _, tag := range tags {
		if c.tags[strings.ToLower(tag)] == "" {
			c.tags[strings.ToLower(tag)] = tag
		}
	}
	return nil
}

// canonical returns tags as they were first spelt: their case is kept, but makes no difference.
func (c *Cloud) canonical(tags []string) []string {
	out := make([]string, len(tags))
	for i, tag := range tags {
		out[i] = c.tags[strings.ToLower(tag)]
	}
	return out
}

func (c *Cloud) tag(r *http.Request) (string, error) {
	tag := c.tags[strings.ToLower(r.PathValue("name"))]
	if tag == "" {
		return "", notFound("The resource you were accessing could not be found.")
	}
	return tag, nil
}

func (c *Cloud) tagJSON(tag string) map[string]any {
	count := func(n int) map[string]any { return map[string]any{"count": n} }
	volumes, snapshots := 0, 0
	for _, v := range c.volumes {
		if slices.Contains(v.tags, tag) {
			volumes++
		}
	}
	for _, s := range c.snapshots {
		if slices.Contains(s.tags, tag) {
			snapshots++
		}
	}
	return map[string]any{"name": tag, "resources": map[string]any{
		"count": volumes + snapshots, "volumes": count(volumes), "volume_snapshots": count(snapshots),
		"droplets": count(0), "images": count(0), "databases": count(0),
	}}
}

func (c *Cloud) createTag(r *http.Request) (int, any, error) {
	var req struct {
		Name string `json:"name"`
	}
	if err := read(r, &req); err != nil {
		return 0, nil, err
	}
	if err := c.makeTags([]string{req.Name}); err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, map[string]any{"tag": c.tagJSON(c.canonical([]string{req.Name})[0])}, nil
}

func (c *Cloud) listTags(r *http.Request) (int, any, error) {
	all := []map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(c.tags)) {
		all = append(all, c.tagJSON(c.tags[key]))
	}
	return paged(r, "tags", all)
}

func (c *Cloud) getTag(r *http.Request) (int, any, error) {
	tag, err := c.tag(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"tag": c.tagJSON(tag)}, nil
}

func (c *Cloud) deleteTag(r *http.Request) (int, any, error) {
	tag, err := c.tag(r)
	if err != nil {
		return 0, nil, err
	}
	delete(c.tags, strings.ToLower(tag))
	for _, v := range c.volumes {
		c.retagVolume(v, without(v.tags, tag))
	}
	for _, s := range c.snapshots {
		c.retagSnapshot(s, without(s.tags, tag))
	}
	return http.StatusNoContent, nil, nil
}

func (c *Cloud) tagResources(r *http.Request) (int, any, error) {
	return c.retag(r, func(tags []string, tag string) []string { return union(slices.Clone(tags), []string{tag}) })
}

func (c *Cloud) untagResources(r *http.Request) (int, any, error) { return c.retag(r, without) }

func (c *Cloud) retag(r *http.Request, change func(tags []string, tag string) []string) (int, any, error) {
	var req struct {
		Resources []struct {
			ID   string `json:"resource_id"`
			Type string `json:"resource_type"`
		} `json:"resources"`
	}
	if err := read(r, &req); err != nil {
		return 0, nil, err
	}
	tag, err := c.tag(r)
	if err != nil {
		return 0, nil, err
	}
	for _, res := range req.Resources {
		v, s := c.volumes[res.ID], c.snapshots[res.ID]
		switch {
		case res.Type == "volume" && v != nil, res.Type == "volume_snapshot" && s != nil:
		case res.Type == "volume", res.Type == "volume_snapshot":
			return 0, nil, notFound("resource not found")
		default:
			return 0, nil, unprocessable("invalid resource type")
		}
	}
	for _, res := range req.Resources {
		if v := c.volumes[res.ID]; v != nil {
			c.retagVolume(v, change(v.tags, tag))
		}
		if s := c.snapshots[res.ID]; s != nil {
			c.retagSnapshot(s, change(s.tags, tag))
		}
	}
	return http.StatusNoContent, nil, nil
}

func (c *Cloud) retagVolume(v *volume, tags []string) {
	if !slices.Equal(v.tags, tags) {
		v.tags = tags
		c.changed(v)
	}
}

func (c *Cloud) retagSnapshot(s *snapshot, tags []string) {
	if !slices.Equal(s.tags, tags) {
		s.tags = tags
		c.snapshotList.Set(s.id, s.json(), c.clock.Now())
	}
}

// without is list but for one.
func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(t string) bool { return t == s })
}
