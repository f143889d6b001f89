package csi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Ping asks the CSI driver whether it is ready.
func (d *driver) Ping(ctx context.Context) error {
	err := d.conn.Ping(ctx)
	if err == nil {
		return nil
	}
	// Where it does not run, why it does not says more than that nobody listens.
	if s := d.run.State(); s.Error != "" && s.Status != launch.Running && s.Status != launch.Elsewhere {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the CSI driver does not run: %s", s.Error), "correct its keys in the pool, or what it says is wrong")
	}
	return err
}

// About says which CSI driver this is, and what it calls this host.
func (d *driver) About() string {
	f, ok := d.conn.Last()
	if !ok {
		return ""
	}
	parts := []string{strings.TrimSpace("CSI driver " + f.Name + " " + f.Version)}
	if f.NodeID != "" {
		parts = append(parts, "node "+f.NodeID)
	}
	for _, k := range slices.Sorted(maps.Keys(f.Topology)) {
		parts = append(parts, k+"="+f.Topology[k])
	}
	return strings.Join(parts, ", ")
}

// Advice says what is known against the CSI driver.
func (d *driver) Advice() catalog.Advice {
	f, ok := d.conn.Last()
	if !ok {
		return catalog.Advice{}
	}
	var names []string
	for _, e := range f.Quirks.Entries() {
		if !slices.Contains(names, string(e.ID)) {
			names = append(names, string(e.ID))
		}
	}
	if len(names) == 0 {
		return catalog.Advice{}
	}
	a := catalog.Advice{Text: fmt.Sprintf("known of %s: %s (\"remora csi quirks %s\" tells more)", f.Name, strings.Join(names, ", "), f.Name)}
	if f.Quirks.Has(quirk.StealsDisks) {
		a.Mend = "mount no volume of it at two hosts: it takes a disk from the host that has it, and does not ask"
	}
	return a
}
