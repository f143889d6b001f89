package gce

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const maxResults = 500

// entry is an object of a list: what it is sorted by, how it looks, and its fields as a
// filter sees them.
type entry func(i int) (key string, item any, field func(string) (string, bool))

// choose picks the objects of one page.
func choose(r *http.Request, n int, at entry) (chosen []any, next string, err error) {
	q := r.URL.Query()
	wanted, err := parseFilter(q.Get("filter"))
	if err != nil {
		return nil, "", err
	}
	size := maxResults
	if s := q.Get("maxResults"); s != "" {
		size, err = strconv.Atoi(s)
		if err != nil || size < 0 || size > maxResults {
			return nil, "", invalid("maxResults", s, "Must be between 0 and 500.")
		}
		if size == 0 {
			size = maxResults
		}
	}
	after, err := base64.URLEncoding.DecodeString(q.Get("pageToken"))
	if err != nil {
		return nil, "", invalid("pageToken", q.Get("pageToken"), "The page token is not valid.")
	}
	type found struct {
		key  string
		item any
	}
	var all []found
	for i := range n {
		key, item, field := at(i)
		if key > string(after) && wanted(field) {
			all = append(all, found{key, item})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.key, b.key) })
	if len(all) > size {
		all = all[:size]
		next = base64.URLEncoding.EncodeToString([]byte(all[size-1].key))
	}
	for _, f := range all {
		chosen = append(chosen, f.item)
	}
	return chosen, next, nil
}

// page answers with one page of a list.
func (c *Cloud) page(r *http.Request, kind string, n int, at entry) (any, error) {
	items, next, err := choose(r, n, at)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"kind": kind, "id": strings.TrimPrefix(r.URL.Path, "/"), "selfLink": host + strings.TrimPrefix(r.URL.Path, "/"),
	}
	// Without items there is no list either, and on the last page no token.
	if len(items) > 0 {
		out["items"] = items
	}
	if next != "" {
		out["nextPageToken"] = next
	}
	return out, nil
}

// field is how a filter sees a disk.
func (d *diskJSON) field(name string) (string, bool) {
	if key, ok := strings.CutPrefix(name, "labels."); ok {
		v, ok := d.Labels[key]
		return v, ok
	}
	fields := map[string]string{
		"name": d.Name, "status": d.Status, "zone": d.Zone, "type": d.Type, "description": d.Description,
		"sizeGb": strconv.FormatInt(d.SizeGB, 10), "id": strconv.FormatUint(d.ID, 10), "selfLink": d.SelfLink,
		"sourceSnapshot": d.SourceSnapshot, "sourceDisk": d.SourceDisk, "users": strings.Join(d.Users, " "),
		"labelFingerprint": d.LabelFingerprint, "creationTimestamp": d.CreationTimestamp,
	}
	v, ok := fields[name]
	return v, ok
}

func (s *snapshotJSON) field(name string) (string, bool) {
	if key, ok := strings.CutPrefix(name, "labels."); ok {
		v, ok := s.Labels[key]
		return v, ok
	}
	fields := map[string]string{
		"name": s.Name, "status": s.Status, "sourceDisk": s.SourceDisk, "sourceDiskId": s.SourceDiskID,
		"diskSizeGb": strconv.FormatInt(s.DiskSizeGB, 10), "id": strconv.FormatUint(s.ID, 10), "description": s.Description,
		"creationTimestamp": s.CreationTimestamp,
	}
	v, ok := fields[name]
	return v, ok
}

func (c *Cloud) laggedDisks() []diskJSON { return c.diskList.At(c.clock.Now().Add(-c.cfg.ListLag)) }

func (c *Cloud) listDisks(r *http.Request) (any, error) {
	zone := host + c.zonePath(r.PathValue("zone"))
	all := slices.DeleteFunc(c.laggedDisks(), func(d diskJSON) bool { return d.Zone != zone })
	return c.page(r, "compute#diskList", len(all), func(i int) (string, any, func(string) (string, bool)) {
		return all[i].Name, &all[i], all[i].field
	})
}

// aggregateDisks lists those of all zones. Where a zone is out of reach the call fails, or
// if the caller said so, leaves that zone's disks out.
func (c *Cloud) aggregateDisks(r *http.Request) (any, error) {
	var cut []string
	for _, zone := range c.cfg.Zones {
		if c.unreachable[zone] {
			cut = append(cut, "zones/"+zone)
		}
	}
	if len(cut) > 0 && r.URL.Query().Get("returnPartialSuccess") != "true" {
		return nil, &problem{http.StatusServiceUnavailable, "backendError", "Backend Error"}
	}
	all := slices.DeleteFunc(c.laggedDisks(), func(d diskJSON) bool { return c.unreachable[last(d.Zone)] })
	items, next, err := choose(r, len(all), func(i int) (string, any, func(string) (string, bool)) {
		return last(all[i].Zone) + "/" + all[i].Name, &all[i], all[i].field
	})
	if err != nil {
		return nil, err
	}
	scopes := map[string]any{}
	for _, zone := range c.cfg.Zones {
		disks := []any{}
		for _, item := range items {
			if last(item.(*diskJSON).Zone) == zone {
				disks = append(disks, item)
			}
		}
		scopes["zones/"+zone] = map[string]any{"disks": disks}
		if len(disks) == 0 {
			scopes["zones/"+zone] = map[string]any{"warning": map[string]any{
				"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope 'zones/" + zone + "' on this page.",
				"data": []any{map[string]string{"key": "scope", "value": "zones/" + zone}},
			}}
		}
	}
	out := map[string]any{
		"kind": "compute#diskAggregatedList", "id": "projects/" + c.cfg.Project + "/aggregated/disks", "items": scopes,
		"selfLink": host + "projects/" + c.cfg.Project + "/aggregated/disks",
	}
	if next != "" {
		out["nextPageToken"] = next
	}
	if len(cut) > 0 {
		out["unreachables"] = cut
	}
	return out, nil
}

func (c *Cloud) listSnapshots(r *http.Request) (any, error) {
	all := c.snapshotList.At(c.clock.Now().Add(-c.cfg.ListLag))
	return c.page(r, "compute#snapshotList", len(all), func(i int) (string, any, func(string) (string, bool)) {
		return all[i].Name, &all[i], all[i].field
	})
}
