// Package volumes answers the control API's questions about volumes: their lists and figures, their
// snapshots, the trash, and what keeps them from being removed.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Service answers the control API's questions about volumes, by the same Handler that
// engines speak to, and about what drivers can do beyond the plugin protocol.
type Service struct {
	Options
	consumers consumers
}

// Options are what the service stands on.
type Options struct {
	Pools     *pool.Set
	Fills     *fill.Fills
	Snapshots snapshot.Taker
	Protected Protected
	// LastBackups adds to volumes when they were backed up last.
	LastBackups func(all []*control.Volume)
	// Asks returns the schedules that a volume asks for.
	Asks func(pool, name string) []string
	// Engines are those that may be asked which containers have a volume.
	Engines func() []engine.Engine
	// Life ends when the daemon stops.
	Life context.Context //nolint:containedctx // that of the daemon
	Log  *slog.Logger
}

// New returns a service.
func New(o Options) *Service { return &Service{Options: o} }

// Create implements [control.Volumes].
func (s *Service) Create(ctx context.Context, req control.VolumeCreateRequest) (control.Volume, error) {
	p, err := s.Pools.Enter(ctx, req.Pool)
	if err != nil {
		return control.Volume{}, err
	}
	defer p.Leave()
	if err := p.Handler.Create(ctx, req.Name, req.Options); err != nil {
		return control.Volume{}, err
	}
	return s.get(ctx, p, req.Name)
}

// List implements [control.Volumes].
func (s *Service) List(ctx context.Context, req control.VolumeListRequest) ([]control.Volume, error) {
	var engines <-chan struct{}
	if req.Usage {
		engines = s.consumers.ask(s) //nolint:contextcheck // whoever asks next has the answer too
	}
	late := time.NewTimer(consumerTime)
	defer late.Stop()
	pools := s.Pools.All()
	if req.Pool != "" {
		p, err := s.Pools.Enter(ctx, req.Pool)
		if err != nil {
			return nil, err
		}
		defer p.Leave()
		pools = []*pool.Pool{p}
	}
	all := []control.Volume{}
	ends := map[*pool.Pool]int{}
	for _, p := range pools {
		protected := s.Protected.all(p.Conf.Name)
		for vol, err := range p.Handler.List(ctx) {
			if err != nil {
				if req.Pool == "" {
					break // the pools that answer are worth showing; Status says what is wrong
				}
				return nil, fmt.Errorf("pool %q: %w", p.Conf.Name, err)
			}
			c := s.toControl(p, vol)
			c.Status, c.Options = nil, nil
			c.Protected = protected[c.Name]
			all = append(all, c)
		}
		ends[p] = len(all)
	}
	if req.Usage {
		each := make([]*control.Volume, len(all))
		for i := range all {
			each[i] = &all[i]
		}
		byPool, from := map[*pool.Pool][]*control.Volume{}, 0
		for _, p := range pools {
			byPool[p] = each[from:ends[p]]
			from = ends[p]
		}
		addDetails(ctx, byPool)
		s.LastBackups(each)
		s.addConsumers(ctx, each, engines, late.C)
	}
	return all, nil
}

// Inspect implements [control.Volumes].
func (s *Service) Inspect(ctx context.Context, req control.VolumeRequest) (control.Volume, error) {
	p, err := s.Pools.Enter(ctx, req.Pool)
	if err != nil {
		return control.Volume{}, err
	}
	defer p.Leave()
	c, err := s.get(ctx, p, req.Name)
	if err == nil {
		late := time.NewTimer(consumerTime)
		defer late.Stop()
		engines, one := s.consumers.ask(s), []*control.Volume{&c} //nolint:contextcheck // whoever asks next has the answer too
		addDetails(ctx, map[*pool.Pool][]*control.Volume{p: one})
		s.LastBackups(one)
		s.addConsumers(ctx, one, engines, late.C)
	}
	return c, s.Pools.Elsewhere(ctx, err, req.Pool, req.Name)
}

// Remove implements [control.Volumes].
func (s *Service) Remove(ctx context.Context, req control.VolumeRemoveRequest) error {
	p, err := s.Pools.Enter(ctx, req.Pool)
	if err != nil {
		return err
	}
	defer p.Leave()
	s.Fills.GiveUp(ctx, p.Conf.Name, req.Name)
	if req.Purge {
		return p.Handler.Destroy(ctx, req.Name)
	}
	err = p.Handler.Remove(ctx, req.Name)
	if p.KeepsTrash() && errors.Is(err, syscall.ENOSPC) {
		err = errdefs.Hint(err, "remora volume rm --purge destroys it at once, beside the trash")
	}
	return s.Pools.Elsewhere(ctx, err, req.Pool, req.Name)
}

// Mount implements [control.Volumes].
func (s *Service) Mount(ctx context.Context, req control.VolumeMountRequest) (string, error) {
	if req.ID == "" {
		return "", errNoID
	}
	p, err := s.Pools.Enter(ctx, req.Pool)
	if err != nil {
		return "", err
	}
	defer p.Leave()
	at, err := p.Handler.Mount(ctx, req.Name, req.ID)
	return at, s.Pools.Elsewhere(ctx, err, req.Pool, req.Name)
}

// Unmount implements [control.Volumes]. Unlike an engine, a person is told when there is
// no such volume.
func (s *Service) Unmount(ctx context.Context, req control.VolumeMountRequest) error {
	if req.ID == "" {
		return errNoID
	}
	p, err := s.Pools.Enter(ctx, req.Pool)
	if err != nil {
		return err
	}
	defer p.Leave()
	if _, err := p.Handler.Get(ctx, req.Name); err != nil {
		return s.Pools.Elsewhere(ctx, err, req.Pool, req.Name)
	}
	return p.Handler.Unmount(ctx, req.Name, req.ID)
}

var errNoID = errdefs.Errorf(errdefs.ErrInvalid, "mount ID is empty")

// Path implements [control.Volumes].
func (s *Service) Path(ctx context.Context, req control.VolumeRequest) (string, error) {
	p, err := s.Pools.Enter(ctx, req.Pool)
	if err != nil {
		return "", err
	}
	defer p.Leave()
	path, err := p.Handler.Path(ctx, req.Name)
	return path, s.Pools.Elsewhere(ctx, err, req.Pool, req.Name)
}

func (s *Service) get(ctx context.Context, p *pool.Pool, name string) (control.Volume, error) {
	vol, err := p.Handler.Get(ctx, name)
	if err != nil {
		return control.Volume{}, err
	}
	c := s.toControl(p, vol)
	c.Protected, _ = s.Protected.has(p.Conf.Name, name) // what cannot be read protects still
	c.Schedules = s.Asks(p.Conf.Name, name)
	return c, nil
}

func (s *Service) toControl(p *pool.Pool, v volume.Volume) control.Volume {
	c := control.Volume{
		Pool:       p.Conf.Name,
		Driver:     p.Conf.Driver,
		Name:       v.Name,
		CreatedAt:  v.CreatedAt,
		Mountpoint: v.Mountpoint,
		Mounted:    len(v.Mounts) > 0,
		Status:     v.Status,
		Options:    v.Options,
		Restoring:  s.Fills.Word(p.Conf.Name, v.Name),
	}
	for _, m := range v.Mounts {
		c.Mounts = append(c.Mounts, control.Mount{ID: m.ID, Count: m.Count, Since: m.Since})
	}
	slices.SortStableFunc(c.Mounts, func(a, b control.Mount) int {
		if n := a.Since.Compare(b.Since); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return c
}
