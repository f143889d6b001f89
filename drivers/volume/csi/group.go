package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// grouped is what a job is told that makes snapshots of several volumes.
type grouped struct {
	Volumes  []string
	Snapshot string
	Labels   map[string]string
}

func (g grouped) object() string { return strings.Join(g.Volumes, ",") + "@" + g.Snapshot }

// groups tells whether the CSI driver makes snapshots of several volumes at one moment.
func groups(facts conn.Facts) error {
	if facts.Plugin.Has(spec.PluginCapability_Service_GROUP_CONTROLLER_SERVICE) &&
		facts.Group.Has(spec.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT) {
		return nil
	}
	return errdefs.Errorf(errdefs.ErrUnsupported, "%s makes no snapshots of several volumes at once", facts.Name)
}

// CreateSnapshots has the storage make snapshots of several volumes at one moment, by one call.
func (d *driver) CreateSnapshots(ctx context.Context, names []string, snapshot string, labels map[string]string) error {
	facts, err := d.factsNow(ctx)
	if err == nil {
		err = groups(facts)
	}
	if err != nil {
		return err
	}
	g := grouped{slices.Sorted(slices.Values(names)), snapshot, labels}
	return d.do(ctx, jobGroup, g.object(), "", g)
}

// groupJob is the job.
func (d *driver) groupJob(ctx context.Context, r *jobs.Run) error {
	var want grouped
	if err := r.Load(&want); err != nil {
		return err
	}
	facts, err := d.facts(ctx, r)
	if err == nil {
		err = groups(facts)
	}
	if err != nil {
		return err
	}
	free, err := d.grouping.take(ctx)
	if err != nil {
		return err
	}
	defer free()
	g, err := d.groupOf(ctx, r, want, facts)
	if err != nil {
		return err
	}
	if g, err = d.shootGroup(ctx, r, g, facts); err != nil {
		return err
	}
	for _, n := range g.Members {
		if _, err := d.complete(ctx, r, n, facts, soon); err != nil {
			return err
		}
	}
	return nil
}

// groupOf is the record of snapshots that are to be made. What an earlier call has left of them is deleted.
func (d *driver) groupOf(ctx context.Context, r *jobs.Run, want grouped, facts conn.Facts) (group, error) {
	g := group{Name: digest("group", nonce()), Created: now(), Doing: callGroup}
	g.CSIName = nameOf(d.c.Namespace, "group", g.Name)
	wrong := func(name string, err error) (group, error) { return g, fmt.Errorf("volume %q: %w", name, err) }
	for i, name := range want.Volumes {
		rec, err := d.visible(name)
		if err != nil {
			return wrong(name, err)
		}
		n, there := d.store.findSnapshot(rec.Lineage, want.Snapshot)
		switch {
		case there && n.Doing == callGroup:
			if err := d.clearGroup(ctx, r, n.Group, facts); err != nil {
				return wrong(name, err)
			}
		case there && n.Doing != "":
			return wrong(name, errdefs.Errorf(errdefs.ErrUnavailable, "a snapshot of this name is being made or deleted"))
		case there:
			return wrong(name, errdefs.Errorf(errdefs.ErrExists, "there is a snapshot of this name"))
		}
		n = d.shot(rec, want.Snapshot, want.Labels)
		if i > 0 && optionsKey(n.Params) != optionsKey(g.Params) {
			return g, errdefs.Errorf(errdefs.ErrUnsupported, "the volumes have different parameters of snapshots")
		}
		n.Group, n.Doing, n.CSIName, n.Created = g.Name, callGroup, "", g.Created
		g.Params = n.Params
		g.Sources = append(g.Sources, rec.ID)
		g.Members = append(g.Members, n)
	}
	return g, nil
}

