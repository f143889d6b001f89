package ec2

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/remora-plugins/remora/test/cloud/machine"
)

// snapshot is one state of a snapshot.
type snapshot struct {
	ID, Volume  string
	Description string
	State       string // pending completed error; empty when it is gone
	Size        int
	Start       time.Time
	Until       time.Time // when it is expected to be complete
	Encrypted   bool
	Key         string
	Tags        map[string]string
}

func createSnapshot(r *request) (any, error) {
	id, err := r.must("VolumeId")
	if err != nil {
		return nil, err
	}
	h, err := r.volume(id)
	if err != nil {
		return nil, err
	}
	tags, err := r.specified("snapshot")
	if err != nil {
		return nil, err
	}
	s, err := r.snap(h, tags)
	if err != nil {
		return nil, err
	}
	return r.cloud.snapshotXML(s, s.Tags, r.now()), nil
}

// snap takes a snapshot of what is on the volume at this moment.
func (r *request) snap(h *history[volume], tags map[string]string) (snapshot, error) {
	v, c := h.last(), r.cloud
	switch {
	case v.State != "available" && v.State != "in-use":
		return snapshot{}, incorrectState("Volume '%s' is in the '%s' state.", v.ID, v.State)
	case !v.snapped.IsZero() && r.now().Sub(v.snapped) < c.conf.Limits.SnapshotEvery:
		return snapshot{}, fail("SnapshotCreationPerVolumeRateExceeded", "The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or variable sleep interval between requests.")
	}
	s := snapshot{
		ID: c.newID("snap"), Volume: v.ID, Description: r.get("Description"), Size: v.Size,
		Encrypted: v.Encrypted, Key: v.Key, Tags: tags,
	}
	if err := r.begin(&s, c.file(r.region, v.ID), c.conf.Delays.Snapshot); err != nil {
		return snapshot{}, err
	}
	v.snapped = r.now()
	h.set(r.now(), v)
	return s, nil
}

// begin makes a snapshot of a file, which is complete after d.
func (r *request) begin(s *snapshot, source string, d time.Duration) error {
	c, n := r.cloud, 0
	for _, h := range r.region.snapshots {
		if h.last().State != "" {
			n++
		}
	}
	if n >= c.conf.Limits.Snapshots {
		return fail("SnapshotLimitExceeded", "You have exceeded your maximum number of snapshots.")
	}
	if err := machine.Copy(c.file(r.region, s.ID), source); err != nil {
		return err
	}
	s.State, s.Start, s.Until = "pending", r.now(), r.now().Add(d)
	h := newHistory(r.now(), *s)
	r.region.snapshots[s.ID] = h
	c.later(d, func() {
		if s := h.last(); s.State == "pending" {
			s.State = "completed"
			h.set(c.clock.Now(), s)
		}
	})
	return nil
}

// createSnapshots takes them of all volumes of an instance.
func createSnapshots(r *request) (any, error) {
	i, err := r.instance(r.get("InstanceSpecification.InstanceId"))
	if err != nil {
		return nil, err
	}
	tags, err := r.specified("snapshot")
	if err != nil {
		return nil, err
	}
	if of := r.get("CopyTagsFromSource"); of != "" && of != "volume" {
		return nil, invalid("Invalid value '%s' for CopyTagsFromSource.", of)
	}
	without := r.list("InstanceSpecification.ExcludeDataVolumeId")
	var out snapshotsXML
	on := r.region.on(i.ID)
	slices.SortFunc(on, func(a, b attachment) int { return cmp.Compare(a.Device, b.Device) })
	for _, a := range on {
		if slices.Contains(without, a.Volume) {
			continue
		}
		all, h := maps.Clone(tags), r.region.volumes[a.Volume]
		if r.has("CopyTagsFromSource") {
			maps.Copy(all, h.last().Tags)
		}
		s, err := r.snap(h, all)
		if err != nil {
			return nil, err
		}
		x := r.cloud.snapshotXML(s, s.Tags, r.now())
		x.State, x.Status = x.Status, ""
		out.Snapshots = append(out.Snapshots, x)
	}
	return out, nil
}

