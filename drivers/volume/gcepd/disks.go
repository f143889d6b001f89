package gcepd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pageSize is how many disks an answer may hold, few how many are asked for one by one, and most
// how many names go into one filter.
const (
	pageSize = 500
	few      = 3
	most     = 50
)

// nameOf is the disk's name to Google, which says nothing and is never used twice.
func nameOf(uuid string) string { return "remora-" + uuid }

// split takes apart what is an ID here: a zone, and the name of a disk or an instance in it.
func split(id string) (zone, name string) {
	zone, name, _ = strings.Cut(id, "/")
	return zone, name
}

// last is what comes after the last slash of a URL.
func last(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// List returns the disks of a namespace. Few that are asked for by ID are looked at themselves,
// which shows them as they are now.
func (p *provider) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	if !q.All() && len(q.Names) == 0 && len(q.IDs) <= few {
		list, err := p.byID(ctx, q)
		if err != nil {
			return nil, err
		}
		return p.watched(ctx, q, list), nil
	}
	ours := labelIs(block.TagNamespace, encodeValue(q.Namespace))
	var filters []string
	for names := range slices.Chunk(q.Names, most) {
		filters = append(filters, ours+" AND ("+join(names, nameIs)+")")
	}
	for ids := range slices.Chunk(q.IDs, most) {
		filters = append(filters, join(ids, func(id string) string {
			_, name := split(id)
			return fmt.Sprintf(`(name = "%s")`, name)
		}))
	}
	if q.All() {
		filters = []string{ours}
	}
	var all []block.Disk
	cut := map[string]bool{}
	for _, filter := range filters {
		list, zones, err := p.aggregated(ctx, filter)
		if err != nil {
			return nil, err
		}
		maps.Copy(cut, zones)
		for _, d := range list {
			disk := p.disk(d)
			if disk.Tags[block.TagNamespace] == q.Namespace && q.Takes(disk.ID, disk.Tags[block.TagName]) && !slices.ContainsFunc(all, func(o block.Disk) bool { return o.ID == disk.ID }) {
				if !q.All() {
					p.remember(disk.ID, d)
				}
				all = append(all, disk)
			}
		}
	}
	all = p.watched(ctx, q, all)
	if len(cut) == 0 {
		return all, nil
	}
	return p.partly(q, all, slices.Sorted(maps.Keys(cut)))
}

func join(all []string, term func(string) string) string {
	terms := make([]string, len(all))
	for i, s := range all {
		terms[i] = term(s)
	}
	return strings.Join(terms, " OR ")
}

// partly is what a list comes to that some zones had no part in: it is no proof that anything is
// not there.
func (p *provider) partly(q block.Query, all []block.Disk, zones []string) ([]block.Disk, error) {
	err := errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s of %s cannot be looked at, as Google says; what is there stays as it was known", strings.Join(zones, ", "), p.t.Scope),
		`see status.cloud.google.com; with zones = […] in the pool others are not looked at`)
	if q.All() {
		return all, block.Partial(err, zones)
	}
	found := func(d block.Disk, what string) bool { return d.ID == what || d.Tags[block.TagName] == what }
	for _, what := range slices.Concat(q.Names, q.IDs) {
		if !slices.ContainsFunc(all, func(d block.Disk) bool { return found(d, what) }) {
			return nil, err
		}
	}
	return all, nil
}

func (p *provider) byID(ctx context.Context, q block.Query) (all []block.Disk, err error) {
	for _, id := range q.IDs {
		d, err := p.one(ctx, id)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if disk := p.disk(d); disk.Tags[block.TagNamespace] == q.Namespace {
			p.remember(id, d)
			all = append(all, disk)
		}
	}
	return all, nil
}

// one returns a disk as it is now.
func (p *provider) one(ctx context.Context, id string) (*compute.Disk, error) {
	zone, name := split(id)
	return ask(ctx, p, "disks.get", "zone "+zone, p.api.Disks.Get(p.c.Project, zone, name).Context(ctx))
}