// shootGroup makes the snapshots. As with a single one, what a lost call has made is not trusted.
func (d *driver) shootGroup(ctx context.Context, r *jobs.Run, g group, facts conn.Facts) (group, error) {
	for _, n := range g.Members {
		if err := d.flush(ctx, n.Volume); err != nil {
			return g, err
		}
	}
	if err := d.store.changeGroup(g.Name, func(to *group) { *to = g }); err != nil {
		return g, err
	}
	if err := r.Step("making the snapshots", nil); err != nil {
		return g, err
	}
	var answer *spec.VolumeGroupSnapshot
	var err error
	for range maxSuspects {
		if answer, err = d.callGroup(ctx, r, g, g.CSIName, true, facts); !isDoubtful(err) {
			break
		}
		d.log.WarnContext(ctx, "the answer to snapshots was lost; they are not trusted, and made anew", slog.Any("volumes", g.Sources), slog.Any("error", err))
		g.Suspects = append(slices.Clone(g.Suspects), suspect{CSIName: g.CSIName})
		g.CSIName = nameOf(d.c.Namespace, "group", g.Name, nonce())
		if serr := d.store.changeGroup(g.Name, func(to *group) { to.CSIName, to.Suspects = g.CSIName, g.Suspects }); serr != nil {
			return g, errors.Join(serr, err)
		}
	}
	if err == nil {
		if err = g.accept(answer, facts); err == nil {
			err = d.store.changeGroup(g.Name, func(to *group) { *to = g })
			if err == nil {
				d.clearGroupSuspects(ctx, r, g, facts)
			}
			return g, err
		}
	}
	if settled(err) && len(g.Suspects) == 0 {
		if code := conn.CodeOf(err); code == codes.FailedPrecondition || code == codes.Unimplemented {
			d.log.WarnContext(ctx, "the storage cannot make snapshots of these volumes at one moment", slog.Any("volumes", g.Sources), slog.Any("error", err))
			err = errdefs.Errorf(errdefs.ErrUnsupported, "%w", errors.New(err.Error()))
		}
		return g, errors.Join(err, d.store.dropGroup(g.Name))
	}
	if cerr := d.clearGroup(ctx, r, g.Name, facts); cerr != nil {
		d.log.WarnContext(ctx, "what may be left of snapshots cannot be deleted yet", slog.String("csi_name", g.CSIName), slog.Any("error", cerr))
	}
	return g, err
}

// accept takes the answer over, if it has one snapshot of each volume.
func (g *group) accept(answer *spec.VolumeGroupSnapshot, facts conn.Facts) error {
	if answer.GetGroupSnapshotId() == "" {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s says that it has made snapshots, and not which", facts.Name)
	}
	made := *g
	made.ID, made.Doing, made.IDs, made.Members = answer.GetGroupSnapshotId(), "", nil, slices.Clone(g.Members)
	for i := range made.Members {
		n := &made.Members[i]
		at := slices.IndexFunc(answer.GetSnapshots(), func(s *spec.Snapshot) bool {
			return s.GetSourceVolumeId() == n.Source && s.GetSnapshotId() != ""
		})
		if at < 0 || len(answer.GetSnapshots()) != len(g.Members) {
			return errdefs.Errorf(errdefs.ErrUnavailable, "%s answers with %d snapshots, and none of volume %q", facts.Name, len(answer.GetSnapshots()), n.Source)
		}
		s := answer.GetSnapshots()[at]
		n.ID, n.Size, n.Ready, n.Doing = s.GetSnapshotId(), s.GetSizeBytes(), s.GetReadyToUse(), ""
		made.IDs = append(made.IDs, n.ID)
	}
	*g = made
	return nil
}

// callGroup asks for the snapshots of a name, as the only call for their volumes.
func (d *driver) callGroup(ctx context.Context, r *jobs.Run, g group, name string, copies bool, facts conn.Facts) (answer *spec.VolumeGroupSnapshot, err error) {
	free, err := d.making(ctx, facts)
	if err != nil {
		return nil, err
	}
	defer free()
	err = d.rpc(ctx, r, copies, func(ctx context.Context) error {
		for _, id := range slices.Sorted(slices.Values(g.Sources)) { // in one order; whoever has a turn asks for none of another one here
			free, err := d.turnOfID(ctx, id)
			if err != nil {
				return err
			}
			defer free()
		}
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		resp, err := d.conn.Group().CreateVolumeGroupSnapshot(ctx, &spec.CreateVolumeGroupSnapshotRequest{
			Name: name, SourceVolumeIds: g.Sources, Secrets: secrets, Parameters: g.Params,
		})
		answer = resp.GetGroupSnapshot()
		return err
	})
	return answer, err
}

func (d *driver) callUngroup(ctx context.Context, r *jobs.Run, id string, snapshots []string) error {
	return d.down(ctx, r, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		_, err = d.conn.Group().DeleteVolumeGroupSnapshot(ctx, &spec.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: id, SnapshotIds: snapshots, Secrets: secrets})
		return err
	})
}

