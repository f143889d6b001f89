package gce

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

type disk struct {
	id                uint64
	zone, name        string
	description       string
	size              int64 // GiB
	kind              string
	created           time.Time
	labels            map[string]string
	status            string
	iops, throughput  int64
	key               *keyJSON
	snapshot, source  string // URLs of what it was made from
	snapshotID, srcID string
	// users are the instances that have it, and whether they may write.
	users              map[string]bool
	attached, detached time.Time
	// busy: an operation on it is under way.
	busy bool
}

func (d *disk) file() string { return fmt.Sprintf("disk-%d", d.id) }

func (c *Cloud) diskPath(d *disk) string { return c.zonePath(d.zone) + "/disks/" + d.name }

func (c *Cloud) diskJSON(d *disk) diskJSON {
	out := diskJSON{
		Kind: "compute#disk", ID: d.id, CreationTimestamp: stamp(d.created), Name: d.name, Description: d.description,
		SizeGB: d.size, Zone: host + c.zonePath(d.zone), Status: d.status,
		SourceSnapshot: d.snapshot, SourceSnapshotID: d.snapshotID, SourceDisk: d.source, SourceDiskID: d.srcID,
		Type: host + c.zonePath(d.zone) + "/diskTypes/" + d.kind, Labels: maps.Clone(d.labels),
		LabelFingerprint: fingerprint(d.labels), DiskEncryptionKey: d.key, ProvisionedIops: d.iops,
		ProvisionedThroughput: d.throughput, PhysicalBlockSizeBytes: 4096, SelfLink: host + c.diskPath(d),
	}
	for _, name := range slices.Sorted(maps.Keys(d.users)) {
		out.Users = append(out.Users, host+c.zonePath(d.zone)+"/instances/"+name)
	}
	if !d.attached.IsZero() {
		out.LastAttachTimestamp = stamp(d.attached)
	}
	if !d.detached.IsZero() {
		out.LastDetachTimestamp = stamp(d.detached)
	}
	return out
}

// changed has lists show the disk as it is, in a while.
func (c *Cloud) changed(d *disk) {
	c.diskList.Set(decimal(d.id), c.diskJSON(d), c.clock.Now())
}

func (c *Cloud) forget(d *disk) {
	delete(c.disks, d.zone+"/"+d.name)
	c.diskList.Delete(decimal(d.id), c.clock.Now())
	c.files.Remove(d.file())
}

func (c *Cloud) disk(zone, name string) (*disk, error) {
	d := c.disks[zone+"/"+name]
	if d == nil {
		return nil, missing(c.zonePath(zone) + "/disks/" + name)
	}
	return d, nil
}

