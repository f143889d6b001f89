package ec2

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/cloud/machine"
)

const gib = 1 << 30

// volume is one state of a volume. The slice and maps in it are replaced, not changed.
type volume struct {
	shape
	ID        string
	Zone      string
	Created   time.Time
	State     string // creating available in-use deleting error; empty when it is gone
	Snapshot  string
	Encrypted bool
	Key       string
	Tags      map[string]string
	Attached  []attachment

	mod      *modification
	snapped  time.Time // last
	modified time.Time // last
}

// attachment is that of a volume to an instance.
type attachment struct {
	Volume   string
	Instance string
	Device   string
	State    string // attaching attached detaching busy
	Since    time.Time
}

// token is what a ClientToken was used for.
type token struct {
	query string
	id    string
}

func createVolume(r *request) (any, error) {
	query := r.withoutToken()
	if t, ok := r.region.tokens[r.get("ClientToken")]; ok && r.get("ClientToken") != "" {
		return r.again(t, query)
	}
	v := volume{ID: r.cloud.newID("vol"), Created: r.now(), State: "creating"}
	var err error
	if v.Zone, err = r.must("AvailabilityZone"); err != nil {
		return nil, err
	}
	if !slices.Contains(r.cloud.zones(r.region.name), v.Zone) {
		return nil, fail("InvalidZone.NotFound", "The zone '%s' does not exist.", v.Zone)
	}
	if v.shape, err = r.shape(); err != nil {
		return nil, err
	}
	if v.Tags, err = r.specified("volume"); err != nil {
		return nil, err
	}
	if v.Encrypted, err = r.yes("Encrypted"); err != nil {
		return nil, err
	}
	if r.has("KmsKeyId") && !v.Encrypted {
		return nil, fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	if !r.has("Size") && !r.has("SnapshotId") {
		return nil, missing("size/snapshot")
	}
	source, err := r.source(&v)
	if err != nil {
		return nil, err
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	if r.region.living() >= r.cloud.conf.Limits.Volumes {
		return nil, fail("VolumeLimitExceeded", "You have exceeded your maximum number of volumes.")
	}
	if v.Encrypted && v.Key == "" {
		v.Key = r.cloud.key(r.region, r.get("KmsKeyId"))
	}
	if err := r.cloud.make(r.region, v, source); err != nil {
		return nil, err
	}
	h := newHistory(r.now(), v)
	r.region.volumes[v.ID] = h
	if t := r.get("ClientToken"); t != "" {
		r.region.tokens[t] = token{query, v.ID}
	}
	r.cloud.later(r.cloud.conf.Delays.Create, func() {
		v := h.last()
		v.State = "available"
		if !r.cloud.usable(r.region, r.get("KmsKeyId")) {
			r.cloud.drop(r.region, h)
			return
		}
		h.set(r.now(), v)
	})
	return r.cloud.volumeXML(v, v.Tags), nil
}

// again answers a call whose token was used before.
func (r *request) again(t token, query string) (any, error) {
	if t.query != query {
		return nil, fail("IdempotentParameterMismatch", "Parameters on this idempotent request are inconsistent with parameters used in previous request(s)")
	}
	v := r.region.volumes[t.id].last()
	if v.State == "" {
		return nil, fail("IdempotentParameterMismatch", "The client token you have provided is associated with a resource that is already deleted. Please use a different client token.")
	}
	return r.cloud.volumeXML(v, v.Tags), nil
}

func (r *request) withoutToken() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(r.params)) {
		if key != "ClientToken" {
			b.WriteString(key + "=" + r.get(key) + "\n")
		}
	}
	return b.String()
}

// source checks what a volume is to be made from, and returns its file, if any.
func (r *request) source(v *volume) (string, error) {
	v.Snapshot = r.get("SnapshotId")
	if v.Snapshot == "" {
		return "", nil
	}
	s, err := r.snapshot(v.Snapshot)
	if err != nil {
		return "", err
	}
	switch {
	case s.State != "completed":
		return "", incorrectState("Snapshot is in invalid state - %s", s.State)
	case v.Size == 0:
		v.Size = s.Size
	case v.Size < s.Size:
		return "", invalid("The size of a volume can't be smaller than the size of its snapshot (%dGiB).", s.Size)
	}
	if s.Encrypted && !v.Encrypted {
		if r.has("Encrypted") {
			return "", fail("InvalidParameterDependency", "The parameter Encrypted cannot be false for an encrypted snapshot.")
		}
		v.Encrypted, v.Key = true, s.Key
	}
	return r.cloud.file(r.region, s.ID), nil
}

// make makes the file of a volume.
func (c *Cloud) make(r *region, v volume, source string) error {
	file := c.file(r, v.ID)
	if source == "" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	} else if err := machine.Copy(file, source); err != nil {
		return err
	}
	return resize(file, v.Size)
}

// largest is what ext4 can hold in one file.
const largest = 16<<40 - 1<<20

// resize gives a file the size of a volume, or what the file system can.
func resize(file string, size int) error {
	err := os.Truncate(file, int64(size)*gib)
	if errors.Is(err, unix.EFBIG) {
		err = os.Truncate(file, largest)
	}
	return err
}