// aggregated lists disks of all zones, and tells which zones could not be looked at.
func (p *provider) aggregated(ctx context.Context, filter string) (all []*compute.Disk, cut map[string]bool, err error) {
	cut = map[string]bool{}
	r := p.api.Disks.AggregatedList(p.c.Project).Filter(filter).MaxResults(pageSize).ReturnPartialSuccess(true).Context(ctx)
	for {
		page, err := ask(ctx, p, "disks.aggregatedList", "all zones", r)
		if err != nil {
			return nil, nil, err
		}
		missing := page.Unreachables
		for scope, list := range page.Items {
			if list.Warning != nil && list.Warning.Code == "UNREACHABLE" {
				missing = append(missing, scope)
			}
			for _, d := range list.Disks {
				// Those of a region are none that this driver knows.
				if d.Zone != "" && p.looksAt(last(d.Zone)) {
					all = append(all, d)
				}
			}
		}
		for _, scope := range missing {
			if strings.Contains("/"+scope, "/zones/") && p.looksAt(last(scope)) {
				cut[last(scope)] = true
			}
		}
		if page.NextPageToken == "" {
			return all, cut, nil
		}
		r.PageToken(page.NextPageToken)
	}
}

func (p *provider) looksAt(zone string) bool {
	return len(p.c.Zones) == 0 || slices.Contains(p.c.Zones, zone)
}

// factAccess is how many hosts Google lets have a disk, where that is not one.
const factAccess = "access_mode"

// disk makes of what Compute Engine says of a disk what the core wants to know.
func (p *provider) disk(d *compute.Disk) block.Disk {
	zone := last(d.Zone)
	out := block.Disk{
		ID: zone + "/" + d.Name, Tags: decode(d.Labels), Size: d.SizeGb * gib, State: block.Ready, Created: stamp(d.CreationTimestamp),
		Zone: zone, Type: last(d.Type), Encrypted: true,
	}
	if k := kinds[out.Type]; k.iops {
		out.IOPS = d.ProvisionedIops
	}
	if k := kinds[out.Type]; k.throughput {
		out.Throughput = d.ProvisionedThroughput
	}
	switch d.Status {
	case "CREATING", "RESTORING":
		out.State = block.Creating
	case "DELETING":
		out.State = block.Deleting
	case "FAILED":
		out.State, out.Reason = block.Failed, "Google says no more than that"
	}
	if d.AccessMode != "" && d.AccessMode != "READ_WRITE_SINGLE" {
		out.Facts = map[string]string{factAccess: d.AccessMode}
	}
	for _, user := range d.Users { // …/zones/ZONE/instances/NAME
		out.Holders = append(out.Holders, block.Holder{Host: zone + "/" + last(user), State: block.Attached, Since: stamp(d.LastAttachTimestamp)})
	}
	return out
}

func stamp(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// Create begins to make a disk. The UUID is in its name, which is there once in a zone, and in the
// token of the request, which brings back the same operation within the hour.
func (p *provider) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	zone, err := p.zoneFor(ctx, s.Zone)
	if err != nil {
		return block.Disk{}, err
	}
	in, err := p.insertion(s, zone)
	if err != nil {
		return block.Disk{}, err
	}
	op, err := ask(ctx, p, "disks.insert", "zone "+zone, p.api.Disks.Insert(p.c.Project, zone, in).RequestId(requestID("disk", s.UUID, zone)).Context(ctx))
	id := zone + "/" + in.Name
	switch {
	case reasonOf(err) == exists || err == nil && op.Status == done: // made before, and perhaps gone again
		d, gerr := p.one(ctx, id)
		if errors.Is(gerr, errdefs.ErrNotFound) {
			return block.Disk{}, errdefs.Errorf(errdefs.ErrExists, "the token of the disk was used for one that is gone")
		}
		if gerr != nil {
			return block.Disk{}, gerr
		}
		disk := p.disk(d)
		if disk.Tags[block.TagUUID] != s.UUID {
			return block.Disk{}, errdefs.Errorf(errdefs.ErrExists, "there is a disk %s that is not ours", id)
		}
		return disk, nil
	case s.Snapshot != nil && errors.Is(err, errdefs.ErrNotFound):
		return block.Disk{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "snapshot %s: %s has none", s.Snapshot.ID, p.t.Scope), "one of another project is named projects/P/global/snapshots/NAME")
	case err != nil:
		return block.Disk{}, err
	}
	disk := block.Disk{
		ID: id, Tags: s.Tags, Size: in.SizeGb * gib, State: block.Creating, Created: time.Now().UTC().Truncate(time.Second), Zone: zone,
		Type: last(in.Type), IOPS: in.ProvisionedIops, Throughput: in.ProvisionedThroughput, Encrypted: true,
	}
	return disk, p.begun(op, "insert", disk, "")
}