func (c *Cloud) getDisk(r *http.Request) (any, error) {
	d, err := c.disk(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return c.diskJSON(d), nil
}

type insertRequest struct {
	Name                  string            `json:"name"`
	Description           string            `json:"description"`
	SizeGB                int64             `json:"sizeGb,string"`
	Type                  string            `json:"type"`
	SourceSnapshot        string            `json:"sourceSnapshot"`
	SourceDisk            string            `json:"sourceDisk"`
	Labels                map[string]string `json:"labels"`
	DiskEncryptionKey     *keyJSON          `json:"diskEncryptionKey"`
	ProvisionedIops       int64             `json:"provisionedIops,string"`
	ProvisionedThroughput int64             `json:"provisionedThroughput,string"`
}

func (c *Cloud) insertDisk(r *http.Request) (any, error) {
	var req insertRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	zone := r.PathValue("zone")
	d := &disk{
		id: c.newID(), zone: zone, name: req.Name, description: req.Description, size: req.SizeGB,
		kind: last(cmp.Or(req.Type, "pd-standard")), created: c.clock.Now(), labels: maps.Clone(req.Labels), status: "CREATING",
		users: map[string]bool{}, busy: true,
	}
	from, err := c.origin(d, req)
	if err != nil {
		return nil, err
	}
	if err := firstErr(checkName(d.name), checkLabels(d.labels), checkType(d, req), c.checkKey(d, req.DiskEncryptionKey)); err != nil {
		return nil, err
	}
	if c.disks[zone+"/"+d.name] != nil {
		return nil, exists(c.diskPath(d))
	}
	if err := c.checkQuota(zone, d.size); err != nil {
		return nil, err
	}
	if from != "" {
		err = c.files.Copy(d.file(), from, d.size*gib)
	} else {
		err = c.files.Create(d.file(), d.size*gib)
	}
	if err != nil {
		c.files.Remove(d.file())
		return nil, err
	}
	if from != "" {
		d.status = "RESTORING"
	}
	c.disks[zone+"/"+d.name] = d
	c.changed(d)
	return c.begin(r, "insert", c.diskPath(d), d.id, c.cfg.Create, func(failed bool) *problem {
		if failed {
			c.forget(d)
			return nil
		}
		d.status, d.busy = "READY", false
		c.changed(d)
		return nil
	})
}

// origin notes what a disk is made from and returns that one's file, or "".
func (c *Cloud) origin(d *disk, req insertRequest) (string, error) {
	switch {
	case req.SourceSnapshot != "" && req.SourceDisk != "":
		return "", invalid("resource.sourceDisk", req.SourceDisk, "At most one source may be given.")
	case req.SourceSnapshot != "":
		s, err := c.snapshot(last(req.SourceSnapshot))
		if err != nil {
			return "", err
		}
		if s.status != "READY" {
			return "", notReady(c.snapshotPath(s))
		}
		d.snapshot, d.snapshotID = host+c.snapshotPath(s), decimal(s.id)
		d.size = cmp.Or(d.size, s.size)
		if d.size < s.size {
			return "", invalid("resource.sizeGb", decimal(d.size), fmt.Sprintf("Requested disk size cannot be smaller than the snapshot size (%d GB)", s.size))
		}
		return s.file(), nil
	case req.SourceDisk != "":
		src, err := c.disk(d.zone, last(req.SourceDisk))
		if err != nil {
			return "", err
		}
		if c.path(req.SourceDisk) != c.diskPath(src) {
			return "", invalid("resource.sourceDisk", req.SourceDisk, "The source disk must be in the same zone.")
		}
		if src.status != "READY" {
			return "", notReady(c.diskPath(src))
		}
		if req.Type == "" {
			d.kind = src.kind
		}
		if d.kind != src.kind {
			return "", invalid("resource.type", req.Type, "The type must be that of the source disk.")
		}
		d.source, d.srcID = host+c.diskPath(src), decimal(src.id)
		d.size = cmp.Or(d.size, src.size)
		if d.size < src.size {
			return "", invalid("resource.sizeGb", decimal(d.size), fmt.Sprintf("Requested disk size cannot be smaller than the source disk size (%d GB)", src.size))
		}
		return src.file(), nil
	}
	return "", nil
}

func (c *Cloud) deleteDisk(r *http.Request) (any, error) {
	d, err := c.disk(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if user := slices.Sorted(maps.Keys(d.users)); len(user) > 0 {
		return nil, inUse(c.diskPath(d), c.zonePath(d.zone)+"/instances/"+user[0])
	}
	if d.busy {
		return nil, notReady(c.diskPath(d))
	}
	d.status, d.busy = "DELETING", true
	c.changed(d)
	return c.begin(r, "delete", c.diskPath(d), d.id, c.cfg.Other, func(failed bool) *problem {
		if failed {
			d.status, d.busy = "READY", false
			c.changed(d)
			return nil
		}
		c.forget(d)
		return nil
	})
}

func (c *Cloud) resizeDisk(r *http.Request) (any, error) {
	var req struct {
		SizeGB int64 `json:"sizeGb,string"`
	}
	if err := read(r, &req); err != nil {
		return nil, err
	}
	d, err := c.disk(r.PathValue("zone"), r.PathValue("name"))
	switch {
	case err != nil:
		return nil, err
	case d.busy:
		return nil, notReady(c.diskPath(d))
	case req.SizeGB <= d.size:
		return nil, invalid("sizeGb", decimal(req.SizeGB), fmt.Sprintf("New disk size '%d' GiB must be larger than existing size '%d' GiB.", req.SizeGB, d.size))
	case req.SizeGB > maxSize:
		return nil, invalid("sizeGb", decimal(req.SizeGB), "Disk size is too large.")
	}
	if err := c.checkQuota(d.zone, req.SizeGB-d.size); err != nil {
		return nil, err
	}
	d.busy = true
	return c.begin(r, "resize", c.diskPath(d), d.id, c.cfg.Resize, func(failed bool) *problem {
		d.busy = false
		if failed {
			return nil
		}
		if err := c.files.Grow(d.file(), req.SizeGB*gib); err != nil {
			return &problem{http.StatusInternalServerError, "internalError", err.Error()}
		}
		d.size = req.SizeGB
		c.changed(d)
		return c.grown(d)
	})
}

type labelsRequest struct {
	Labels           map[string]string `json:"labels"`
	LabelFingerprint string            `json:"labelFingerprint"`
}

// setDiskLabels changes the labels at once; only the news of it takes time.
func (c *Cloud) setDiskLabels(r *http.Request) (any, error) {
	var req labelsRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	d, err := c.disk(r.PathValue("zone"), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if err := firstErr(checkLabels(req.Labels), checkFingerprint(req.LabelFingerprint, d.labels)); err != nil {
		return nil, err
	}
	d.labels = req.Labels
	c.changed(d)
	return c.begin(r, "setLabels", c.diskPath(d), d.id, c.cfg.Other, func(bool) *problem { return nil })
}

// firstErr returns the first error.
func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
