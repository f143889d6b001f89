package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Create makes the volume, or takes the one that has the name.
func (d *driver) Create(ctx context.Context, name string, opts map[string]string) error {
	a, err := decode(opts)
	if err != nil {
		return err
	}
	if v, ok := d.store.find(name); ok {
		if r, _ := d.store.see(v); r.Phase != phaseNew && r.Phase != phaseDeleting {
			return d.same(r, a)
		}
	}
	return d.do(ctx, jobCreate, name, optionsKey(a.plain), a.plain)
}

// optionsKey is the same for the same options.
func optionsKey(opts map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		parts = append(parts, k, opts[k])
	}
	return digest(parts...)
}

// create is the job.
func (d *driver) create(ctx context.Context, r *jobs.Run) error {
	var opts map[string]string
	if err := r.Load(&opts); err != nil {
		return err
	}
	a, err := decode(opts)
	if err != nil {
		return err
	}
	name := r.Object()
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	v, free, err := d.turnOf(ctx, name)
	if err == nil {
		rec, _ := d.store.see(v)
		if rec.Phase == phaseDeleting {
			err = d.delete(ctx, r, v, facts)
			free()
			if err != nil {
				return err
			}
		} else {
			defer free()
			return d.takeUp(ctx, r, v, a, facts)
		}
	} else if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	rec, err := d.request(name, a, facts)
	if err != nil {
		return err
	}
	if rec.Origin == static {
		return d.admit(ctx, r, rec, facts)
	}
	return d.bear(ctx, r, rec, facts)
}

// takeUp goes on with a volume that is there, or may be.
func (d *driver) takeUp(ctx context.Context, r *jobs.Run, v *vol, a asked, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	if rec.Phase != phaseNew {
		return d.same(rec, a)
	}
	if len(a.plain) > 0 && !maps.Equal(a.shown(), rec.Options) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "a volume of this name was begun with other options, and may be there"), "remove it, then create it again")
	}
	return d.make(ctx, r, v, facts)
}

// bear makes a volume of which there is no record yet.
func (d *driver) bear(ctx context.Context, r *jobs.Run, rec record, facts conn.Facts) error {
	if !facts.Controller.Has(spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "%s makes no volumes", facts.Name),
			"name one that the storage has: docker volume create -o volume_id=ID -o context.KEY=VALUE")
	}
	rec.Doing = callCreate
	v, err := d.store.begin(rec)
	if err != nil {
		return err
	}
	free, err := v.take(ctx)
	if err != nil {
		return err
	}
	defer free()
	return d.make(ctx, r, v, facts)
}

// make has the volume of a record be made: its intent is written down. Whoever calls has its turn.
func (d *driver) make(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	rec, _ := d.store.see(v)
	if rec.Source != nil && v.cut {
		// Nobody knows how far the call before this one came: the copy of its name may be half of one.
		if err := d.suspect(v); err != nil {
			return err
		}
	}
	v.cut = false
	if rec, _ = d.store.see(v); rec.CSIName == "" { // it was being removed
		rec.CSIName, rec.Doing = nameOf(d.c.Namespace, "volume", rec.Name, nonce()), callCreate
		if err := d.store.save(v, rec); err != nil {
			return err
		}
	}
	var answer *spec.Volume
	var err error
	for range maxSuspects {
		if answer, err = d.callCreate(ctx, r, v, facts); !isDoubtful(err) {
			break
		}
		d.log.WarnContext(ctx, "the answer to a copy was lost; it is not trusted, and made anew", slog.String("volume", r.Object()), slog.Any("error", err))
		if serr := d.suspect(v); serr != nil {
			return errors.Join(serr, err)
		}
	}
	if err == nil {
		err = d.accept(v, answer)
		if err == nil {
			_ = d.clearSuspects(ctx, r, v, facts) // told there, and nothing that the volume needs
			d.dropTemp(ctx, r, rec.Name)
			return nil
		}
		if !errors.Is(err, errdefs.ErrExists) {
			return err
		}
		// Of this name alone can nobody else have made it.
		if rec, _ = d.store.see(v); rec.CSIName != nameOf(d.c.Namespace, "volume", rec.Name) && rec.Origin == created {
			err = errors.Join(err, d.callDelete(ctx, r, answer.GetVolumeId()))
		}
		return errors.Join(err, d.store.drop(v))
	}
	switch {
	case settled(err):
		// There is none, so there is nothing to remember.
		if cerr := d.clearSuspects(ctx, r, v, facts); cerr == nil {
			d.dropTemp(ctx, r, rec.Name)
			return errors.Join(err, d.store.drop(v))
		}
	}
	rec, _ = d.store.see(v)
	rec.Problem = errdefs.OneLine(err.Error())
	return errors.Join(err, d.store.save(v, rec))
}

