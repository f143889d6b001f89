package network

import (
	"context"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/mesh"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// known are the networks of the cluster, as the driver asks for them.
type known struct {
	alloc *address.Allocator
	in    *inside
}

// Lookup implements [catalog.Networks].
func (k known) Lookup(p network.Pool) (string, error) {
	if s, ok := k.in.swarmOf(p.Prefix); ok {
		return s.ID, nil
	}
	s, ok := k.alloc.Find(p.Prefix)
	if !ok {
		return "", errdefs.Errorf(errdefs.ErrNotFound, "subnet %s: of no network of the cluster", p.Prefix)
	}
	if k.in.mesh.Has(s.ID) || slices.ContainsFunc(k.alloc.Addresses(), func(a address.Address) bool { return p.Prefix.Contains(a.Address) && a.Address != p.Gateway.Addr() }) {
		return s.ID, nil // it is here already, and a route that came later does not take it away
	}
	routes, err := kernel.Foreign()
	if err != nil {
		return "", err
	}
	for _, r := range routes {
		if r.Bits() > 0 && r.Overlaps(p.Prefix) {
			return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "subnet %s: this host has a route to %s", p.Prefix, r),
				"remove that route, or make the network with another --subnet")
		}
	}
	return s.ID, nil
}

// Configure implements [catalog.Networks].
func (k known) Configure(ctx context.Context, id string, c catalog.Choices) error {
	if all, _ := k.in.swarmNetworks(); all[id].ID != "" {
		return nil // it says so itself
	}
	choices := address.Choices{Multicast: c.Multicast, Internal: c.Internal, MTU: c.MTU}
	if c.Encrypted != nil {
		plain := !*c.Encrypted
		choices.Plain = &plain
	}
	return k.alloc.Configure(ctx, id, choices)
}

// bridges is the mesh, as the driver asks for it.
type bridges struct{ *mesh.Mesh }

// EnsureNetwork implements [catalog.Mesh].
func (b bridges) EnsureNetwork(ctx context.Context, id string, addresses ...netip.Prefix) (catalog.Bridge, error) {
	l, err := b.Mesh.EnsureNetwork(ctx, id, addresses...)
	out := catalog.Bridge{Name: l.Name, MTU: l.MTU}
	for _, r := range l.Routes {
		out.Routes = append(out.Routes, network.Route{Destination: r.Destination, NextHop: r.NextHop})
	}
	return out, err
}
