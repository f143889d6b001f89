package gce

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

func (c *Cloud) zonePath(zone string) string { return "projects/" + c.cfg.Project + "/zones/" + zone }

func (c *Cloud) hasZone(zone string) bool { return slices.Contains(c.cfg.Zones, zone) }

// regionOf is the region of a zone: us-central1 of us-central1-a.
func regionOf(zone string) string {
	if i := strings.LastIndex(zone, "-"); i > 0 {
		return zone[:i]
	}
	return zone
}

func (c *Cloud) hasRegion(region string) bool {
	return slices.ContainsFunc(c.cfg.Zones, func(zone string) bool { return regionOf(zone) == region })
}

func (c *Cloud) zoneJSON(zone string) map[string]any {
	status := "UP"
	if c.unreachable[zone] {
		status = "DOWN"
	}
	return map[string]any{
		"kind": "compute#zone", "name": zone, "description": zone, "status": status, "selfLink": host + c.zonePath(zone),
		"region": c.regionURL(regionOf(zone)),
	}
}

func (c *Cloud) regionURL(region string) string {
	return host + "projects/" + c.cfg.Project + "/regions/" + region
}

func named(name string) func(string) (string, bool) {
	return func(field string) (string, bool) { return name, field == "name" }
}

func (c *Cloud) listZones(r *http.Request) (any, error) {
	return c.page(r, "compute#zoneList", len(c.cfg.Zones), func(i int) (string, any, func(string) (string, bool)) {
		zone := c.cfg.Zones[i]
		return zone, c.zoneJSON(zone), named(zone)
	})
}

func (c *Cloud) getZone(r *http.Request) (any, error) { return c.zoneJSON(r.PathValue("zone")), nil }

func (c *Cloud) regionJSON(region string) map[string]any {
	var zones []string
	for _, zone := range c.cfg.Zones {
		if regionOf(zone) == region {
			zones = append(zones, host+c.zonePath(zone))
		}
	}
	return map[string]any{
		"kind": "compute#region", "name": region, "description": region, "status": "UP", "zones": zones,
		"selfLink": c.regionURL(region),
		"quotas": []any{map[string]any{
			"metric": "DISKS_TOTAL_GB", "limit": float64(c.cfg.QuotaGB), "usage": float64(c.usage(region)),
		}},
	}
}

func (c *Cloud) listRegions(r *http.Request) (any, error) {
	var regions []string
	for _, zone := range c.cfg.Zones {
		if region := regionOf(zone); !slices.Contains(regions, region) {
			regions = append(regions, region)
		}
	}
	return c.page(r, "compute#regionList", len(regions), func(i int) (string, any, func(string) (string, bool)) {
		return regions[i], c.regionJSON(regions[i]), named(regions[i])
	})
}

func (c *Cloud) getRegion(r *http.Request) (any, error) {
	return c.regionJSON(r.PathValue("region")), nil
}

func (c *Cloud) usage(region string) (gb int64) {
	for _, d := range c.disks {
		if regionOf(d.zone) == region {
			gb += d.size
		}
	}
	return gb
}

func (c *Cloud) checkQuota(zone string, more int64) error {
	region := regionOf(zone)
	if c.cfg.QuotaGB > 0 && c.usage(region)+more > c.cfg.QuotaGB {
		return &problem{
			http.StatusForbidden, "quotaExceeded",
			fmt.Sprintf("Quota 'DISKS_TOTAL_GB' exceeded.  Limit: %d.0 in region %s.", c.cfg.QuotaGB, region),
		}
	}
	return nil
}

const maxSize = 65536

// diskType is a kind of disk: its sizes, and the performance that can be bought.
type diskType struct {
	name                          string
	minSize, defaultSize          int64
	minIops, maxIops, defaultIops int64 // 0: cannot be chosen
	minThroughput, maxThroughput  int64
	defaultThroughput             int64
}

// diskTypes are from cloud.google.com/compute/docs/disks. The default performance of the
// last two depends on the size there, and is the least that there is here.
var diskTypes = []diskType{
	{name: "pd-standard", minSize: 10, defaultSize: 500},
	{name: "pd-balanced", minSize: 10, defaultSize: 100},
	{name: "pd-ssd", minSize: 10, defaultSize: 100},
	{name: "pd-extreme", minSize: 500, defaultSize: 1000, minIops: 2500, maxIops: 120000, defaultIops: 100000},
	{
		name: "hyperdisk-balanced", minSize: 4, defaultSize: 100, minIops: 3000, maxIops: 160000, defaultIops: 3000,
		minThroughput: 140, maxThroughput: 2400, defaultThroughput: 140,
	},
}

