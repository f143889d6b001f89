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

// hostKey is the key under which this host's own address in a network is allocated.
const hostKey = "host"

// Expose implements [control.Networks].
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
	for _, a := range in.exposed(space.ID) {
		if r.Address.IsValid() && r.Address != a.Address {
			return out, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "network %q: this host has address %s in it", space.Name, a.Address), "hide it first")
		}
		out.Address = a.Address
	}
	if !out.Address.IsValid() {
		p, err := in.alloc.Allocate(ctx, address.Want{Space: space.ID, Subnet: space.Prefixes[0], Address: r.Address, Key: hostKey})
		if err != nil {
			return out, err
		}
		out.Address = p.Addr()
	}
	if err := in.mesh.Expose(ctx, space.ID, out.Address); err != nil {
		return out, err
	}
	if r.Name != "" {
		err = in.hand.Add(r.Name, []netip.Addr{out.Address})
	}
	return out, err
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
	for _, a := range in.exposed(space.ID) {
		if err := in.forgetNames(a.Address); err != nil {
			return err
		}
		if err := in.alloc.Release(ctx, space.ID, a.Address); err != nil {
			return err
		}
	}
	return nil
}

// named returns the network of a name; that of no name is the first one.
func (in *inside) named(name string) (address.Space, error) {
	name = cmp.Or(name, firstNetwork)
	for _, s := range in.alloc.Networks() {
		if s.Name == name {
			return s, nil
		}
	}
	return address.Space{}, errdefs.Errorf(errdefs.ErrNotFound, "network %q: the cluster has none of that name", name)
}

// exposed are this host's own addresses in a network.
func (in *inside) exposed(space string) []address.Address {
	return slices.DeleteFunc(in.alloc.Addresses(), func(a address.Address) bool { return a.Network != space || a.Key != hostKey })
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
