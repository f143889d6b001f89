package network

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/ipam"
	"github.com/remora-plugins/remora/sdk/network"
)

// plugin answers engines, whether the network was launched or not.
type plugin struct {
	network *network.Handler
	ipam    *ipam.Handler
}

func newPlugin(ctx context.Context, s *Service) (*plugin, error) {
	h, err := network.NewHandler(ctx, driver{s}, network.Options{Logger: s.o.Log, State: network.Dir(filepath.Join(s.o.Dir, "plugin"))})
	if err != nil {
		return nil, err
	}
	return &plugin{h, ipam.NewHandler(addresses{s}, ipam.Options{Logger: s.o.Log})}, nil
}

func (p *plugin) close(ctx context.Context) error {
	return errors.Join(p.network.Close(ctx), p.ipam.Close(ctx))
}

// Plugins are what the service serves to engines, on one socket.
func (s *Service) Plugins() []sdk.Plugin { return []sdk.Plugin{s.plugin.network, s.plugin.ipam} }

// driver is the driver of the cluster that this host is in. Where it is in none, what makes fails with what to do, and
// what undoes succeeds: what it made is gone with the cluster, or is looked after when the host is back, but for the interfaces of
// a container, which go at once.
type driver struct{ s *Service }

// alone is the driver without a cluster, which takes away what a container has on this host: an engine says so once.
func (d driver) alone() network.Driver { return d.s.o.Network.Open(catalog.NetworkEnv{}) }

// Scope says that each engine has networks of its own, which connect to those of other hosts, unless they are Swarm's.
func (d driver) Scope() (scope, connectivity network.Scope) {
	return cmp.Or(d.s.o.Scope, network.Local), network.Global
}

// AllocateNetwork checks on a manager of a Swarm what every node would refuse. There is nothing to decide for all.
func (d driver) AllocateNetwork(_ context.Context, n network.Network) (map[string]string, error) {
	if _, err := d.s.o.Network.Choose(n); err != nil {
		return nil, err
	}
	return n.Options, nil
}

// FreeNetwork has nothing to undo.
func (driver) FreeNetwork(context.Context, string) error { return nil }

// NodeJoined and NodeLeft are told to every driver by an engine in a Swarm, which warns of one that does not listen. Who is
// there the cluster knows by itself.
func (driver) NodeJoined(context.Context, network.Node) error { return nil }

// NodeLeft is the other half.
func (driver) NodeLeft(context.Context, network.Node) error { return nil }

func (d driver) CreateNetwork(ctx context.Context, n network.Network) error {
	in, err := d.s.inside()
	if err != nil {
		return err
	}
	switch {
	case d.s.ofSwarm():
		err = in.takeSwarm(n)
	case foreign(n):
		err = in.takeForeign(ctx, n)
	}
	if err != nil {
		return err
	}
	return in.overlay.CreateNetwork(ctx, n)
}

func (d driver) DeleteNetwork(ctx context.Context, n network.Network) error {
	in, _ := d.s.inside()
	if in == nil {
		return nil
	}
	if err := in.podman.giveWay(ctx, n); err != nil {
		return err
	}
	err := in.overlay.DeleteNetwork(ctx, n)
	switch {
	case err != nil:
	case d.s.ofSwarm():
		err = in.leaveSwarm(n.ID)
	case foreign(n):
		err = in.leaveForeign(ctx, n)
	}
	return err
}

func (d driver) CreateEndpoint(ctx context.Context, n network.Network, ep network.Endpoint) (network.Assigned, error) {
	in, err := d.s.inside()
	if err != nil {
		return network.Assigned{}, err
	}
	switch {
	case d.s.ofSwarm():
		err = in.claim(n, ep)
	case foreign(n):
		err = in.endpoint(ctx, n, ep)
	}
	if err != nil {
		return network.Assigned{}, err
	}
	return in.overlay.CreateEndpoint(ctx, n, ep)
}

func (d driver) DeleteEndpoint(ctx context.Context, n network.Network, ep network.Endpoint) error {
	in, _ := d.s.inside()
	if in == nil {
		return d.alone().DeleteEndpoint(ctx, n, ep)
	}
	err := in.overlay.DeleteEndpoint(ctx, n, ep)
	switch {
	case err != nil:
	case d.s.ofSwarm():
		err = in.unclaim(n, ep)
	case foreign(n):
		err = in.release(ctx, n, ep)
	}
	return err
}

func (d driver) Join(ctx context.Context, n network.Network, ep network.Endpoint, s network.Sandbox) (network.Attachment, error) {
	in, err := d.s.inside()
	if err != nil {
		return network.Attachment{}, err
	}
	return in.overlay.Join(ctx, n, ep, s)
}

func (d driver) Leave(ctx context.Context, n network.Network, ep network.Endpoint) error {
	in, _ := d.s.inside()
	if in == nil {
		return d.alone().Leave(ctx, n, ep)
	}
	return in.overlay.Leave(ctx, n, ep)
}

// addresses is the IPAM driver of the cluster that this host is in, in the same way.
type addresses struct{ s *Service }

func (addresses) DefaultAddressSpaces(context.Context) (local, global string, err error) {
	return address.AddressSpace, address.AddressSpace, nil
}

func (a addresses) RequestPool(ctx context.Context, r ipam.PoolRequest) (ipam.Pool, error) {
	in, err := a.s.inside()
	if err != nil {
		return ipam.Pool{}, err
	}
	return address.IPAM{Allocator: in.alloc}.RequestPool(ctx, r)
}

func (a addresses) ReleasePool(ctx context.Context, id string) error {
	in, _ := a.s.inside()
	if in == nil {
		return nil
	}
	return address.IPAM{Allocator: in.alloc}.ReleasePool(ctx, id)
}

func (a addresses) RequestAddress(ctx context.Context, r ipam.AddressRequest) (ipam.Address, error) {
	in, err := a.s.inside()
	if err != nil {
		return ipam.Address{}, err
	}
	return address.IPAM{Allocator: in.alloc}.RequestAddress(ctx, r)
}

func (a addresses) ReleaseAddress(ctx context.Context, id string, ip netip.Addr) error {
	in, _ := a.s.inside()
	if in == nil {
		return nil
	}
	return address.IPAM{Allocator: in.alloc}.ReleaseAddress(ctx, id, ip)
}
