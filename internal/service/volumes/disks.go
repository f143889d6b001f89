package volumes

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Attach implements [control.Disks].
func (s *Service) Attach(ctx context.Context, req control.VolumeAttachRequest) error {
	_, err := pool.In(ctx, s.Pools, req.Pool, req.Name, func(ctx context.Context, p *pool.Pool) (struct{}, error) {
		return struct{}{}, p.Handler.Attach(ctx, req.Name, req.Force)
	})
	return err
}

// Move implements [control.Disks].
func (s *Service) Move(ctx context.Context, req control.VolumeMoveRequest) error {
	to := volume.Place{Zone: req.Zone, Region: req.Region, Pool: req.ToPool}
	if to.Pool != "" { // a wrong name is told with those there are
		p, err := s.Pools.Enter(ctx, to.Pool)
		if err != nil {
			return err
		}
		p.Leave()
	}
	_, err := pool.In(ctx, s.Pools, req.Pool, req.Name, func(ctx context.Context, p *pool.Pool) (struct{}, error) {
		ctx, release, err := p.Claims.Take(ctx, p.Conf.Name, req.Name, pool.Changing, "move")
		if err != nil {
			return struct{}{}, err
		}
		defer release()
		return struct{}{}, p.Handler.Move(ctx, req.Name, to)
	})
	return err
}

// Import implements [control.Disks].
func (s *Service) Import(ctx context.Context, req control.VolumeImportRequest) (control.ImportList, error) {
	return pool.In(ctx, s.Pools, req.Pool, "", func(ctx context.Context, p *pool.Pool) (control.ImportList, error) {
		found, err := p.Handler.Import(ctx, req.Disk, req.Name, !req.Apply)
		if errors.Is(err, errdefs.ErrUnsupported) {
			err = fmt.Errorf("pool %q: %w", p.Conf.Name, err)
		}
		var l control.ImportList
		for _, f := range found {
			l.Disks = append(l.Disks, control.ImportedDisk(f))
		}
		return l, err
	})
}

// Jobs implements [control.Disks].
func (s *Service) Jobs(ctx context.Context, req control.JobListRequest) (control.JobList, error) {
	pools := s.Pools.All()
	if req.Pool != "" {
		p, err := s.Pools.Enter(ctx, req.Pool)
		if err != nil {
			return control.JobList{}, err
		}
		defer p.Leave()
		pools = []*pool.Pool{p}
	}
	var l control.JobList
	for _, p := range pools {
		for _, j := range p.Handler.Jobs() {
			l.Jobs = append(l.Jobs, control.Job{
				Pool: p.Name(), ID: j.ID, Kind: j.Kind, Object: j.Object, State: j.State, Began: j.Began, Since: j.Since, Error: j.Error, Failed: j.Ended,
			})
		}
	}
	slices.SortStableFunc(l.Jobs, func(a, b control.Job) int { return a.Began.Compare(b.Began) })
	return l, nil
}