// insertion is the disk to be made, with what the pool says where s says nothing.
func (p *provider) insertion(s block.Spec, zone string) (*compute.Disk, error) {
	name := cmp.Or(s.Type, p.c.Type)
	labels, err := p.c.labelsOf(s.Tags)
	if err != nil {
		return nil, err
	}
	in := &compute.Disk{
		Name: nameOf(s.UUID), SizeGb: (s.Size + gib - 1) / gib, Type: "projects/" + p.c.Project + "/zones/" + zone + "/diskTypes/" + name, Labels: labels,
		Description:     fmt.Sprintf("Remora: volume %q of namespace %q", s.Tags[block.TagName], s.Tags[block.TagNamespace]),
		ProvisionedIops: s.IOPS, ProvisionedThroughput: s.Throughput,
	}
	if name == p.c.Type {
		in.ProvisionedIops, in.ProvisionedThroughput = cmp.Or(s.IOPS, p.c.IOPS), cmp.Or(s.Throughput, p.c.Throughput)
	}
	key := s.KMSKey
	if s.Snapshot != nil {
		in.SourceSnapshot = s.Snapshot.ID
		if !strings.Contains(s.Snapshot.ID, "/") {
			in.SourceSnapshot = "projects/" + p.c.Project + "/global/snapshots/" + s.Snapshot.ID
		}
		key = cmp.Or(key, s.Snapshot.Facts[factKey])
	}
	if key = cmp.Or(key, p.c.KMSKey); key != "" {
		in.DiskEncryptionKey = &compute.CustomerEncryptionKey{KmsKeyName: key}
	}
	return in, nil
}

// zoneFor returns where a disk is made.
func (p *provider) zoneFor(ctx context.Context, zone string) (string, error) {
	if zone = cmp.Or(zone, p.c.Zone); zone != "" {
		return zone, nil
	}
	self, err := p.Self(ctx)
	if err != nil {
		return "", errdefs.Hint(fmt.Errorf("the zone of the disk: %w", err), "or say where it is to be: -o zone=, or zone in the pool")
	}
	if !p.looksAt(self.Zone) {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "this host is in zone %s, which is not one of the pool's", self.Zone), "say where the disk is to be: -o zone=, or zone in the pool")
	}
	return self.Zone, nil
}

// Delete begins to delete a disk.
func (p *provider) Delete(ctx context.Context, d block.Disk) error {
	zone, name := split(d.ID)
	if name != nameOf(d.Tags[block.TagUUID]) { // of an import: somebody may have made another disk of that name
		now, err := p.one(ctx, d.ID)
		if errors.Is(err, errdefs.ErrNotFound) || err == nil && decode(now.Labels)[block.TagUUID] != d.Tags[block.TagUUID] {
			return nil
		}
		if err != nil {
			return err
		}
	}
	_, err := ask(ctx, p, "disks.delete", "zone "+zone, p.api.Disks.Delete(p.c.Project, zone, name).Context(ctx))
	p.ended(d.ID)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if reasonOf(err) == notReady {
		if now, gerr := p.one(ctx, d.ID); errors.Is(gerr, errdefs.ErrNotFound) || gerr == nil && now.Status == "DELETING" {
			return nil
		}
	}
	return err
}

// Online tells that disks grow while a host has them.
func (p *provider) Online() bool { return true }

// Resize begins to make a disk larger.
func (p *provider) Resize(ctx context.Context, d block.Disk, size int64) error {
	zone, name := split(d.ID)
	in := &compute.DisksResizeRequest{SizeGb: (size + gib - 1) / gib}
	_, err := ask(ctx, p, "disks.resize", "zone "+zone, p.api.Disks.Resize(p.c.Project, zone, name, in).Context(ctx))
	if err == nil || errors.Is(err, errdefs.ErrUnavailable) {
		return err
	}
	if now, gerr := p.one(ctx, d.ID); gerr == nil && now.SizeGb >= in.SizeGb {
		return nil
	}
	return passing(err)
}

// passing makes of "busy" what is tried again at once.
func passing(err error) error {
	if reason := reasonOf(err); reason == notReady || reason == "resourceOperationInProgress" {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s", err.Error()), "another operation on the disk has to end first: gcloud compute operations list")
	}
	return err
}
