package network

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Expose implements [control.Networks]. The address is that of the bridge, which the host has for as long as it has
// a part in the network.
func (s *Service) Expose(ctx context.Context, r control.NetworkExposeRequest) (control.NetworkExposed, error) {
	var out control.NetworkExposed
	in, err := s.inside()
	if err != nil {
		return out, err
	}
	space, err := in.named(r.Network)
	if err != nil {
		return out, err
	}
	if out.Addresses = in.bridge(space.ID); len(out.Addresses) == 0 {
		return out, in.without(space.Name)
	}
	if r.Name != "" { // first: a name that cannot be leaves the host closed
		if err := in.hand.Add(r.Name, out.Addresses); err != nil {
			return out, err
		}
	}
	return out, in.mesh.Expose(ctx, space.ID, out.Addresses...)
}

// without is why this host has no address in a network: its engine has not made it.
func (in *inside) without(network string) error {
	for _, f := range in.followers {
		f.mu.Lock()
		away := f.away
		f.mu.Unlock()
		if away != nil {
			return errdefs.Errorf(errdefs.ErrUnavailable, "network %q: this host has no address in it: %w", network, away)
		}
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "network %q: this host has no address in it", network),
		"wait until its engine has the network, or make it there")
}

// Hide implements [control.Networks].
func (s *Service) Hide(ctx context.Context, r control.NetworkRequest) error {
	in, err := s.inside()
	if err != nil {
		return err
	}
	space, err := in.named(r.Name)
	if err != nil {
		return err
	}
	return in.hide(ctx, space)
}

func (in *inside) hide(ctx context.Context, space address.Space) error {
	if err := in.mesh.Expose(ctx, space.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	for _, ip := range in.bridge(space.ID) {
		if err := in.forgetNames(ip); err != nil {
			return err
		}
	}
	return nil
}

// named returns the network of a name; that of no name is the first one.
func (in *inside) named(name string) (address.Space, error) {
	name = cmp.Or(name, firstNetwork)
	if s, ok := in.find(name); ok {
		return s, nil
	}
	return address.Space{}, errdefs.Errorf(errdefs.ErrNotFound, "network %q: the cluster has none of that name", name)
}

// bridge are the addresses of this host's bridge of a network.
func (in *inside) bridge(space string) []netip.Addr {
	var at []netip.Addr
	for _, a := range in.alloc.Addresses() {
		if a.Network == space && gatewayKey(a.Key) {
			at = append(at, a.Address)
		}
	}
	return at
}

// forgetNames takes back the names that were given by hand to an address.
func (in *inside) forgetNames(ip netip.Addr) error {
	all, err := names.List(in.records.Records(record.KindName))
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.ByHand && k.Host == in.records.Self() && slices.Contains(k.Addresses, ip) {
			if err := in.hand.Remove(k.Name, ip); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}
