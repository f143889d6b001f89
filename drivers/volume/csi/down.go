package csi

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Unmount takes the volume from the engine's mountpoint and off this host. It is detached a while later, or where there is
// nothing to detach and it may stay, unpublished and unstaged.
func (d *driver) Unmount(ctx context.Context, name, mountpoint string) error {
	v, free, err := d.turnOf(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return unbind(mountpoint, false)
	}
	if err != nil {
		return err
	}
	_, n := d.store.see(v)
	dead := errors.Is(d.looks.alive(ctx, mountpoint), errDead)
	err = unbind(mountpoint, dead)
	if err == nil && n.Mountpoint == mountpoint {
		n.Mountpoint = ""
		err = d.store.saveNode(v, n)
	}
	free()
	if err != nil {
		return err
	}
	if _, n = d.store.see(v); n.idle() || d.lingers(ctx, v) {
		d.leave(name, d.detachAfter(v))
		return nil
	}
	err = d.do(ctx, jobUnmount, name, "", nil)
	if err != nil {
		d.leave(name, retryDown)
		return err
	}
	d.leave(name, d.detachAfter(v))
	return nil
}

// retryDown is how long it takes until a way down that could not be gone is tried again.
const retryDown = 30 * time.Second

// unstage is the job: the way down on this host.
func (d *driver) unstage(ctx context.Context, r *jobs.Run) error {
	v, free, err := d.turnOf(ctx, r.Object())
	if err != nil {
		return err
	}
	defer free()
	if bound, err := d.bound(v); bound || err != nil {
		return err
	}
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	return d.lowerNode(ctx, r, v, facts)
}

// bound tells whether an engine has the volume.
func (d *driver) bound(v *vol) (bool, error) {
	_, n := d.store.see(v)
	if n.Mountpoint == "" {
		return false, nil
	}
	m, err := topmost(n.Mountpoint)
	return m != nil, err
}

// detach is the job: down all the way, if nobody has come meanwhile.
func (d *driver) detach(ctx context.Context, r *jobs.Run) error {
	v, free, err := d.turnOf(ctx, r.Object())
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer free()
	if d.isLeaving(r.Object()) { // somebody came and went while this waited for its turn
		return nil
	}
	if bound, err := d.bound(v); bound || err != nil {
		return err
	}
	if rec, _ := d.store.see(v); rec.Hidden != "" { // whoever wanted it has not come back
		facts, err := d.facts(ctx, r)
		if err != nil {
			return err
		}
		return d.delete(ctx, r, v, facts)
	}
	return d.lower(ctx, r, v)
}

// lower brings the volume off this host, and detaches it. Whoever calls has its turn.
func (d *driver) lower(ctx context.Context, r *jobs.Run, v *vol) error {
	rec, n := d.store.see(v)
	if n.idle() && rec.Phase != phaseAttached && !rec.undone(callAttach, callDetach) {
		return nil
	}
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	if err := d.lowerNode(ctx, r, v, facts); err != nil {
		return err
	}
	return d.unattach(ctx, r, v, facts)
}

// lowerNode takes down what is, or may be, on this host: the target, and when nothing is mounted there any more the
// staging path.
func (d *driver) lowerNode(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, n := d.store.see(v)
	if n.idle() {
		return nil
	}
	dir, staging, target := d.pathsOf(rec)
	n.Dir = dir
	if n.Phase == phasePublished || n.Doing == callPublish || n.Doing == callUnpublish {
		n.Doing = callUnpublish
		if err := d.takeDown(ctx, r, v, n, "unpublishing", target, func(ctx context.Context) error {
			_, err := d.conn.Node().NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: rec.ID, TargetPath: target})
			return err
		}); err != nil {
			return err
		}
		// Where there is nothing to stage, this was the last of it.
		n.Phase, n.Doing = phaseNone, ""
		if stages(facts) {
			n.Phase = phaseStaged
		}
		if n.Phase != phaseNone {
			if err := d.store.saveNode(v, n); err != nil {
				return err
			}
		}
	}
	if n.Phase == phaseStaged || n.Doing == callStage || n.Doing == callUnstage {
		n.Doing = callUnstage
		if err := d.takeDown(ctx, r, v, n, "unstaging", staging, func(ctx context.Context) error {
			_, err := d.conn.Node().NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: rec.ID, StagingTargetPath: staging})
			return err
		}); err != nil {
			return err
		}
		if n.Disk != "" {
			if where, err := mountsOf(n.Disk); err != nil || len(where) > 0 {
				return errors.Join(err, stillMounted(where))
			}
		}
	}
	if err := rmdir(dir); err != nil {
		return err
	}
	return d.store.saveNode(v, node{})
}

func stillMounted(where []string) error {
	if len(where) == 0 {
		return nil
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "the volume is still mounted at %s", strings.Join(where, ", ")), "unmount it there: umount "+where[0])
}

