package csi

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Volumes yields the volumes as they are remembered. The CSI driver is never asked.
func (d *driver) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		for _, r := range d.store.list() {
			if r.Hidden == "" && !yield(d.info(r), nil) {
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
	r, _ := d.store.see(v)
	return d.info(r), nil
}

// Status implements [volume.Stater].
func (d *driver) Status(name string) (map[string]any, bool) {
	v, ok := d.store.find(name)
	if !ok {
		return nil, false
	}
	r, _ := d.store.see(v)
	return d.info(r).Status, true
}

// info makes what the Handler sees of a volume.
func (d *driver) info(r record) volume.Info {
	status := map[string]any{"state": r.Phase, "access": wordOf(r.Capability.Access), "origin": r.Origin}
	if f, ok := d.conn.Last(); ok {
		status["csi_driver"] = f.Name
	}
	for key, value := range map[string]string{
		"volume_id": r.ID, "csi_name": r.CSIName, "fs": r.Capability.FS, "subdir": r.Subdir, "node_id": r.Node, "doing": r.Doing, "problem": r.Problem,
	} {
		if value != "" {
			status[key] = value
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
	if v, ok := d.store.find(r.Name); ok {
		if _, n := d.store.see(v); n.Phase != phaseNone {
			status["state"] = n.Phase
		}
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
func (d *driver) visible(name string) (*vol, record, error) {
	v, err := d.get(name)
	if err != nil {
		return nil, record{}, err
	}
	r, _ := d.store.see(v)
	switch r.Phase {
	case phaseDeleting:
		return v, r, errBeingRemoved
	case phaseNew:
		return v, r, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "it is not made yet"), "create it again to wait for that, or remove it")
	}
	return v, r, nil
}
