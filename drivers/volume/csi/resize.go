package csi

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// growsAtStorage tells whether the CSI driver makes volumes larger, growsHere whether a host has a part in that.
func growsAtStorage(f conn.Facts) bool {
	return f.Controller.Has(spec.ControllerServiceCapability_RPC_EXPAND_VOLUME)
}

func growsHere(f conn.Facts) bool {
	return f.Node.Has(spec.NodeServiceCapability_RPC_EXPAND_VOLUME)
}

// Resize makes the volume larger, and its file system: at once where it is mounted, else with the next mount.
func (d *driver) Resize(ctx context.Context, name string, size int64) error {
	rec, err := d.visible(name)
	if err != nil {
		return err
	}
	if size < rec.Capacity {
		err := errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s that it has, and CSI makes nothing smaller", catalog.Bytes(size), catalog.Bytes(rec.Capacity))
		return errdefs.Hint(err, "make a smaller volume and copy the data")
	}
	return d.do(ctx, jobResize, name, catalog.Bytes(size).String(), size)
}

// resize is the job.
func (d *driver) resize(ctx context.Context, r *jobs.Run) error {
	var size int64
	if err := r.Load(&size); err != nil {
		return err
	}
	v, free, err := d.turnOf(ctx, r.Object())
	if err != nil {
		return err
	}
	defer free()
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	switch {
	case growsAtStorage(facts):
		return d.growAgain(ctx, r, v, size, facts)
	case growsHere(facts):
		return d.growHereAlone(ctx, r, v, size, facts)
	}
	return errdefs.Errorf(errdefs.ErrUnsupported, "%s cannot change the size of a volume", facts.Name)
}

// growHereAlone is for a CSI driver whose hosts make volumes larger, and not its controller. One that is not mounted is
// brought up for it, and goes down as after any mount.
func (d *driver) growHereAlone(ctx context.Context, r *jobs.Run, v *vol, size int64, facts conn.Facts) error {
	rec, n := d.store.see(v)
	if rec.Capacity >= size && !rec.GrowNode {
		return nil
	}
	if err := d.mayGrow(ctx, v, facts); err != nil {
		return err
	}
	if n.Phase != phasePublished || n.Doing != "" {
		d.stayed(rec.Name)
		defer d.leave(rec.Name, d.detachAfter(v))
		if err := d.up(ctx, r, v); err != nil {
			return err
		}
		rec, _ = d.store.see(v)
	}
	rec.Grow, rec.GrowNode = max(rec.Grow, size), true
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	err := d.growHere(ctx, r, v, facts)
	if settled(err) {
		rec.Grow, rec.GrowNode = 0, false
		return errors.Join(err, d.store.save(v, rec))
	}
	if rec, _ = d.store.see(v); err == nil && rec.Capacity < size {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s says that it is done, and that the volume has %s", facts.Name, catalog.Bytes(rec.Capacity))
	}
	return err
}

// growAgain does what is left to do until a volume has a size. Whoever calls has its turn.
func (d *driver) growAgain(ctx context.Context, r *jobs.Run, v *vol, size int64, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	if rec.Capacity >= size && !rec.undone(callGrow) && !rec.GrowNode {
		return nil
	}
	if err := d.mayGrow(ctx, v, facts); err != nil {
		return err
	}
	if rec.Capacity < size || rec.undone(callGrow) {
		if err := d.grow(ctx, r, v, size, facts); err != nil {
			return err
		}
	}
	return d.growHere(ctx, r, v, facts)
}

// mayGrow refuses what would leave the volume in a state in which it cannot be used.
func (d *driver) mayGrow(ctx context.Context, v *vol, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	if strings.HasPrefix(rec.SeenFS, "ext") && growsHere(facts) {
		if err := d.permitted(ctx, facts); err != nil {
			return err
		}
	}
	bound, err := d.bound(v)
	if err != nil {
		return err
	}
	offline := facts.Expansion.Has(spec.PluginCapability_VolumeExpansion_OFFLINE) && !facts.Expansion.Has(spec.PluginCapability_VolumeExpansion_ONLINE)
	if offline && bound {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "%s makes only larger what is not mounted", facts.Name), "stop the containers that use it, and ask again")
	}
	return nil
}

