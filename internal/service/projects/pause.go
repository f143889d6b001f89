package projects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/pause"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// taking is how snapshots are made: of one member, and of several of one pool at one moment.
type taking struct {
	one     func(context.Context, *member) (string, error)
	several func(ctx context.Context, p *pool.Pool, names []string) (string, error)
}

// atOnce makes the snapshots of all members at the same time, those of a pool whose storage can do
// so by one call, and says which those were and how long it took from the first to the last. If it is to, it has the
// containers that use those of which there can be one paused meanwhile. Without that, and where it fails, there is none.
func (x *Service) atOnce(ctx context.Context, all []*member, can func(*volume.Handler) bool, still bool, sum *control.ProjectSum, take taking) error {
	held := &pause.Held{}
	if still {
		var err error
		if held, err = x.hold(ctx, all, can); err != nil {
			return err
		}
		defer func() { _ = held.End() }() // it is told of below
	}
	start := time.Now()
	within := func(ctx context.Context) (context.Context, context.CancelFunc) {
		if until := held.Until(); !until.IsZero() {
			return context.WithDeadlineCause(ctx, until, x.errLimit())
		}
		return ctx, func() {}
	}
	var pools sync.WaitGroup
	for _, those := range byPool(all) {
		pools.Go(func() { //nolint:contextcheck // each has its own
			if take.together(those, within) {
				return
			}
			eachMember(those, func(m *member) {
				ctx, cancel := within(m.ctx)
				defer cancel()
				m.snapshot, m.err = take.one(ctx, m)
			})
		})
	}
	pools.Wait()
	took := time.Since(start)
	if err := held.End(); err != nil {
		sum.Errors = append(sum.Errors, errdefs.OneLine(err.Error()))
	}
	sum.Paused, sum.PausedFor = held.Names(), int64(held.Took())
	if slices.ContainsFunc(all, func(m *member) bool { return m.snapshot != "" }) {
		sum.Within = int64(took)
	}
	sum.Together, sum.Alone = moments(all)
	if held.Late() {
		sum.Errors = append(sum.Errors, x.errLimit().Error()+": the snapshots are not of one moment")
	}
	return nil
}

// byPool returns the members that are in order, those of one pool together.
func byPool(all []*member) (pools [][]*member) {
	for _, m := range all {
		if m.err != nil {
			continue
		}
		i := slices.IndexFunc(pools, func(those []*member) bool { return those[0].p == m.p })
		if i < 0 {
			i, pools = len(pools), append(pools, nil)
		}
		pools[i] = append(pools[i], m)
	}
	return pools
}

// together makes the snapshots of several members of one pool by one call, and returns false where
// the storage has none.
func (t taking) together(those []*member, within func(context.Context) (context.Context, context.CancelFunc)) bool {
	p := those[0].p
	if len(those) < 2 || !volume.Can[volume.GroupSnapshotter](p.Handler) {
		return false
	}
	names := make([]string, len(those))
	for i, m := range those {
		names[i] = m.name
	}
	ctx, cancel := within(those[0].ctx)
	defer cancel()
	snapshot, err := t.several(ctx, p, names)
	if errors.Is(err, errdefs.ErrUnsupported) {
		return false
	}
	for _, m := range those {
		if m.err = err; err == nil {
			m.snapshot, m.together = snapshot, true
		}
	}
	return true
}

// moments tells of which volumes the snapshots are of one moment, and of which each is of its own.
func moments(all []*member) (together []control.Together, alone []string) {
	for _, m := range all {
		if m.snapshot == "" {
			continue
		}
		if !m.together {
			alone = append(alone, m.name)
			continue
		}
		pool := m.p.Conf.Name
		i := slices.IndexFunc(together, func(t control.Together) bool { return t.Pool == pool })
		if i < 0 {
			i, together = len(together), append(together, control.Together{Pool: pool})
		}
		together[i].Volumes = append(together[i].Volumes, m.name)
	}
	return together, alone
}

// errLimit ends snapshots that take longer than containers may be paused.
func (x *Service) errLimit() error {
	return errdefs.Errorf(errdefs.ErrUnavailable, "containers are paused for %s at most", x.Pauser.Limit)
}

// hold pauses the containers that run and use one of the volumes of which there can be a snapshot,
// whatever project they are of. Every engine has to tell which those are.
func (x *Service) hold(ctx context.Context, all []*member, can func(*volume.Handler) bool) (*pause.Held, error) {
	all = slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m.err != nil || !can(m.p.Handler) })
	var those []pause.Container
	var errs []error
	for _, e := range x.Engines() {
		found, err := e.Containers(ctx)
		errs = append(errs, err)
		for _, c := range found {
			if c.Running && slices.ContainsFunc(all, func(m *member) bool { return c.Has(m.p.Name(), m.name) }) {
				those = append(those, pause.Container{Socket: e.Socket, ID: c.ID, Name: c.Name})
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("it is not known which containers to pause: %w", err)
	}
	return x.Pauser.Pause(ctx, those)
}
