package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/sandbox"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// Podman gives each container's network to a program that it starts, and says nothing of networks that are removed. So the
// service is the engine here: what Podman's containers have is in the ledger of addresses, in the records of names, and in the
// kernel, and nowhere else.

// podman is what Podman's containers have of this host's networks.
type podman struct {
	in   *inside
	turn chan struct{} // a lock that can be waited for within a context
}

func (p *podman) lock(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *podman) unlock() { <-p.turn }

// PodmanCreate implements [control.Networks].
func (s *Service) PodmanCreate(ctx context.Context, r control.NetworkPodmanCreateRequest) (out control.NetworkPodmanCreated, err error) {
	in, err := s.inside()
	if err != nil {
		return out, err
	}
	if err := in.podman.lock(ctx); err != nil {
		return out, err
	}
	defer in.podman.unlock()
	space, err := in.podman.define(ctx, r)
	if err != nil {
		return out, err
	}
	n, err := in.podman.part(ctx, space)
	if err != nil {
		return out, err
	}
	for _, pool := range pools(n) {
		out.Gateways = append(out.Gateways, pool.Gateway)
	}
	out.Internal = space.Record().Internal
	return out, nil
}

// define finds the network that is asked for, or makes it.
func (p *podman) define(ctx context.Context, r control.NetworkPodmanCreateRequest) (address.Space, error) {
	in := p.in
	c, err := in.u.s.o.Network.Choose(network.Network{Options: r.Options, Internal: r.Internal})
	if err != nil {
		return address.Space{}, err
	}
	space, err := in.named(r.Name)
	if errors.Is(err, errdefs.ErrNotFound) {
		n := address.NewNetwork{
			Name: r.Name, Network: record.Network{Subnets: r.Subnets, Range: r.Range},
			V4: len(r.Subnets) == 0, V6: r.IPv6 && !slices.ContainsFunc(r.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() }),
		}
		chosen(&n.Network, c)
		return in.alloc.CreateNetwork(ctx, n)
	}
	if err != nil {
		return space, err
	}
	all := join(space.Prefixes)
	for _, want := range r.Subnets {
		if !slices.Contains(space.Prefixes, want) {
			return space, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "network %q: its subnet is %s, not %s", space.Name, all, want),
				"leave out --subnet: the network has the same one on all hosts")
		}
	}
	for _, want := range r.Range {
		if !slices.Contains(space.Range, want) {
			return space, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "network %q: its range is %s, not %s", space.Name, join(space.Range), want),
				"leave out --ip-range: the network has the same one on all hosts")
		}
	}
	if err := notGoing(space); err != nil {
		return space, err
	}
	return space, known{in.alloc, in}.Configure(ctx, space.ID, c)
}

func join(list []netip.Prefix) string { return strings.Join(texts(list), ", ") }

func notGoing(s address.Space) error {
	if !s.Record().Going {
		return nil
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "network %q: it is being removed", s.Name), "wait until no container is on it, on any host; then make it again")
}

// PodmanSetup implements [control.Networks].
func (s *Service) PodmanSetup(ctx context.Context, r control.NetworkPodmanRequest) (out control.NetworkPodmanConnected, err error) {
	in, err := s.inside()
	if err != nil {
		return out, err
	}
	p := in.podman
	if err := p.lock(ctx); err != nil {
		return out, err
	}
	defer p.unlock()
	space, err := in.named(r.Network)
	if errors.Is(err, errdefs.ErrNotFound) {
		return out, errdefs.Hint(err, fmt.Sprintf("it was removed: \"podman network rm %[1]s\", and \"podman network create -d %[2]s %[1]s\" to have it again", r.Network, in.u.s.o.Driver))
	}
	if err != nil {
		return out, err
	}
	if err := notGoing(space); err != nil {
		return out, err
	}
	if len(r.Subnets) > 0 && !slices.ContainsFunc(r.Subnets, func(s netip.Prefix) bool { return slices.Contains(space.Prefixes, s) }) {
		return out, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "network %q: its subnet is %s, and %s to Podman, which knows one that is gone", space.Name, join(space.Prefixes), join(r.Subnets)),
			fmt.Sprintf("\"podman network rm %[1]s\", and \"podman network create -d %[2]s %[1]s\"", space.Name, in.u.s.o.Driver))
	}
	n, err := p.part(ctx, space)
	if err != nil {
		return out, err
	}
	e, err := p.endpoint(ctx, space, n, r)
	if err == nil {
		out, err = p.connect(ctx, space, n, e, r)
	}
	if err != nil {
		return out, errdefs.Join(err, p.disconnect(context.WithoutCancel(ctx), space.ID, r.Container))
	}
	return out, nil
}

