package projects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/pause"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// atOnce makes the snapshots of all members at the same time, and says how long that took from the
// first to the last. If it is to, it has the containers that use those of which there can be one
// paused meanwhile. Without that, and where it fails, there is none.
func (x *Service) atOnce(ctx context.Context, all []*member, can func(*volume.Handler) bool, still bool, sum *control.ProjectSum, take func(context.Context, *member) (string, error)) error {
	held := &pause.Held{}
	if still {
		var err error
		if held, err = x.hold(ctx, all, can); err != nil {
			return err
		}
		defer func() { _ = held.End() }() // it is told of below
	}
	start := time.Now()
	eachMember(all, func(m *member) { //nolint:contextcheck // each has its own
		ctx := m.ctx
		if until := held.Until(); !until.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, until, x.errLimit())
			defer cancel()
		}
		m.snapshot, m.err = take(ctx, m)
	})
	took := time.Since(start)
	if err := held.End(); err != nil {
		sum.Errors = append(sum.Errors, errdefs.OneLine(err.Error()))
	}
	sum.Paused, sum.PausedFor = held.Names(), int64(held.Took())
	if slices.ContainsFunc(all, func(m *member) bool { return m.snapshot != "" }) {
		sum.Within = int64(took)
	}
	if held.Late() {
		sum.Errors = append(sum.Errors, x.errLimit().Error()+": the snapshots are not of one moment")
	}
	return nil
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
