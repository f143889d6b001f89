package gce

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
)

type snapshot struct {
	id          uint64
	name        string
	description string
	size        int64 // GiB
	used        int64 // bytes
	created     time.Time
	labels      map[string]string
	status      string
	disk        string // URL
	diskID      string
	locations   []string
	key         *keyJSON
	busy        bool
}

func (s *snapshot) file() string { return fmt.Sprintf("snapshot-%d", s.id) }

func (c *Cloud) snapshotPath(s *snapshot) string {
	return "projects/" + c.cfg.Project + "/global/snapshots/" + s.name
}

func (c *Cloud) snapshotJSON(s *snapshot) snapshotJSON {
	out := snapshotJSON{
		Kind: "compute#snapshot", ID: s.id, CreationTimestamp: stamp(s.created), Name: s.name, Description: s.description,
		Status: s.status, SourceDisk: s.disk, SourceDiskID: s.diskID, DiskSizeGB: s.size, StorageLocations: s.locations,
		Labels: maps.Clone(s.labels), LabelFingerprint: fingerprint(s.labels), SnapshotEncryptionKey: s.key,
		SelfLink: host + c.snapshotPath(s), StorageBytesStatus: "UPDATING",
	}
	if s.status == "READY" {
		out.StorageBytes, out.StorageBytesStatus = s.used, "UP_TO_DATE"
	}
	return out
}

func (c *Cloud) snapshotChanged(s *snapshot) {
	c.snapshotList.Set(decimal(s.id), c.snapshotJSON(s), c.clock.Now())
}

func (c *Cloud) snapshot(name string) (*snapshot, error) {
	s := c.snapshots[name]
	if s == nil {
		return nil, missing("projects/" + c.cfg.Project + "/global/snapshots/" + name)
	}
	return s, nil
}

func (c *Cloud) getSnapshot(r *http.Request) (any, error) {
	s, err := c.snapshot(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return c.snapshotJSON(s), nil
}

type snapshotRequest struct {
	Name             string            `json:"name"`
	Description      string            `json:"description"`
	SourceDisk       string            `json:"sourceDisk"`
	Labels           map[string]string `json:"labels"`
	StorageLocations []string          `json:"storageLocations"`
}

func (c *Cloud) createSnapshot(r *http.Request) (any, error) {
	var req snapshotRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	d, err := c.disk(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return c.take(r, d, req, "createSnapshot", c.diskPath(d), d.id)
}

func (c *Cloud) insertSnapshot(r *http.Request) (any, error) {
	var req snapshotRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	// projects/P/zones/Z/disks/D
	parts := strings.Split(c.path(req.SourceDisk), "/")
	if len(parts) != 6 || parts[2] != "zones" || parts[4] != "disks" {
		return nil, invalid("resource.sourceDisk", req.SourceDisk, "The URL is malformed.")
	}
	d, err := c.disk(parts[3], parts[5])
	if err != nil {
		return nil, err
	}
	return c.take(r, d, req, "insert", "projects/"+c.cfg.Project+"/global/snapshots/"+req.Name, 0)
}

// take makes a snapshot, which has what the disk had at the time of the call.
func (c *Cloud) take(r *http.Request, d *disk, req snapshotRequest, kind, target string, targetID uint64) (any, error) {
	if err := firstErr(checkName(req.Name), checkLabels(req.Labels)); err != nil {
		return nil, err
	}
	s := &snapshot{
		id: c.newID(), name: req.Name, description: req.Description, size: d.size, created: c.clock.Now(),
		labels: maps.Clone(req.Labels), status: "CREATING", disk: host + c.diskPath(d), diskID: decimal(d.id),
		locations: req.StorageLocations, key: d.key, busy: true,
	}
	if s.locations == nil {
		s.locations = []string{strings.SplitN(d.zone, "-", 2)[0]}
	}
	switch {
	case c.snapshots[s.name] != nil:
		return nil, exists(c.snapshotPath(s))
	case d.status != "READY":
		return nil, notReady(c.diskPath(d))
	}
	if err := c.files.Copy(s.file(), d.file(), d.size*gib); err != nil {
		c.files.Remove(s.file())
		return nil, err
	}
	s.used = c.files.Used(s.file())
	c.snapshots[s.name] = s
	c.snapshotChanged(s)
	c.clock.AfterFunc(c.cfg.Snapshot/2, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.status == "CREATING" && c.snapshots[s.name] == s {
			s.status = "UPLOADING"
			c.snapshotChanged(s)
		}
	})
	return c.begin(r, kind, target, cmp.Or(targetID, s.id), c.cfg.Snapshot, func(failed bool) *problem {
		if failed {
			c.dropSnapshot(s)
			return nil
		}
		s.status, s.busy = "READY", false
		c.snapshotChanged(s)
		return nil
	})
}

func (c *Cloud) dropSnapshot(s *snapshot) {
	delete(c.snapshots, s.name)
	c.snapshotList.Delete(decimal(s.id), c.clock.Now())
	c.files.Remove(s.file())
}

func (c *Cloud) deleteSnapshot(r *http.Request) (any, error) {
	s, err := c.snapshot(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if s.busy {
		return nil, notReady(c.snapshotPath(s))
	}
	s.status, s.busy = "DELETING", true
	c.snapshotChanged(s)
	return c.begin(r, "delete", c.snapshotPath(s), s.id, c.cfg.Other, func(failed bool) *problem {
		if failed {
			s.status, s.busy = "READY", false
			c.snapshotChanged(s)
			return nil
		}
		c.dropSnapshot(s)
		return nil
	})
}

func (c *Cloud) setSnapshotLabels(r *http.Request) (any, error) {
	var req labelsRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	s, err := c.snapshot(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if err := firstErr(checkLabels(req.Labels), checkFingerprint(req.LabelFingerprint, s.labels)); err != nil {
		return nil, err
	}
	s.labels = req.Labels
	c.snapshotChanged(s)
	return c.begin(r, "setLabels", c.snapshotPath(s), s.id, c.cfg.Other, func(bool) *problem { return nil })
}