func findType(name string) (diskType, bool) {
	i := slices.IndexFunc(diskTypes, func(t diskType) bool { return t.name == name })
	if i < 0 {
		return diskType{}, false
	}
	return diskTypes[i], true
}

// checkType completes a disk by its type and refuses what that cannot be.
func checkType(d *disk, req insertRequest) error {
	t, ok := findType(d.kind)
	if !ok {
		return invalid("resource.type", req.Type, "The referenced diskType resource cannot be found.")
	}
	if d.size == 0 {
		d.size = t.defaultSize
	}
	if d.size < t.minSize {
		return invalid("resource.sizeGb", decimal(d.size), fmt.Sprintf("Disk size cannot be smaller than %d GB for %s.", t.minSize, t.name))
	}
	if d.size > maxSize {
		return invalid("resource.sizeGb", decimal(d.size), "Disk size is too large.")
	}
	var err error
	if d.iops, err = chosen("resource.provisionedIops", req.ProvisionedIops, t.minIops, t.maxIops, t.defaultIops); err != nil {
		return err
	}
	d.throughput, err = chosen("resource.provisionedThroughput", req.ProvisionedThroughput, t.minThroughput, t.maxThroughput, t.defaultThroughput)
	return err
}

func chosen(field string, want, lowest, highest, otherwise int64) (int64, error) {
	switch {
	case want == 0:
		return otherwise, nil
	case highest == 0:
		return 0, invalid(field, decimal(want), "The disk type does not support it.")
	case want < lowest || want > highest:
		return 0, invalid(field, decimal(want), fmt.Sprintf("Must be between %d and %d.", lowest, highest))
	}
	return want, nil
}

var kmsKey = regexp.MustCompile(`^projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+(/cryptoKeyVersions/[0-9]+)?$`)

// checkKey notes the key that a disk is encrypted with, which nothing here does.
func (c *Cloud) checkKey(d *disk, key *keyJSON) error {
	if key == nil || key.KmsKeyName == "" {
		if key != nil && key.RawKey != "" {
			return invalid("resource.diskEncryptionKey.rawKey", "", "This fake knows keys of Cloud KMS only.")
		}
		return nil
	}
	m := kmsKey.FindStringSubmatch(key.KmsKeyName)
	if m == nil {
		return invalid("resource.diskEncryptionKey.kmsKeyName", key.KmsKeyName, "The key name is malformed.")
	}
	if !slices.Contains([]string{"global", regionOf(d.zone), strings.SplitN(d.zone, "-", 2)[0]}, m[1]) {
		return invalid("resource.diskEncryptionKey.kmsKeyName", key.KmsKeyName, "The key is not in the region of the disk.")
	}
	name := key.KmsKeyName
	if m[2] == "" {
		name += "/cryptoKeyVersions/1"
	}
	d.key = &keyJSON{KmsKeyName: name}
	return nil
}

func (c *Cloud) diskTypeJSON(zone string, t diskType) map[string]any {
	return map[string]any{
		"kind": "compute#diskType", "name": t.name, "description": t.name, "zone": host + c.zonePath(zone),
		"validDiskSize": fmt.Sprintf("%dGB-%dGB", t.minSize, maxSize), "defaultDiskSizeGb": decimal(t.defaultSize),
		"selfLink": host + c.zonePath(zone) + "/diskTypes/" + t.name,
	}
}

func (c *Cloud) listDiskTypes(r *http.Request) (any, error) {
	return c.page(r, "compute#diskTypeList", len(diskTypes), func(i int) (string, any, func(string) (string, bool)) {
		t := diskTypes[i]
		return t.name, c.diskTypeJSON(r.PathValue("zone"), t), named(t.name)
	})
}

func (c *Cloud) getDiskType(r *http.Request) (any, error) {
	zone := r.PathValue("zone")
	t, ok := findType(r.PathValue("type"))
	if !ok {
		return nil, missing(c.zonePath(zone) + "/diskTypes/" + r.PathValue("type"))
	}
	return c.diskTypeJSON(zone, t), nil
}
