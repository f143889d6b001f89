package csi

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// errLowered is that a volume went down again before it was bound.
var errLowered = errdefs.Errorf(errdefs.ErrUnavailable, "it was unmounted in between")

// Mount brings the volume up, as a job that goes on where the call cannot wait, and binds it to the engine's mountpoint.
func (d *driver) Mount(ctx context.Context, name, mountpoint string) (string, error) {
	if !filepath.IsAbs(mountpoint) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "target %q: not an absolute path", mountpoint)
	}
	for tries := 0; ; tries++ {
		if there, err := d.standing(ctx, name, mountpoint); there || err != nil {
			return mountpoint, err
		}
		if err := d.do(ctx, jobMount, name, "", nil); err != nil {
			return "", err
		}
		if err := d.bind(ctx, name, mountpoint); !errors.Is(err, errLowered) || tries == 2 {
			return mountpoint, err
		}
	}
}

// standing tells whether the volume is at the mountpoint already, and takes away what is left there of a mount that
// has died.
func (d *driver) standing(ctx context.Context, name, mountpoint string) (bool, error) {
	v, free, err := d.turnOf(ctx, name)
	if err != nil {
		return false, err
	}
	defer free()
	there, err := topmost(mountpoint)
	if err != nil || there == nil {
		return false, err
	}
	_, n := d.store.see(v)
	if n.Mountpoint != mountpoint {
		return false, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "something else is mounted at %s: %s", mountpoint, there.Source), "unmount it: umount "+mountpoint)
	}
	err = d.looks.alive(ctx, mountpoint)
	if err != nil && !errors.Is(err, errDead) {
		return false, err
	}
	target, terr := topmost(filepath.Join(n.Dir, "t"))
	if terr != nil {
		return false, terr
	}
	if err == nil && target != nil && deviceOf(*target) == deviceOf(*there) && n.Phase == phasePublished && n.Doing == "" {
		d.stayed(name)
		return true, nil
	}
	if err := unbind(mountpoint, true); err != nil {
		return false, err
	}
	n.Mountpoint = ""
	return false, d.store.saveNode(v, n)
}

// bind puts a volume that is up at the engine's mountpoint, and calls off its way down.
func (d *driver) bind(ctx context.Context, name, mountpoint string) error {
	v, free, err := d.turnOf(ctx, name)
	if err != nil {
		return err
	}
	defer free()
	r, n := d.store.see(v)
	if n.Phase != phasePublished || n.Doing != "" {
		return errLowered
	}
	n.Mountpoint = mountpoint
	if err := d.store.saveNode(v, n); err != nil {
		return err
	}
	if err := bindTo(filepath.Join(n.Dir, "t"), r.Subdir, mountpoint, r.ReadOnly); err != nil {
		n.Mountpoint = ""
		return errors.Join(err, d.store.saveNode(v, n))
	}
	d.stayed(name)
	return nil
}

// raise is the job: the way up, as far as it is not behind.
func (d *driver) raise(ctx context.Context, r *jobs.Run) error {
	v, free, err := d.turnOf(ctx, r.Object())
	if err != nil {
		return err
	}
	defer free()
	d.stayed(r.Object())
	// Whoever comes to bind it calls that off. Where nobody does, it goes down again.
	defer d.leave(r.Object(), d.unclaimed(v))
	return d.up(ctx, r, v)
}

// unclaimed is how long a volume stays up that nobody comes back for: its engine asks again within that time, or never.
func (d *driver) unclaimed(v *vol) time.Duration { return max(d.detachAfter(v), d.pace.away) }

func (d *driver) detachAfter(v *vol) time.Duration {
	if r, _ := d.store.see(v); r.Detach != nil {
		return *r.Detach
	}
	return d.c.Detach
}

// up brings a volume up. Whoever calls has its turn.
func (d *driver) up(ctx context.Context, r *jobs.Run, v *vol) error {
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	rec, _ := d.store.see(v)
	switch rec.Phase {
	case phaseDeleting:
		return errBeingRemoved
	case phaseNew:
		if err := d.make(ctx, r, v, facts); err != nil {
			return err
		}
		rec, _ = d.store.see(v)
	}
	if err := reachable(rec, facts); err != nil {
		return err
	}
	if rec.undone(callGrow) {
		if err := d.grow(ctx, r, v, rec.Grow, facts); err != nil {
			return err
		}
	}
	if err := d.mend(ctx, r, v, facts); err != nil {
		return err
	}
	fresh, err := d.attach(ctx, r, v, facts)
	if err != nil {
		return err
	}
	err = d.stage(ctx, r, v, facts)
	if err != nil && !fresh && ctx.Err() == nil && attaches(facts) {
		// The attachment is remembered from before. It may have been undone behind our back.
		d.log.WarnContext(ctx, "the volume cannot be staged; it is attached again", slog.String("volume", rec.Name), slog.Any("error", err))
		if aerr := d.reattach(ctx, r, v, facts); aerr != nil {
			return aerr
		}
		err = d.stage(ctx, r, v, facts)
	}
	if err != nil {
		return err
	}
	if err := d.publish(ctx, r, v, facts); err != nil {
		return err
	}
	d.growMounted(ctx, r, v, facts)
	return nil
}

