package csi

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// keyForce is the key of a job that takes the volume from whoever has it.
const keyForce = "force"

// Attach brings the volume to this host, and by force takes it from the one that has it.
func (d *driver) Attach(ctx context.Context, name string, force bool) error {
	if _, err := d.visible(name); err != nil {
		return err
	}
	key := ""
	if force {
		key = keyForce
	}
	return d.do(ctx, jobAttach, name, key, nil)
}

// fetch is the job.
func (d *driver) fetch(ctx context.Context, r *jobs.Run) error {
	v, free, err := d.turnOf(ctx, r.Object())
	if err != nil {
		return err
	}
	defer free()
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	if !attaches(facts) {
		return errdefs.Errorf(errdefs.ErrUnsupported, "%s attaches nothing: its volumes are in reach of every host, and none can be kept off", facts.Name)
	}
	rec, _ := d.store.see(v)
	if err := reachable(rec, facts); err != nil {
		return err
	}
	d.stayed(rec.Name)
	defer func() {
		if bound, _ := d.bound(v); !bound {
			d.leave(rec.Name, d.unclaimed(v))
		}
	}()
	if r.Key() == keyForce && rec.Phase != phaseAttached {
		if err := d.take(ctx, r, v, facts); err != nil {
			return err
		}
	}
	_, err = d.attach(ctx, r, v, facts)
	return err
}

// take detaches the volume from the hosts that have it. What they have not written is lost.
func (d *driver) take(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	holders, err := d.holders(ctx, r, rec, facts)
	if errors.Is(err, errdefs.ErrUnsupported) {
		holders = []string{""} // which is all of them (CSI, ControllerUnpublishVolume)
	} else if err != nil {
		return err
	}
	for _, holder := range holders {
		if holder == facts.NodeID {
			continue
		}
		if err := r.Step("taking it from "+holder, nil); err != nil {
			return err
		}
		d.log.WarnContext(ctx, "the volume is taken from another host", slog.String("volume", rec.Name), slog.String("node_id", holder), slog.String("reason", "it was asked for by force"))
		if err := d.callDetach(ctx, r, rec, holder, facts); err != nil {
			return err
		}
	}
	return nil
}

// holders are the nodes that a volume is attached to, as far as the CSI driver tells.
func (d *driver) holders(ctx context.Context, r *jobs.Run, rec record, facts conn.Facts) ([]string, error) {
	switch {
	case facts.Controller.Has(spec.ControllerServiceCapability_RPC_GET_VOLUME):
		var answer *spec.ControllerGetVolumeResponse
		err := d.rpc(ctx, r, false, func(ctx context.Context) (err error) {
			answer, err = d.conn.Controller().ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: rec.ID})
			return err
		})
		return answer.GetStatus().GetPublishedNodeIds(), err
	case facts.Controller.Has(spec.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES) && !facts.Quirks.Has(quirk.NoListVolumes):
		return d.listedHolders(ctx, r, rec)
	}
	return nil, errdefs.Errorf(errdefs.ErrUnsupported, "%s does not tell who has a volume", facts.Name)
}

// maxPages bounds a list whose end does not come.
const maxPages = 10000

func (d *driver) listedHolders(ctx context.Context, r *jobs.Run, rec record) ([]string, error) {
	token := ""
	for range maxPages {
		var page *spec.ListVolumesResponse
		err := d.rpc(ctx, r, false, func(ctx context.Context) (err error) {
			page, err = d.conn.Controller().ListVolumes(ctx, &spec.ListVolumesRequest{StartingToken: token})
			return err
		})
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(page.GetEntries(), func(e *spec.ListVolumesResponse_Entry) bool { return e.GetVolume().GetVolumeId() == rec.ID })
		if i >= 0 {
			return page.GetEntries()[i].GetStatus().GetPublishedNodeIds(), nil
		}
		if token = page.GetNextToken(); token == "" {
			return nil, nil
		}
	}
	return nil, errdefs.Errorf(errdefs.ErrUnavailable, "the list of volumes has no end")
}
