package network

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Attach implements [control.Networks]. The engine does it, and so knows of it.
func (s *Service) Attach(ctx context.Context, r control.NetworkAttachRequest) (control.NetworkAttached, error) {
	var v4, v6 netip.Addr
	for _, ip := range r.Addresses {
		family := &v4
		if ip.Is6() {
			family = &v6
		}
		if !ip.IsValid() || family.IsValid() {
			return control.NetworkAttached{}, errdefs.Errorf(errdefs.ErrInvalid, "address %s: want one of IPv4, one of IPv6", ip)
		}
		*family = ip
	}
	at, err := s.place(ctx, r)
	if err != nil {
		return control.NetworkAttached{}, err
	}
	if at.on {
		has := at.addresses()
		for _, ip := range r.Addresses {
			if len(has) > 0 && !slices.Contains(has, ip) {
				return control.NetworkAttached{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "container %q: it is on network %q already, as %s", r.Container, at.space.Name, has[0]),
					"detach it first")
			}
		}
		return control.NetworkAttached{Addresses: has}, nil
	}
	if err := at.engine.Connect(ctx, at.network, at.container.ID, v4, v6); err != nil {
		return control.NetworkAttached{}, err
	}
	if at.container, err = at.engine.Attached(ctx, at.container.ID); err != nil {
		return control.NetworkAttached{}, err
	}
	return control.NetworkAttached{Addresses: at.addresses()}, nil
}

// Detach implements [control.Networks]. A container that is not on the network is none to take off.
func (s *Service) Detach(ctx context.Context, r control.NetworkAttachRequest) error {
	at, err := s.place(ctx, r)
	if err != nil || !at.on {
		return err
	}
	return at.engine.Disconnect(ctx, at.network, at.container.ID)
}

// place is a container and a network in its engine.
type place struct {
	engine    engine.Engine
	container engine.Attached
	space     address.Space
	network   string // its ID in the engine
	on        bool   // the container is on it
}

// addresses are those that the container has on the network.
func (p place) addresses() []netip.Addr {
	var has []netip.Addr
	for _, ep := range p.container.Networks {
		if ep.NetworkID != p.network {
			continue
		}
		for _, text := range []string{ep.IPAddress, ep.GlobalIPv6Address} {
			if ip, err := netip.ParseAddr(text); err == nil {
				has = append(has, ip)
			}
		}
	}
	return has
}

// place finds the container in the engines of this host, and the network there.
func (s *Service) place(ctx context.Context, r control.NetworkAttachRequest) (place, error) {
	in, err := s.inside()
	if err != nil {
		return place{}, err
	}
	space, err := in.named(r.Network)
	if err != nil {
		return place{}, err
	}
	var unseen error
	for _, f := range in.followers {
		c, err := f.engine.Attached(ctx, r.Container)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			unseen = errors.Join(unseen, err)
			continue
		}
		p := place{engine: f.engine, container: c, space: space, network: f.has(space.ID)}
		if p.network == "" {
			return p, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "network %q: the engine of this host does not have it", space.Name),
				`"remora network status" says why; one that was removed by hand comes back with "remora network launch"`)
		}
		for name, ep := range c.Networks {
			p.on = p.on || ep.NetworkID == p.network || ep.NetworkID == "" && name == space.Name // it never ran
		}
		return p, nil
	}
	if unseen != nil {
		return place{}, unseen
	}
	return place{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "container %q: no engine of this host that has the cluster's networks has it", r.Container),
		"one of Podman is attached by: podman network connect NETWORK CONTAINER")
}

// has returns the engine's ID of a network of the cluster; empty is none.
func (f *follower) has(space string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.onEngine[space]
}