// grow makes the volume larger at the storage.
func (d *driver) grow(ctx context.Context, r *jobs.Run, v *vol, size int64, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	if offline := facts.Expansion.Has(spec.PluginCapability_VolumeExpansion_OFFLINE) && !facts.Expansion.Has(spec.PluginCapability_VolumeExpansion_ONLINE); offline {
		if err := d.lower(ctx, r, v); err != nil {
			return err
		}
		rec, _ = d.store.see(v)
	}
	rec.Doing, rec.Grow = callGrow, size
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	if err := r.Step("making it larger", nil); err != nil {
		return err
	}
	free, err := d.making(ctx, facts)
	if err != nil {
		return err
	}
	defer free()
	var answer *spec.ControllerExpandVolumeResponse
	err = d.rpc(ctx, r, false, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		answer, err = d.conn.Controller().ControllerExpandVolume(ctx, &spec.ControllerExpandVolumeRequest{
			VolumeId: rec.ID, CapacityRange: &spec.CapacityRange{RequiredBytes: size}, Secrets: secrets, VolumeCapability: rec.Capability.spec(),
		})
		return err
	})
	if err != nil {
		if settled(err) {
			rec.Doing, rec.Grow = "", 0
			err = errors.Join(err, d.store.save(v, rec))
		}
		return err
	}
	rec.Doing, rec.Required, rec.Grown = "", max(rec.Required, size), true
	rec.Capacity = max(rec.Capacity, answer.GetCapacityBytes())
	if answer.GetCapacityBytes() == 0 {
		rec.Capacity = size
	}
	if rec.GrowNode = answer.GetNodeExpansionRequired() && growsHere(facts); !rec.GrowNode {
		rec.Grow = 0
	}
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	if rec.Capacity < size {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s says that it is done, and that the volume has %s", facts.Name, catalog.Bytes(rec.Capacity))
	}
	return nil
}

// growHere does this host's part of making a volume larger, where it is up.
func (d *driver) growHere(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, n := d.store.see(v)
	if !rec.GrowNode || n.Phase != phasePublished || n.Doing != "" {
		return nil
	}
	if err := r.Step("making the file system larger", nil); err != nil {
		return err
	}
	staging := ""
	if stages(facts) {
		staging = filepath.Join(n.Dir, "s")
	}
	var answer *spec.NodeExpandVolumeResponse
	err := d.rpc(ctx, r, false, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		answer, err = d.conn.Node().NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{
			VolumeId: rec.ID, VolumePath: filepath.Join(n.Dir, "t"), StagingTargetPath: staging, Secrets: secrets,
			CapacityRange: &spec.CapacityRange{RequiredBytes: rec.Grow}, VolumeCapability: rec.Capability.spec(),
		})
		return err
	})
	if err != nil {
		return err
	}
	if !growsAtStorage(facts) { // else its answer is the size of the file system
		has := answer.GetCapacityBytes()
		if has == 0 {
			has = rec.Grow
		}
		rec.Required, rec.Capacity, rec.Grown = max(rec.Required, rec.Grow), max(rec.Capacity, has), true
	}
	rec.GrowNode, rec.Grow = false, 0
	return d.store.save(v, rec)
}

// remindTime is how long a mount waits for a CSI driver to be told again how large a volume is.
const remindTime = 5 * time.Second

// growMounted is growHere for a mount, which is not to fail for it.
func (d *driver) growMounted(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) {
	if facts.Quirks.Has(quirk.ForgetsGrowth) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, remindTime)
		defer cancel()
	}
	if err := d.growHere(ctx, r, v, facts); err != nil {
		d.log.WarnContext(ctx, "the file system could not be made as large as its volume", slog.String("volume", r.Object()), slog.Any("error", err))
	}
}
