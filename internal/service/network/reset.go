package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// giveTime is how long a reset waits for the others to know what it gave them.
const giveTime = 5 * time.Second

// Reset implements [control.Networks].
func (s *Service) Reset(ctx context.Context, r control.NetworkResetRequest) error {
	s.mu.Lock()
	u, once := s.up, s.saved.Once
	s.mu.Unlock()
	switch {
	case !once:
		return nil
	case u == nil:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "reset: the network was stopped, and cannot give back what this host owns"),
			`launch it again with "remora network launch", then reset it`)
	}
	if in := u.in(); in != nil {
		// Engines call the plugin meanwhile, so that verbs are not held.
		for _, space := range in.alloc.Networks() {
			if err := in.hide(ctx, space); err != nil {
				return err
			}
		}
		if err := in.leaveEngines(ctx); err != nil {
			return err
		}
		if err := in.handOver(ctx, r.Force); err != nil {
			return err
		}
	}
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if err := s.takeDown(); err != nil { //nolint:contextcheck // an end is not cut short
		return err
	}
	if err := kernel.Remove(ctx); err != nil {
		return err
	}
	if _, err := s.uninstallDNS(true); err != nil {
		return err
	}
	return s.forget()
}

// leaveEngines removes the cluster's networks from this host's engines. It is refused where containers are on them.
func (in *inside) leaveEngines(ctx context.Context) error {
	for _, f := range in.followers {
		all, err := f.engine.Networks(ctx)
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.Driver != f.driver {
				continue
			}
			f.destroyed(n.ID) // it is not made again
			if err := f.engine.RemoveNetwork(ctx, n.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return errdefs.Hint(fmt.Errorf("reset: network %q stays: %w", n.Name, err), "remove or disconnect the containers that are on it, then reset again")
			}
		}
	}
	return nil
}

// handOver gives what this host owns to a peer.
func (in *inside) handOver(ctx context.Context, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, giveTime)
	defer cancel()
	if in.u.cluster.Alone() {
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrUnavailable, "no peer is reachable")
	for _, m := range in.u.cluster.Members() {
		if !m.Self && m.Reachable {
			if err = in.alloc.GiveAll(m.Host); err == nil {
				err = in.u.cluster.Leave(ctx)
			}
			break
		}
	}
	if err != nil && !force {
		return errdefs.Hint(fmt.Errorf("reset: %w", err), "wait until a peer is reachable; or reset with --force, and \"remora network rmpeer\" this host on another")
	}
	return nil
}

// forget removes all that is remembered.
func (s *Service) forget() error {
	s.mu.Lock()
	s.saved = saved{}
	s.mu.Unlock()
	for _, name := range []string{"cluster", "addresses", "mesh", refusedName, savedName} {
		if err := s.root.RemoveAll(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return state.Classify(err)
		}
	}
	return nil
}