// takeDown makes a call that unmounts what is at a path, and does not believe the answer before nothing is there.
// Several mounts one over the other take several calls.
func (d *driver) takeDown(ctx context.Context, r *jobs.Run, v *vol, n node, step, path string, call func(context.Context) error) error {
	if err := d.store.saveNode(v, n); err != nil {
		return err
	}
	if err := r.Step(step, nil); err != nil {
		return err
	}
	left := -1
	for {
		if err := d.down(ctx, r, call); err != nil {
			if m, _ := topmost(path); m == nil || !answered(err) {
				return err
			}
			if freed, ferr := d.freeDead(ctx, path); !freed || ferr != nil {
				err = errors.Join(err, ferr)
				return errdefs.Hint(err, "it is mounted at "+path+" still; where the CSI driver does not get over that: umount "+path)
			}
			d.log.WarnContext(ctx, "a mount that is dead, and that the CSI driver could not take away, was taken away", slog.String("path", path), slog.Any("error", err))
			continue
		}
		list, err := mount.List(path)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return rmdir(path)
		}
		if left >= 0 && len(list) >= left {
			return stillMounted([]string{list[len(list)-1].Mountpoint})
		}
		left = len(list)
	}
}

// freeDead takes away what is mounted at a path of ours and has died: nothing can be written to it any more, by anybody.
func (d *driver) freeDead(ctx context.Context, path string) (freed bool, err error) {
	for {
		m, err := topmost(path)
		if m == nil || err != nil || !errors.Is(d.looks.alive(ctx, path), errDead) {
			return freed, err
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return false, state.Classify(err)
		}
		freed = true
	}
}

// unattach detaches the volume from this host. It does so only where nothing is mounted of it.
func (d *driver) unattach(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, n := d.store.see(v)
	if rec.Phase != phaseAttached && !rec.undone(callAttach, callDetach) || !attaches(facts) {
		return nil
	}
	dir, _, _ := d.pathsOf(rec)
	list, err := mount.List(dir)
	if err != nil {
		return err
	}
	if len(list) > 0 || !n.idle() {
		return stillMounted([]string{dir})
	}
	if rec.Node == "" { // which would be every host
		return nil
	}
	rec.Doing = callDetach
	if err := d.store.save(v, rec); err != nil {
		return err
	}
	if err := r.Step("detaching", nil); err != nil {
		return err
	}
	if err := d.callDetach(ctx, r, rec, rec.Node, facts); err != nil {
		return err
	}
	rec.Phase, rec.Since, rec.Doing, rec.Node, rec.Publish = phaseCreated, now(), "", "", nil
	return d.store.save(v, rec)
}

func (d *driver) callDetach(ctx context.Context, r *jobs.Run, rec record, nodeID string, facts conn.Facts) error {
	free, err := d.attaching(ctx, facts)
	if err != nil {
		return err
	}
	defer free()
	return d.down(ctx, r, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		_, err = d.conn.Controller().ControllerUnpublishVolume(ctx, &spec.ControllerUnpublishVolumeRequest{VolumeId: rec.ID, NodeId: nodeID, Secrets: secrets})
		return err
	})
}

// leave has a volume go down after a while, unless it is mounted again.
func (d *driver) leave(name string, after time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	if t, ok := d.leaving[name]; ok {
		t.Stop()
	}
	var t *time.Timer
	t = time.AfterFunc(after, func() {
		d.mu.Lock()
		if d.leaving[name] != t {
			d.mu.Unlock()
			return
		}
		delete(d.leaving, name)
		d.mu.Unlock()
		if err := d.jobs.Do(d.ctx, jobDetach, name, "", nil); err != nil && d.ctx.Err() == nil {
			d.log.WarnContext(d.ctx, "a volume that nobody uses cannot be taken off this host; it is tried again", slog.String("volume", name), slog.Any("error", err))
			d.leave(name, retryDown)
		}
	})
	d.leaving[name] = t
}

// stayed calls off the way down to come.
func (d *driver) stayed(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t, ok := d.leaving[name]; ok {
		t.Stop()
		delete(d.leaving, name)
	}
}

func (d *driver) isLeaving(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.leaving[name]
	return ok
}

// makeRoom waits until this host may have another volume. Those that only linger go at once.
func (d *driver) makeRoom(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	if facts.MaxVolumes <= 0 {
		return nil
	}
	me, _ := d.store.see(v)
	for began := time.Now(); ; {
		var idle []string
		n := int64(0)
		for _, o := range d.store.list() {
			if o.Name != me.Name && o.Node == facts.NodeID {
				n++
				if d.isLeaving(o.Name) {
					idle = append(idle, o.Name)
				}
			}
		}
		if n < facts.MaxVolumes {
			return nil
		}
		if time.Since(began) >= d.c.Wait {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%d volumes are attached to this host, and %s takes no more", n, facts.Name), "unmount one that is not needed, or run the container on another host")
		}
		if err := r.Step("waiting for room on this host", nil); err != nil {
			return err
		}
		if i := slices.IndexFunc(idle, d.isLeaving); i >= 0 {
			d.leave(idle[i], 0)
		}
		select {
		case <-time.After(min(d.pace.first, time.Second)):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
	}
}
