package csi

import (
	"context"
	"errors"
	"os"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// stage has the CSI driver bring the file system to the staging path.
func (d *driver) stage(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, n := d.store.see(v)
	if !stages(facts) || n.Phase == phaseStaged && n.Doing != callStage || n.Phase == phasePublished {
		return nil
	}
	dir, staging, _ := d.pathsOf(rec)
	if m, err := topmost(staging); err != nil {
		return err
	} else if m == nil {
		if err := empty(staging); err != nil {
			return err
		}
	}
	n.Dir, n.Phase, n.Doing = dir, phaseNone, callStage
	if err := d.store.saveNode(v, n); err != nil {
		return err
	}
	// Not before that is written down: a directory of which nothing is known stays for ever.
	if err := os.MkdirAll(staging, 0o750); err != nil {
		return state.Classify(err)
	}
	if err := r.Step("staging", nil); err != nil {
		return err
	}
	err := d.rpc(ctx, r, false, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		_, err = d.conn.Node().NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{
			VolumeId: rec.ID, PublishContext: rec.Publish, StagingTargetPath: staging, VolumeCapability: rec.Capability.spec(),
			Secrets: secrets, VolumeContext: rec.Context,
		})
		return err
	})
	if err != nil {
		return d.notUp(v, rec, n, err)
	}
	if facts.Quirks.Has(quirk.ForgetsGrowth) && growsHere(facts) && rec.Grown && !rec.GrowNode {
		rec.GrowNode, rec.Grow = true, rec.Capacity
		if err := d.store.save(v, rec); err != nil {
			return err
		}
	}
	n.Phase, n.Doing, n.Device, n.Disk = phaseStaged, "", "", ""
	if m, err := topmost(staging); err == nil && m != nil {
		n.Device = deviceOf(*m)
		if all, err := mountsOf(n.Device); err == nil && len(all) == 1 && m.Root == "/" && m.Major != 0 {
			n.Disk = n.Device
			if rec.SeenFS != m.FSType {
				rec.SeenFS = m.FSType
				if err := d.store.save(v, rec); err != nil {
					return err
				}
			}
		}
	}
	return d.store.saveNode(v, n)
}

// notUp writes down that a step on this host was refused: where it is sure that nothing came of it, nothing is left
// to undo.
func (d *driver) notUp(v *vol, rec record, n node, err error) error {
	if !settled(err) {
		return err
	}
	_, staging, target := d.pathsOf(rec)
	n.Doing = ""
	if n.Phase == phaseNone {
		for _, path := range []string{target, staging, n.Dir} {
			if rerr := rmdir(path); rerr != nil {
				return errors.Join(err, rerr)
			}
		}
	}
	return errors.Join(err, d.store.saveNode(v, n))
}

// publish has the CSI driver bring the file system to the target path, which is once for this host: its containers share
// it.
func (d *driver) publish(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, n := d.store.see(v)
	if n.Phase == phasePublished && n.Doing == "" {
		return nil
	}
	dir, staging, target := d.pathsOf(rec)
	if m, err := topmost(target); err != nil {
		return err
	} else if m == nil {
		if err := errors.Join(empty(target)); err != nil {
			return err
		}
	}
	n.Dir, n.Doing = dir, callPublish
	if err := d.store.saveNode(v, n); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return state.Classify(err)
	}
	if err := r.Step("publishing", nil); err != nil {
		return err
	}
	if !stages(facts) {
		staging = ""
	}
	err := d.rpc(ctx, r, false, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		_, err = d.conn.Node().NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{
			VolumeId: rec.ID, PublishContext: rec.Publish, StagingTargetPath: staging, TargetPath: target,
			VolumeCapability: rec.Capability.spec(), Readonly: d.readOnly(rec), Secrets: secrets, VolumeContext: rec.Context,
		})
		return err
	})
	if err != nil {
		return d.notUp(v, rec, n, err)
	}
	m, err := topmost(target)
	if err != nil {
		return err
	}
	if m == nil {
		err := errdefs.Errorf(errdefs.ErrUnavailable, "%s says that the volume is published, and nothing is mounted at %s", facts.Name, target)
		return errdefs.Hint(err, "the CSI driver runs in a mount namespace of its own: it has to have "+d.dir+" at the same path, bound with rshared")
	}
	n.Phase, n.Doing = phasePublished, ""
	if err := d.store.saveNode(v, n); err != nil {
		return err
	}
	if rec.Capability.Chown != "" {
		d.chownEmpty(rec, target)
	}
	return nil
}
