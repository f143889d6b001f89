package network

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// A network may be made without "--ipam-driver remora". Its engine then gives out the addresses itself, of the whole
// subnet, and knows of no other host: the network is the cluster's all the same, its creator owns the whole subnet at
// first, and an address that the engine gives is taken only where this host owns it.

// foreign tells whether an engine gives out a network's addresses itself.
func foreign(n network.Network) bool {
	return slices.ContainsFunc(pools(n), func(p network.Pool) bool { return p.AddressSpace != address.AddressSpace })
}

func pools(n network.Network) []network.Pool { return slices.Concat(n.IPv4, n.IPv6) }

// takeForeign makes such a network known to the cluster.
func (in *inside) takeForeign(ctx context.Context, n network.Network) error {
	var subnets []netip.Prefix
	for _, p := range pools(n) {
		s, ok := in.alloc.Find(p.Prefix)
		switch {
		case !ok:
			subnets = append(subnets, p.Prefix)
		case s.Creator != in.records.Self():
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "subnet %s: network %q of another host has it", p.Prefix, s.Name),
				"add --ipam-driver remora to be given addresses of it, or choose another --subnet")
		}
	}
	if len(subnets) > 0 {
		network := address.NewNetwork{Network: record.Network{Subnets: subnets, Engine: true}}
		if _, err := in.alloc.CreateNetwork(ctx, network); err != nil {
			return err
		}
	}
	for _, p := range pools(n) {
		if err := in.takeAddress(ctx, p, p.Gateway.Addr(), address.GatewayKey); err != nil {
			return err
		}
	}
	return nil
}

// leaveForeign undoes it.
func (in *inside) leaveForeign(ctx context.Context, n network.Network) error {
	var errs []error
	for _, p := range pools(n) {
		if s, ok := in.alloc.Find(p.Prefix); ok {
			errs = append(errs, in.alloc.Leave(ctx, s.ID, p.Prefix))
		}
	}
	return errdefs.Join(errs...)
}

// takeAddress takes an address that an engine gave out.
func (in *inside) takeAddress(ctx context.Context, p network.Pool, ip netip.Addr, key string) error {
	s, ok := in.alloc.Find(p.Prefix)
	if !ok || !ip.IsValid() {
		return nil
	}
	for _, a := range in.alloc.Addresses() {
		if a.Network == s.ID && a.Address == ip && a.Key == key {
			return nil
		}
	}
	_, err := in.alloc.Allocate(ctx, address.Want{Space: s.ID, Subnet: p.Prefix, Address: ip, Key: key})
	if err != nil {
		return errdefs.Hint(err, "the engine gives out addresses of this network without asking; make it with --ipam-driver remora")
	}
	return nil
}

// endpoint takes the addresses of an endpoint that an engine gave out, and release gives them back.
func (in *inside) endpoint(ctx context.Context, n network.Network, ep network.Endpoint) error {
	for _, p := range pools(n) {
		for _, ip := range []netip.Prefix{ep.IPv4, ep.IPv6} {
			if ip.IsValid() && p.Prefix.Contains(ip.Addr()) {
				if err := in.takeAddress(ctx, p, ip.Addr(), ep.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (in *inside) release(ctx context.Context, n network.Network, ep network.Endpoint) error {
	var errs []error
	for _, p := range pools(n) {
		s, ok := in.alloc.Find(p.Prefix)
		for _, ip := range []netip.Prefix{ep.IPv4, ep.IPv6} {
			if ok && ip.IsValid() && p.Prefix.Contains(ip.Addr()) {
				if err := in.alloc.Release(ctx, s.ID, ip.Addr()); !errors.Is(err, errdefs.ErrNotFound) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errdefs.Join(errs...)
}