func attaches(f conn.Facts) bool {
	return f.Controller.Has(spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
}

func stages(f conn.Facts) bool {
	return f.Node.Has(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
}

// mend compares what is remembered of the volume on this host with what is mounted. Where that is not what it was, it
// goes down to where it can come up from again.
func (d *driver) mend(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, n := d.store.see(v)
	dir, staging, target := d.pathsOf(rec)
	onTarget, err := topmost(target)
	if err != nil {
		return err
	}
	onStaging, err := topmost(staging)
	if err != nil {
		return err
	}
	n.Dir = dir
	sound := true
	switch {
	case n.idle() && onTarget == nil && onStaging == nil:
		return nil
	case n.idle(): // what was remembered is lost
		n.Phase, sound = phaseStaged, false
		if onTarget != nil {
			n.Phase = phasePublished
		}
		if err := d.store.saveNode(v, n); err != nil {
			return err
		}
	case n.Doing == callUnpublish, n.Doing == callUnstage:
		sound = false
	case n.Phase == phasePublished && onTarget == nil, n.Device != "" && onStaging == nil:
		sound = false
	}
	for path, m := range map[string]bool{target: onTarget != nil, staging: onStaging != nil} {
		if !sound || !m {
			continue
		}
		if err := d.looks.alive(ctx, path); errors.Is(err, errDead) {
			sound = false
		} else if err != nil {
			return err
		}
	}
	if sound {
		return nil
	}
	d.log.WarnContext(ctx, "what was mounted of the volume is not whole any more, and is made anew", slog.String("volume", rec.Name))
	if err := d.lowerNode(ctx, r, v, facts); err != nil {
		return d.asItStands(ctx, v, err)
	}
	return nil
}

// asItStands has a volume be staged again that the CSI driver cannot unstage, and says so, while what is staged is alive: as
// of a driver that has lost track of what serves it. Whoever wants the volume can have it then.
func (d *driver) asItStands(ctx context.Context, v *vol, why error) error {
	rec, n := d.store.see(v)
	if n.Doing != callUnstage || !answered(why) {
		return why
	}
	_, staging, _ := d.pathsOf(rec)
	if m, err := topmost(staging); m == nil || err != nil || d.looks.alive(ctx, staging) != nil {
		return why
	}
	d.log.WarnContext(ctx, "the volume cannot be unstaged; it is staged again as it stands", slog.String("volume", rec.Name), slog.Any("error", why))
	n.Phase, n.Doing = phaseNone, callStage
	return d.store.saveNode(v, n)
}

// attach attaches the volume to this host. fresh tells that the CSI driver was asked.
func (d *driver) attach(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) (fresh bool, err error) {
	rec, _ := d.store.see(v)
	if !attaches(facts) || rec.Phase == phaseAttached && rec.Node == facts.NodeID && rec.Doing == "" {
		return false, nil
	}
	if rec.Node != "" && rec.Node != facts.NodeID {
		// As of a machine that was copied: the other one may use the volume, and what it has is left to it.
		d.log.WarnContext(ctx, "this host has another node ID than when the volume was attached", slog.String("volume", rec.Name),
			slog.String("was", rec.Node), slog.String("is", facts.NodeID))
	}
	if err := d.makeRoom(ctx, r, v, facts); err != nil {
		return false, err
	}
	return true, d.reattach(ctx, r, v, facts)
}

func (d *driver) reattach(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	rec.Doing, rec.Node = callAttach, facts.NodeID
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	if err := r.Step("attaching", nil); err != nil {
		return err
	}
	began := time.Now()
	for wait := d.pace.first; ; wait = min(2*wait, d.pace.last) {
		answer, err := d.callAttach(ctx, r, rec, facts)
		switch {
		case err == nil:
			rec.Phase, rec.Since, rec.Doing, rec.Publish, rec.Problem = phaseAttached, now(), "", answer.GetPublishContext(), ""
			return d.store.save(v, rec)
		case errors.Is(err, errdefs.ErrInUse) && settled(err) && time.Since(began) < d.c.Wait:
			// Another host may be about to let go of it.
			r.Trouble(err)
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
			}
		}
		if settled(err) {
			rec.Phase, rec.Doing, rec.Node, rec.Publish = phaseCreated, "", "", nil
		}
		rec.Problem = errdefs.OneLine(err.Error())
		if errors.Is(err, errdefs.ErrInUse) {
			err = errdefs.Hint(err, "stop the container that uses it there; where that host is gone for good, remora volume attach --force takes the volume from it")
		}
		return errors.Join(err, d.store.save(v, rec))
	}
}

func (d *driver) callAttach(ctx context.Context, r *jobs.Run, rec record, facts conn.Facts) (answer *spec.ControllerPublishVolumeResponse, err error) {
	free, err := d.attaching(ctx, facts)
	if err != nil {
		return nil, err
	}
	defer free()
	err = d.rpc(ctx, r, false, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		answer, err = d.conn.Controller().ControllerPublishVolume(ctx, &spec.ControllerPublishVolumeRequest{
			VolumeId: rec.ID, NodeId: facts.NodeID, VolumeCapability: rec.Capability.spec(), VolumeContext: rec.Context, Secrets: secrets,
			Readonly: d.readOnly(rec) && facts.Controller.Has(spec.ControllerServiceCapability_RPC_PUBLISH_READONLY),
		})
		return err
	})
	return answer, err
}

func (*driver) readOnly(r record) bool { return r.ReadOnly || readOnlyMode(r.Capability.Access) }