// drop makes a volume be gone.
func (c *Cloud) drop(r *region, h *history[volume]) {
	v := h.last()
	v.State = ""
	h.set(c.clock.Now(), v)
	if err := os.Remove(c.file(r, v.ID)); !errors.Is(err, fs.ErrNotExist) {
		c.failed(err)
	}
}

// living is how many volumes there are.
func (r *region) living() (n int) {
	for _, h := range r.volumes {
		if h.last().State != "" {
			n++
		}
	}
	return n
}

var idPattern = regexp.MustCompile(`^(vol|snap|i)-([0-9a-f]{8}|[0-9a-f]{17})$`)

// kind returns what sort of thing an id is of.
func kind(id string) string {
	prefix, _, _ := strings.Cut(id, "-")
	return map[string]string{"vol": "volume", "snap": "snapshot", "i": "instance"}[prefix]
}

// volume returns the history of a volume that a call is about. One that the caches do not
// know yet is not found.
func (r *request) volume(id string) (*history[volume], error) {
	if !idPattern.MatchString(id) || kind(id) != "volume" {
		return nil, invalid("Value (%s) for parameter volumeId is invalid. Expected: 'vol-...'.", id)
	}
	notFound := fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
	h := r.region.volumes[id]
	if h == nil || h.last().State == "" {
		return nil, notFound
	}
	if _, ok := h.at(r.cloud.views(true).base); !ok {
		return nil, notFound
	}
	return h, nil
}

func deleteVolume(r *request) (any, error) {
	id, err := r.must("VolumeId")
	if err != nil {
		return nil, err
	}
	h, err := r.volume(id)
	if err != nil {
		return nil, err
	}
	v := h.last()
	switch {
	case len(v.Attached) > 0:
		return nil, fail("VolumeInUse", "Volume %s is currently attached to %s", id, v.Attached[0].Instance)
	case v.State == "creating":
		return nil, incorrectState("Volume '%s' is in the 'creating' state.", id)
	case v.State == "deleting":
		return done{true}, nil
	}
	v.State = "deleting"
	h.set(r.now(), v)
	r.cloud.later(r.cloud.conf.Delays.Delete, func() { r.cloud.drop(r.region, h) })
	return done{true}, nil
}

// volumeField is what a volume has for a filter.
func volumeField(v volume, name string) ([]string, bool) {
	if out, ok := tagField(v.Tags, name); ok {
		return out, true
	}
	if rest, ok := strings.CutPrefix(name, "attachment."); ok {
		return attachmentField(v.Attached, rest)
	}
	one, ok := map[string]string{
		"availability-zone": v.Zone, "status": v.State, "volume-id": v.ID, "volume-type": v.Type,
		"size": strconv.Itoa(v.Size), "snapshot-id": v.Snapshot, "encrypted": strconv.FormatBool(v.Encrypted),
		"create-time": stamp(v.Created), "multi-attach-enabled": strconv.FormatBool(v.Multi),
	}[name]
	return []string{one}, ok
}

func attachmentField(list []attachment, name string) (out []string, ok bool) {
	fields := map[string]func(attachment) string{
		"instance-id": func(a attachment) string { return a.Instance }, "device": func(a attachment) string { return a.Device },
		"status": func(a attachment) string { return a.State }, "attach-time": func(a attachment) string { return stamp(a.Since) },
		"delete-on-termination": func(attachment) string { return "false" },
	}
	field, ok := fields[name]
	if !ok {
		return nil, false
	}
	for _, a := range list {
		out = append(out, field(a))
	}
	return out, true
}

func describeVolumes(r *request) (any, error) {
	if err := idsAndPages(r, "VolumeId"); err != nil {
		return nil, err
	}
	filters := r.filters()
	if err := checkFilters(filters, volumeField); err != nil {
		return nil, err
	}
	asked := r.list("VolumeId")
	v := r.cloud.views(len(asked) > 0)
	var ids []string
	for _, id := range asked {
		if !idPattern.MatchString(id) || kind(id) != "volume" {
			return nil, invalid("Value (%s) for parameter volumes is invalid. Expected: 'vol-...'.", id)
		}
		if h := r.region.volumes[id]; h == nil || !shown(h, v) {
			return nil, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
		}
	}
	for id, h := range r.region.volumes {
		if (len(asked) == 0 || slices.Contains(asked, id)) && shown(h, v) && selected(h, v, filters, volumeField) {
			ids = append(ids, id)
		}
	}
	ids, next, err := page(r, ids)
	if err != nil {
		return nil, err
	}
	out := volumesXML{NextToken: next}
	for _, id := range ids {
		h := r.region.volumes[id]
		value, _ := h.at(v.base)
		old, _ := h.at(v.tags)
		out.Volumes = append(out.Volumes, r.cloud.volumeXML(value, old.Tags))
	}
	return out, nil
}

// shown tells whether a cache has a volume.
func shown(h *history[volume], v views) bool {
	value, ok := h.at(v.base)
	return ok && value.State != ""
}