// clearGroup deletes what may be there of snapshots that were cut off. Whoever calls is the only one who makes any.
func (d *driver) clearGroup(ctx context.Context, r *jobs.Run, name string, facts conn.Facts) error {
	g, ok := d.store.findGroup(name)
	if !ok || g.whole() {
		return nil
	}
	for _, s := range append(slices.Clone(g.Suspects), suspect{g.CSIName}) {
		if err := d.clearGroupOf(ctx, r, g, s.CSIName, facts); err != nil {
			return err
		}
	}
	return d.store.dropGroup(name)
}

// clearGroupOf learns the ID of what may be there, in the only way that there is, and deletes it.
func (d *driver) clearGroupOf(ctx context.Context, r *jobs.Run, g group, name string, facts conn.Facts) error {
	answer, err := d.callGroup(ctx, r, g, name, false, facts)
	if settled(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var ids []string
	for _, s := range answer.GetSnapshots() {
		ids = append(ids, s.GetSnapshotId())
	}
	return d.callUngroup(ctx, r, answer.GetGroupSnapshotId(), ids)
}

// clearGroupSuspects deletes what is not trusted, while the group itself is whole.
func (d *driver) clearGroupSuspects(ctx context.Context, r *jobs.Run, g group, facts conn.Facts) {
	for len(g.Suspects) > 0 {
		err := d.clearGroupOf(ctx, r, g, g.Suspects[0].CSIName, facts)
		if err == nil {
			g.Suspects = slices.Clone(g.Suspects[1:])
			err = d.store.changeGroup(g.Name, func(to *group) { to.Suspects = g.Suspects })
		}
		if err != nil {
			d.log.WarnContext(ctx, "what may be left of snapshots cannot be deleted yet", slog.String("csi_name", g.Suspects[0].CSIName), slog.Any("error", err))
			return
		}
	}
}

// lookGroup asks how far one of the snapshots is.
func (d *driver) lookGroup(ctx context.Context, r *jobs.Run, n snapshot) (answer *spec.Snapshot, err error) {
	g, ok := d.store.findGroup(n.Group)
	if !ok {
		return nil, errNoSnapshot
	}
	err = d.rpc(ctx, r, false, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		resp, err := d.conn.Group().GetVolumeGroupSnapshot(ctx, &spec.GetVolumeGroupSnapshotRequest{GroupSnapshotId: g.ID, SnapshotIds: g.IDs, Secrets: secrets})
		for _, s := range resp.GetGroupSnapshot().GetSnapshots() {
			if s.GetSnapshotId() == n.ID {
				answer = s
			}
		}
		return err
	})
	return answer, err
}

// unshootMember removes one of the snapshots. The storage deletes them together, with the last of them: until then it
// keeps what this one holds.
func (d *driver) unshootMember(ctx context.Context, r *jobs.Run, n snapshot) error {
	if n.Doing == callGroup {
		return errBeingGrouped
	}
	last, err := d.store.leaveGroup(n)
	if !last || err != nil {
		return err
	}
	g, ok := d.store.findGroup(n.Group)
	if !ok {
		return nil
	}
	if len(g.Suspects) > 0 {
		return errBeingGrouped
	}
	n.Doing = callUnsnapshot
	if err := d.store.saveMember(n); err != nil {
		return err
	}
	if err := r.Step("deleting the snapshots of several volumes", nil); err != nil {
		return err
	}
	if err := d.callUngroup(ctx, r, g.ID, g.IDs); err != nil {
		if settled(err) { // they stay, and this one can be used
			n.Doing = ""
			err = errors.Join(err, d.store.saveMember(n))
		}
		return err
	}
	return d.store.dropGroup(g.Name)
}

var errBeingGrouped = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "a snapshot of it, made together with those of other volumes, was cut off, and is being deleted"), "try again in a while")

// mendGroups deletes what was cut off, of a volume or of all. Whoever calls has no turn.
func (d *driver) mendGroups(ctx context.Context, r *jobs.Run, lineage string) error {
	if len(d.store.halves(lineage)) == 0 {
		return nil
	}
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	free, err := d.grouping.take(ctx)
	if err != nil {
		return err
	}
	defer free()
	for _, g := range d.store.halves(lineage) {
		if g.whole() {
			d.clearGroupSuspects(ctx, r, g, facts)
		} else if err := d.clearGroup(ctx, r, g.Name, facts); err != nil {
			return err
		}
	}
	return nil
}

// mendGroupsJob is the job, for what a process before this one has left.
func (d *driver) mendGroupsJob(ctx context.Context, r *jobs.Run) error {
	return d.mendGroups(ctx, r, "")
}
