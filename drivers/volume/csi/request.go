package csi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The words for who may use a volume.
const (
	rwSingle = "rw-single"
	rwMany   = "rw-many"
)

// modes are the access modes of CSI by our words.
var modes = map[string]spec.VolumeCapability_AccessMode_Mode{
	rwSingle: spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, rwMany: spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
	"ro-single": spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, "ro-many": spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	"one-writer-many-readers": spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
	"rw-one-container":        spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
}

// modeOf is the access mode of a word for this CSI driver: one that tells several writers of a host apart is not told
// SINGLE_NODE_WRITER any more (CSI, "VolumeCapability.AccessMode").
func modeOf(word string, facts conn.Facts) (spec.VolumeCapability_AccessMode_Mode, error) {
	apart := facts.Node.Has(spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER) &&
		(len(facts.Controller) == 0 || facts.Controller.Has(spec.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER))
	switch {
	case word == "" && facts.Quirks.Has(quirk.ManyWriters):
		word = rwMany
	case word == "":
		word = rwSingle
	}
	switch {
	case word == rwSingle && apart:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, nil
	case word == "rw-one-container" && !apart:
		return 0, errdefs.Errorf(errdefs.ErrUnsupported, "%s knows no access %q", facts.Name, word)
	}
	return modes[word], nil
}

// words undoes modeOf.
var words = func() map[string]string {
	all := map[string]string{}
	for word, m := range modes {
		all[m.String()] = word
	}
	return all
}()

func wordOf(mode string) string { return cmp.Or(words[mode], rwSingle) }

func readOnlyMode(mode string) bool { return strings.HasSuffix(mode, "_READER_ONLY") }

// request makes of options what is to be made, or found.
func (d *driver) request(name string, a asked, facts conn.Facts) (record, error) {
	r := record{
		Name: name, Options: a.shown(), Created: now(), Origin: created, Phase: phaseNew, Since: now(), Lineage: nonce(),
		Required: int64(d.c.Size), ReadOnly: a.ReadOnly, Retain: d.c.Reclaim == "retain", Detach: a.Detach,
		Parameters: merged(d.c.Parameters, a.parameters), Mutable: merged(nil, a.mutable), SnapParams: merged(nil, a.snapshots),
	}
	r.CSIName = d.freeName(name)
	if a.Size != nil {
		r.Required = int64(*a.Size)
	}
	if a.Limit != nil {
		r.Limit = int64(*a.Limit)
	}
	if r.Limit > 0 && r.Required > r.Limit {
		r.Required = r.Limit // of the pool
	}
	if a.Subdir != nil {
		r.Subdir = *a.Subdir
	}
	if a.Reclaim != nil {
		r.Retain = *a.Reclaim == "retain"
	}
	if a.Snapshot != nil {
		r.Source = &source{Snapshot: *a.Snapshot, Shown: *a.Snapshot}
		if a.Size == nil {
			r.Required = 0
		}
	}
	var err error
	if r.Capability, err = d.capability(a, facts); err != nil {
		return r, err
	}
	if r.Requisite, err = requisite(a, facts); err != nil {
		return r, err
	}
	switch {
	case a.VolumeID != nil:
		r.Origin, r.ID, r.Context, r.Phase, r.CSIName = static, *a.VolumeID, merged(nil, a.context), phaseCreated, ""
		if r.Required, r.Capacity = 0, 0; a.Size != nil {
			r.Capacity = int64(*a.Size)
		}
	case a.ExactName:
		if r.Origin, r.CSIName = adopted, name; a.Size == nil {
			r.Required = 0 // whatever it has
		}
	}
	return r, nil
}

func merged(a, b map[string]string) map[string]string {
	if len(a)+len(b) == 0 {
		return nil
	}
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	return all
}

func (d *driver) capability(a asked, facts conn.Facts) (c capability, err error) {
	word := d.c.Access
	if a.Access != nil {
		word = *a.Access
	}
	mode, err := modeOf(word, facts)
	if err != nil {
		return c, err
	}
	c = capability{Access: mode.String(), FS: d.c.FS, Flags: slices.Concat(d.s.flags, a.Mount)}
	if a.FS != nil {
		c.FS = *a.FS
	}
	if a.GID != nil {
		group := strconv.FormatUint(uint64(*a.GID), 10)
		if facts.Node.Has(spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP) {
			c.Group = group
		} else {
			c.Chown = group
		}
	}
	return c, nil
}