// copySnapshot is called in the region where the copy is to be.
func copySnapshot(r *request) (any, error) {
	c, id := r.cloud, r.get("SourceSnapshotId")
	from := c.regions[r.get("SourceRegion")]
	if from == nil {
		return nil, invalid("Invalid value '%s' for SourceRegion.", r.get("SourceRegion"))
	}
	if to := r.get("DestinationRegion"); to != "" && to != r.region.name {
		return nil, invalid("The destination region '%s' is not the region of the endpoint.", to)
	}
	tags, err := r.specified("snapshot")
	if err != nil {
		return nil, err
	}
	there := *r
	there.region = from
	source, err := there.snapshot(id)
	if err != nil {
		return nil, err
	}
	if source.State != "completed" {
		return nil, incorrectState("Snapshot %s is not in the 'completed' state.", id)
	}
	encrypt, err := r.yes("Encrypted")
	if err != nil {
		return nil, err
	}
	if r.has("KmsKeyId") && !encrypt && !source.Encrypted {
		return nil, fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	s := snapshot{
		ID: c.newID("snap"), Volume: "vol-ffffffff", // what AWS says of a copy
		Description: r.get("Description"), Size: source.Size, Encrypted: encrypt || source.Encrypted, Tags: tags,
	}
	if s.Encrypted {
		s.Key = c.key(r.region, r.get("KmsKeyId"))
	}
	if err := r.begin(&s, c.file(from, id), c.conf.Delays.Copy); err != nil {
		return nil, err
	}
	return copiedXML{s.ID, tagsXML(tags)}, nil
}

// snapshot returns what a snapshot is that a call is about.
func (r *request) snapshot(id string) (snapshot, error) {
	if !idPattern.MatchString(id) || kind(id) != "snapshot" {
		return snapshot{}, invalid("Value (%s) for parameter snapshotId is invalid. Expected: 'snap-...'.", id)
	}
	notFound := fail("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
	h := r.region.snapshots[id]
	if h == nil || h.last().State == "" {
		return snapshot{}, notFound
	}
	if _, ok := h.at(r.cloud.views(true).base); !ok {
		return snapshot{}, notFound
	}
	return h.last(), nil
}

func deleteSnapshot(r *request) (any, error) {
	id, err := r.must("SnapshotId")
	if err != nil {
		return nil, err
	}
	s, err := r.snapshot(id)
	if err != nil {
		return nil, err
	}
	s.State = ""
	r.region.snapshots[id].set(r.now(), s)
	if err := os.Remove(r.cloud.file(r.region, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return done{true}, nil
}

func snapshotField(s snapshot, name string) ([]string, bool) {
	if out, ok := tagField(s.Tags, name); ok {
		return out, true
	}
	one, ok := map[string]string{
		"snapshot-id": s.ID, "volume-id": s.Volume, "status": s.State, "volume-size": strconv.Itoa(s.Size),
		"description": s.Description, "encrypted": strconv.FormatBool(s.Encrypted), "start-time": stamp(s.Start),
	}[name]
	return []string{one}, ok
}

func describeSnapshots(r *request) (any, error) {
	if err := idsAndPages(r, "SnapshotId"); err != nil {
		return nil, err
	}
	filters := r.filters()
	if err := checkFilters(filters, snapshotField); err != nil {
		return nil, err
	}
	for _, owner := range r.list("Owner") {
		if owner != "self" && owner != r.cloud.conf.Account {
			return snapshotsXML{}, nil // there are no others
		}
	}
	asked := r.list("SnapshotId")
	v := r.cloud.views(len(asked) > 0)
	there := func(id string) bool {
		h := r.region.snapshots[id]
		if h == nil {
			return false
		}
		s, ok := h.at(v.base)
		return ok && s.State != ""
	}
	for _, id := range asked {
		if !idPattern.MatchString(id) || kind(id) != "snapshot" {
			return nil, invalid("Value (%s) for parameter snapshotId is invalid. Expected: 'snap-...'.", id)
		}
		if !there(id) {
			return nil, fail("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
		}
	}
	var ids []string
	for id, h := range r.region.snapshots {
		if (len(asked) == 0 || slices.Contains(asked, id)) && there(id) && selected(h, v, filters, snapshotField) {
			ids = append(ids, id)
		}
	}
	ids, next, err := page(r, ids)
	if err != nil {
		return nil, err
	}
	out := snapshotsXML{NextToken: next}
	for _, id := range ids {
		h := r.region.snapshots[id]
		s, _ := h.at(v.base)
		old, _ := h.at(v.tags)
		out.Snapshots = append(out.Snapshots, r.cloud.snapshotXML(s, old.Tags, r.now()))
	}
	return out, nil
}
