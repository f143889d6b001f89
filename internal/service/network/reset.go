package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
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
	case u == nil && s.entered():
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "reset: the network was stopped, and cannot give back what this host owns"),
			`launch it again with "remora network launch", then reset it`)
	}
	if err := s.mayUninstall(); err != nil {
		return err
	}
	var in *inside
	if u != nil {
		in = u.in()
	}
	if in != nil {
		heir, err := in.heir(r.Force)
		if err != nil {
			return err
		}
		var bridges []netip.Addr // which go with the networks
		for _, space := range in.alloc.Networks() {
			bridges = append(bridges, in.bridge(space.ID)...)
		}
		// Engines call the plugin meanwhile, so that verbs are not held.
		if err = in.leaveEngines(ctx, r.Force); err == nil {
			err = in.podman.leaveAll(ctx)
		}
		if err == nil {
			err = in.unexpose(ctx, bridges)
		}
		if err == nil {
			err = in.handOver(ctx, heir, r.Force)
		}
		if err != nil {
			for _, f := range in.followers {
				f.rest(false)
			}
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
	if _, err := s.uninstallPodman(); err != nil {
		return err
	}
	return s.forget()
}

// mayUninstall reports why what was installed could not be taken back, an engine's file that is broken, say: later it would be too late.
func (s *Service) mayUninstall() error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	_, err := s.uninstallDNS(false)
	return err
}

// unexpose takes back what was exposed at the addresses of bridges, once nothing refuses a reset any more.
func (in *inside) unexpose(ctx context.Context, bridges []netip.Addr) error {
	for _, space := range in.alloc.Networks() {
		if err := in.hide(ctx, space); err != nil {
			return err
		}
	}
	for _, ip := range bridges {
		if err := in.forgetNames(ip); err != nil {
			return err
		}
	}
	return nil
}

// entered reports whether this host was ever in a cluster, and so may own a part of it.
func (s *Service) entered() bool {
	_, err := s.root.Stat("cluster/records")
	return !errors.Is(err, fs.ErrNotExist)
}

// leaveEngines removes the cluster's networks from this host's engines. It is refused where containers are on them.
func (in *inside) leaveEngines(ctx context.Context, force bool) error {
	tasks := 0
	in.ownClaims(func(record.Record, record.Claim) { tasks++ })
	if tasks > 0 && !force {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "reset: tasks of Swarm have %d addresses on this host", tasks),
			"\"docker node update --availability drain NODE\" has them go elsewhere; then reset again")
	}
	for _, f := range in.followers {
		f.rest(true)
		all, err := f.engine.Networks(ctx)
		if err != nil && (force || !in.engineHad()) {
			continue // its networks stay, and are of no use to it; or it has none
		}
		if err != nil {
			return errdefs.Hint(fmt.Errorf("reset: %w", err), "start the engine; or reset with --force, and remove its networks of this driver later")
		}
		for _, n := range all {
			if n.Driver != f.driver {
				continue
			}
			if err := f.engine.RemoveNetwork(ctx, n.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return errdefs.Hint(fmt.Errorf("reset: network %q stays: %w", n.Name, err), "remove or disconnect the containers that are on it, then reset again")
			}
		}
	}
	return nil
}

// engineHad reports whether an engine of this host has networks of the cluster: it has an address for the bridge of each.
func (in *inside) engineHad() bool {
	return slices.ContainsFunc(in.alloc.Addresses(), func(a address.Address) bool { return !strings.HasPrefix(a.Key, address.PodmanKey) })
}

// heir is the peer that gets what this host owns, none if there is no other, or none that must be. Nothing is touched
// before one is found.
func (in *inside) heir(force bool) (record.Host, error) {
	for _, m := range in.u.cluster.Members() {
		if !m.Self && m.Reachable {
			return m.Host, nil
		}
	}
	if force || in.u.cluster.Alone() {
		return record.Host{}, nil
	}
	return record.Host{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "reset: no peer is reachable that could take what this host owns"),
		"wait until one is; or reset with --force, and \"remora network rmpeer\" this host on another")
}

// handOver gives what this host owns to a peer, and tells it that this host goes.
func (in *inside) handOver(ctx context.Context, heir record.Host, force bool) error {
	if heir.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, giveTime)
	defer cancel()
	err := in.alloc.GiveAll(heir)
	if err == nil {
		err = in.u.cluster.Leave(ctx)
	}
	if err != nil && !force {
		return errdefs.Hint(fmt.Errorf("reset: %w", err), "try again; or reset with --force, and \"remora network rmpeer\" this host on another")
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
