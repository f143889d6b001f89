package daemon

import (
	"context"
	"slices"

	"github.com/remora-plugins/remora/internal/control"
)

// disks answers the control API's questions about volumes that are disks of a cloud, and about what
// outlasts a call.
type disks struct{ d *Daemon }

// Attach implements [control.Disks].
func (x disks) Attach(ctx context.Context, req control.VolumeAttachRequest) error {
	_, err := in(ctx, volumes(x), req.Pool, req.Name, func(ctx context.Context, p *pool) (struct{}, error) {
		return struct{}{}, p.handler.Attach(ctx, req.Name, req.Force)
	})
	return err
}

// Import implements [control.Disks].
func (x disks) Import(ctx context.Context, req control.VolumeImportRequest) (control.ImportList, error) {
	return in(ctx, volumes(x), req.Pool, "", func(ctx context.Context, p *pool) (control.ImportList, error) {
		found, err := p.handler.Import(ctx, req.Disk, req.Name, !req.Apply)
		var l control.ImportList
		for _, f := range found {
			l.Disks = append(l.Disks, control.ImportedDisk(f))
		}
		return l, err
	})
}

// Jobs implements [control.Disks].
func (x disks) Jobs(ctx context.Context, req control.JobListRequest) (control.JobList, error) {
	pools := x.d.all()
	if req.Pool != "" {
		p, err := volumes(x).enter(ctx, req.Pool)
		if err != nil {
			return control.JobList{}, err
		}
		defer p.leave()
		pools = []*pool{p}
	}
	var l control.JobList
	for _, p := range pools {
		for _, j := range p.handler.Jobs() {
			l.Jobs = append(l.Jobs, control.Job{
				Pool: p.conf.Name, ID: j.ID, Kind: j.Kind, Object: j.Object, State: j.State, Began: j.Began, Since: j.Since, Error: j.Error, Failed: j.Ended,
			})
		}
	}
	slices.SortStableFunc(l.Jobs, func(a, b control.Job) int { return a.Began.Compare(b.Began) })
	return l, nil
}