// spec is the capability as a call has it.
func (c capability) spec() *spec.VolumeCapability {
	return &spec.VolumeCapability{
		AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: c.FS, MountFlags: c.Flags, VolumeMountGroup: c.Group}},
		AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_Mode(spec.VolumeCapability_AccessMode_Mode_value[c.Access])},
	}
}

// requisite is where the volume is to be made: where the options say, else where this host reaches it.
func requisite(a asked, facts conn.Facts) ([]map[string]string, error) {
	places := facts.Plugin.Has(spec.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
	asks := a.Zone != nil || len(a.topology) > 0
	switch {
	case asks && !places:
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "%s has no zones: its volumes are in no particular place", facts.Name)
	case a.Zone != nil:
		for key := range facts.Topology {
			if last := strings.ToLower(key[strings.LastIndex(key, "/")+1:]); last == "zone" || strings.HasSuffix(last, "zone") {
				return []map[string]string{{key: *a.Zone}}, nil
			}
		}
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "option %q: %s has no zones, its places are told by %s", "zone", facts.Name,
			strings.Join(slices.Sorted(maps.Keys(facts.Topology)), ", ")), "use topology.KEY=VALUE")
	case asks:
		return []map[string]string{a.topology}, nil
	case places && len(facts.Topology) > 0:
		return []map[string]string{facts.Topology}, nil
	}
	return nil, nil
}

func topologies(places []map[string]string) []*spec.Topology {
	var all []*spec.Topology
	for _, p := range places {
		all = append(all, &spec.Topology{Segments: p})
	}
	return all
}

// reachable refuses a volume that this host cannot reach, before anything is done.
func reachable(r record, facts conn.Facts) error {
	if len(r.Topology) == 0 || !facts.Plugin.Has(spec.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS) {
		return nil
	}
	for _, place := range r.Topology {
		fits := true
		for key, value := range place {
			fits = fits && facts.Topology[key] == value
		}
		if fits {
			return nil
		}
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "the volume is in %s, and this host in %s", inWords(r.Topology...), inWords(facts.Topology)),
		"run the container there, or make a snapshot of the volume and a new one of it here: docker volume create -o from=NAME@SNAPSHOT")
}

// inWords is places as people read them.
func inWords(places ...map[string]string) string {
	var all []string
	for _, p := range places {
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(p)) {
			parts = append(parts, key[strings.LastIndex(key, "/")+1:]+" "+p[key])
		}
		all = append(all, cmp.Or(strings.Join(parts, ", "), "no place that it tells"))
	}
	return strings.Join(all, " or ")
}

// same refuses options for a volume that is there and is another one.
func (d *driver) same(r record, a asked) error {
	differs := func(what, is, want string) error {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name whose %s is %s, not %s", what, cmp.Or(is, "none"), want),
			"leave the option out to use that volume, or take another name")
	}
	switch {
	case a.Size != nil && r.Capacity > 0 && int64(*a.Size) > r.Capacity:
		err := differs("size", catalog.Bytes(r.Capacity).String(), a.Size.String())
		return errdefs.Hint(err, fmt.Sprintf("to make it larger: remora volume resize %s %s", r.Name, a.Size))
	case a.FS != nil && r.Capability.FS != *a.FS:
		return differs("fs", r.Capability.FS, *a.FS)
	case a.Access != nil && wordOf(r.Capability.Access) != *a.Access && r.Capability.Access != spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER.String():
		return differs("access", wordOf(r.Capability.Access), *a.Access)
	case a.Subdir != nil && r.Subdir != *a.Subdir:
		return differs("subdir", r.Subdir, *a.Subdir)
	case a.VolumeID != nil && r.ID != *a.VolumeID:
		return differs("volume_id", r.ID, *a.VolumeID)
	case a.Snapshot != nil && (r.Source == nil || r.Source.Snapshot != *a.Snapshot):
		is := ""
		if r.Source != nil {
			is = r.Source.Shown
		}
		return differs("snapshot", is, *a.Snapshot)
	}
	for key, want := range a.parameters {
		if is := r.Parameters[key]; is != want {
			return differs("param."+key, is, want)
		}
	}
	return nil
}
