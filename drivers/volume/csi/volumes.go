package csi

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Volumes yields the volumes as they are remembered. The CSI driver is never asked.
func (d *driver) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		facts, _ := d.conn.Last()
		for _, v := range d.store.all() {
			if r, n := d.store.see(v); r.Hidden == "" && !d.store.gone(v) && !yield(d.info(r, n, facts), nil) {
				return
			}
		}
	}
}

// Inspect returns one volume as Volumes would yield it.
func (d *driver) Inspect(_ context.Context, name string) (volume.Info, error) {
	v, err := d.get(name)
	if err != nil {
		return volume.Info{}, err
	}
	r, n := d.store.see(v)
	facts, _ := d.conn.Last()
	return d.info(r, n, facts), nil
}

// Status implements [volume.Stater].
func (d *driver) Status(name string) (map[string]any, bool) {
	v, ok := d.store.find(name)
	if !ok {
		return nil, false
	}
	r, n := d.store.see(v)
	facts, _ := d.conn.Last()
	return d.info(r, n, facts).Status, true
}

// info makes what the Handler sees of a volume.
func (d *driver) info(r record, n node, facts conn.Facts) volume.Info {
	status := map[string]any{"state": r.Phase, "access": wordOf(r.Capability.Access), "origin": r.Origin}
	for _, one := range [...][2]string{
		{"csi_driver", facts.Name},
		{"volume_id", r.ID},
		{"csi_name", r.CSIName},
		{"fs", r.Capability.FS},
		{"subdir", r.Subdir},
		{"node_id", r.Node},
		{"doing", r.Doing},
		{"problem", r.Problem},
	} {
		if one[1] != "" {
			status[one[0]] = one[1]
		}
	}
	if r.Capacity > 0 {
		status["size"] = catalog.Bytes(r.Capacity).String()
	}
	if len(r.Topology) > 0 {
		status["place"] = inWords(r.Topology...)
	}
	if r.Source != nil {
		status["from"] = r.Source.Shown
	}
	if !r.ours() {
		status["reclaim"] = "retain"
	}
	if n.Phase != phaseNone {
		status["state"] = n.Phase
	}
	if j, ok := d.jobs.Of(r.Name); ok {
		status["job"] = fmt.Sprintf("%s: %s since %s", j.Kind, j.State, j.Since.UTC().Format(time.RFC3339))
		if j.Error != "" {
			status["problem"] = j.Error
		}
	}
	return volume.Info{Name: r.Name, CreatedAt: r.Created, Options: r.Options, Status: status}
}

// visible returns a volume that is one to the engine.
func (d *driver) visible(name string) (record, error) {
	v, err := d.get(name)
	if err != nil {
		return record{}, err
	}
	r, _ := d.store.see(v)
	switch r.Phase {
	case phaseDeleting:
		return r, errBeingRemoved
	case phaseNew:
		return r, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "it is not made yet"), "create it again to wait for that, or remove it")
	}
	return r, nil
}