func (d *driver) callCreate(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) (*spec.Volume, error) {
	rec, _ := d.store.see(v)
	free, err := d.making(ctx, facts)
	if err != nil {
		return nil, err
	}
	defer free()
	if err := r.Step("making the volume", nil); err != nil {
		return nil, err
	}
	if rec.Doing != callCreate {
		rec.Doing = callCreate
		if err := d.store.save(v, rec); err != nil {
			return nil, err
		}
	}
	var answer *spec.CreateVolumeResponse
	err = d.rpc(ctx, r, rec.Source != nil, func(ctx context.Context) error {
		var err error
		answer, err = d.createOnce(ctx, rec, rec.CSIName)
		return err
	})
	return answer.GetVolume(), err
}

// createOnce makes the call. For a volume that is copied it is a call, too.
func (d *driver) createOnce(ctx context.Context, rec record, name string) (*spec.CreateVolumeResponse, error) {
	req, err := d.createRequest(rec, name)
	if err != nil {
		return nil, err
	}
	if rec.Source != nil && rec.Source.Volume != "" {
		free, err := d.turnOfID(ctx, rec.Source.Volume)
		if err != nil {
			return nil, err
		}
		defer free()
	}
	return d.conn.Controller().CreateVolume(ctx, req)
}

// createRequest is the same whenever it is asked for again.
func (d *driver) createRequest(rec record, name string) (*spec.CreateVolumeRequest, error) {
	secrets, err := d.s.secrets.get()
	if err != nil {
		return nil, err
	}
	req := &spec.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*spec.VolumeCapability{rec.Capability.spec()},
		Parameters: rec.Parameters, MutableParameters: rec.Mutable, Secrets: secrets,
	}
	if rec.Required > 0 || rec.Limit > 0 {
		req.CapacityRange = &spec.CapacityRange{RequiredBytes: rec.Required, LimitBytes: rec.Limit}
	}
	if len(rec.Requisite) > 0 {
		req.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: topologies(rec.Requisite), Preferred: topologies(rec.Requisite)}
	}
	switch s := rec.Source; {
	case s == nil:
	case s.Snapshot != "":
		req.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{
			Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: s.Snapshot},
		}}
	default:
		req.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{
			Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: s.Volume},
		}}
	}
	return req, nil
}

// accept compares the answer with what was asked for, and writes it down: not every CSI driver says that what it
// has found is another volume than the one that was meant.
func (d *driver) accept(v *vol, answer *spec.Volume) error {
	rec, _ := d.store.see(v)
	if answer.GetVolumeId() == "" {
		return errdefs.Errorf(errdefs.ErrUnavailable, "the CSI driver says that it has made a volume, and not which")
	}
	if o, ok := d.store.byID(answer.GetVolumeId(), rec.Lineage); ok {
		return errdefs.Errorf(errdefs.ErrExists, "the storage has it as volume %q already", shown(o))
	}
	size := answer.GetCapacityBytes()
	if size > 0 && (size < rec.Required || rec.Limit > 0 && size > rec.Limit) {
		err := errdefs.Errorf(errdefs.ErrExists, "the storage has a volume of this name with %s, and %s was asked for", catalog.Bytes(size), wanted(rec))
		return errdefs.Hint(err, fmt.Sprintf("ask for size=%s to use that one, or take another name", catalog.Bytes(size)))
	}
	rec.ID, rec.Context, rec.Capacity = answer.GetVolumeId(), answer.GetVolumeContext(), size
	if size == 0 {
		rec.Capacity = rec.Required
	}
	rec.Topology = nil
	for _, t := range answer.GetAccessibleTopology() {
		rec.Topology = append(rec.Topology, t.GetSegments())
	}
	rec.Phase, rec.Since, rec.Doing, rec.Problem = phaseCreated, now(), "", ""
	return d.store.save(v, rec)
}

func wanted(r record) string {
	if r.Limit > 0 {
		return fmt.Sprintf("%s to %s", catalog.Bytes(r.Required), catalog.Bytes(r.Limit))
	}
	return catalog.Bytes(r.Required).String()
}

func shown(r record) string {
	if r.Hidden != "" {
		return r.Hidden
	}
	return r.Name
}

// freeName is a name for the storage that none of our volumes has, in the trash or anywhere.
func (d *driver) freeName(of string) string {
	name := nameOf(d.c.Namespace, "volume", of)
	taken := func(r record) bool {
		return r.CSIName == name || slices.ContainsFunc(r.Suspects, func(s suspect) bool { return s.CSIName == name })
	}
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	for _, all := range []map[string]*vol{d.store.volumes, d.store.trash} {
		for _, v := range all {
			if taken(v.rec) {
				return nameOf(d.c.Namespace, "volume", of, nonce())
			}
		}
	}
	return name
}