// endpoint takes addresses for a container. Those that it has since a call that was cut off are taken first.
func (p *podman) endpoint(ctx context.Context, space address.Space, n network.Network, r control.NetworkPodmanRequest) (network.Endpoint, error) {
	ep := network.Endpoint{ID: endpointID(space.ID, r.Container)}
	if r.MAC != "" {
		mac, err := net.ParseMAC(r.MAC)
		if err != nil {
			return ep, errdefs.Errorf(errdefs.ErrInvalid, "MAC %q: is none", r.MAC)
		}
		ep.MAC = mac
	}
	for _, ip := range r.Addresses {
		if !slices.ContainsFunc(space.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return ep, errdefs.Errorf(errdefs.ErrInvalid, "address %s: not in a subnet of network %q, which has %s", ip, space.Name, join(space.Prefixes))
		}
	}
	if err := p.disconnect(ctx, space.ID, r.Container); err != nil {
		return ep, err
	}
	for _, pool := range pools(n) {
		want := address.Want{Space: space.ID, Subnet: pool.Prefix, Key: keyOf(r.Container)}
		for _, ip := range r.Addresses {
			if pool.Prefix.Contains(ip) {
				want.Address = ip
			}
		}
		got, err := p.in.alloc.Allocate(ctx, want)
		if err != nil {
			return ep, err
		}
		if got.Addr().Is4() {
			ep.IPv4 = got
		} else {
			ep.IPv6 = got
		}
	}
	return ep, nil
}

// connect makes the interface and puts it into the container, and tells the name.
func (p *podman) connect(ctx context.Context, space address.Space, n network.Network, ep network.Endpoint, r control.NetworkPodmanRequest) (out control.NetworkPodmanConnected, err error) {
	assigned, err := p.in.overlay.CreateEndpoint(ctx, n, ep)
	if err != nil {
		return out, err
	}
	if ep.MAC == nil {
		ep.MAC = assigned.MAC
	}
	a, err := p.in.overlay.Join(ctx, n, ep, network.Sandbox{Key: r.Namespace})
	if err != nil {
		return out, err
	}
	for _, ip := range []netip.Prefix{ep.IPv4, ep.IPv6} {
		if ip.IsValid() {
			out.Addresses = append(out.Addresses, ip)
		}
	}
	if err := sandbox.Attach(r.Namespace, sandbox.Interface{Link: a.Interface, Name: r.Interface, MAC: ep.MAC, Addresses: out.Addresses, Routes: a.Routes}); err != nil {
		return out, err
	}
	if err := p.tell(space, r, out.Addresses); err != nil {
		return out, err
	}
	out.MAC, out.Search = ep.MAC.String(), []string{p.in.u.conf.Domain}
	for _, pool := range pools(n) {
		out.Servers = append(out.Servers, pool.Gateway.Addr())
		// The container asks as soon as it runs. Where another server listens it is told no worse than one of Docker.
		_ = p.in.dns.Listen(netip.AddrPortFrom(pool.Gateway.Addr(), 53)) //nolint:contextcheck // the server lives as long as the cluster
	}
	return out, nil
}

// PodmanTeardown implements [control.Networks]. While the network does not run the caller takes the interface away; the rest is looked
// after when it runs again.
func (s *Service) PodmanTeardown(ctx context.Context, r control.NetworkPodmanRequest) error {
	in, err := s.inside()
	if err != nil {
		return err
	}
	if err := in.podman.lock(ctx); err != nil {
		return err
	}
	defer in.podman.unlock()
	space, err := in.named(r.Network)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = in.podman.disconnect(ctx, space.ID, r.Container)
	}
	if err == nil && space.Record().Going {
		err = in.podman.leave(ctx, space)
	}
	return err
}

// disconnect undoes what there is of a container in a network, if anything.
func (p *podman) disconnect(ctx context.Context, space, container string) error {
	n, ep := network.Network{ID: partID(space)}, network.Endpoint{ID: endpointID(space, container)}
	errs := []error{p.in.overlay.DeleteEndpoint(ctx, n, ep), p.untell(space, container)}
	for _, a := range p.in.alloc.Addresses() {
		if a.Network == space && a.Key == keyOf(container) {
			if err := p.in.alloc.Release(ctx, space, a.Address); !errors.Is(err, errdefs.ErrNotFound) {
				errs = append(errs, err)
			}
		}
	}
	return errdefs.Join(errs...)
}

// keyOf is the key of a container's addresses.
func keyOf(container string) string { return address.PodmanKey + container }

// endpointID is that of a container in a network.
func endpointID(space, container string) string {
	hash := sha256.Sum256([]byte("podman " + space + " " + container))
	return hex.EncodeToString(hash[:])
}
