// Package overlay connects containers of many hosts in one network, which to them is one flat subnet.
//
// The driver makes the pair of interfaces by which a container is connected, and nothing else: the addresses come
// from the IPAM driver of the same name, and bridge, routes, encryption and firewall from the mesh. It
// knows both by small interfaces.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// Network describes the driver to the daemon.
func Network() catalog.Network {
	return catalog.Network{
		Name: "overlay", Doc: "one flat subnet across hosts, encrypted by WireGuard", Options: catalog.Describe[options](), Choose: choices,
		Open: func(env catalog.NetworkEnv) network.Driver { return New(env) },
	}
}

// Driver is a [network.Driver].
type Driver struct{ c catalog.NetworkEnv }

var (
	_ network.Driver = (*Driver)(nil)
	_ network.Scoper = (*Driver)(nil)
	_ catalog.Joined = (*Driver)(nil)
)

// New returns a Driver.
func New(c catalog.NetworkEnv) *Driver { return &Driver{c} }

// Scope says that each engine has networks of its own, which connect to those of other hosts.
func (*Driver) Scope() (scope, connectivity network.Scope) { return network.Local, network.Global }

// known is what is remembered of a network.
type known struct {
	Network   string         `json:"network"` // its ID in the cluster
	Gateways  []netip.Prefix `json:"gateways"`
	Multicast bool           `json:"multicast"`
	Internal  bool           `json:"internal"`
}

const knownVersion = 1

// file is where that lies. IDs were checked by the Handler: they are letters and digits.
func file(id string) string { return id + ".json" }

func (d *Driver) known(id string) (k known, err error) {
	err = state.Read(d.c.Root, file(id), knownVersion, &k)
	return k, err
}

// CreateNetwork makes the network on this host.
func (d *Driver) CreateNetwork(ctx context.Context, n network.Network) error {
	c, err := choices(n)
	if err != nil {
		return err
	}
	k := known{Multicast: c.Multicast != nil && *c.Multicast, Internal: c.Internal != nil && *c.Internal}
	for _, p := range slices.Concat(n.IPv4, n.IPv6) {
		id, err := d.c.Networks.Lookup(p)
		switch {
		case err != nil:
			return err
		case k.Network != "" && id != k.Network:
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "subnet %s: of another network than the first one", p.Prefix),
				"name the network for both families: --ipam-opt net=NAME")
		case !p.Gateway.IsValid():
			return errdefs.Errorf(errdefs.ErrUnsupported, "subnet %s: without a gateway, whose address the bridge has", p.Prefix)
		}
		k.Network, k.Gateways = id, append(k.Gateways, netip.PrefixFrom(p.Gateway.Addr(), p.Prefix.Bits()))
	}
	if k.Network == "" {
		return errdefs.Errorf(errdefs.ErrUnsupported, "a network without addresses")
	}
	if err := d.c.Networks.Configure(ctx, k.Network, c); err != nil {
		return err
	}
	if err := state.Write(d.c.Root, file(n.ID), knownVersion, k); err != nil {
		return err
	}
	_, err = d.c.Mesh.EnsureNetwork(ctx, k.Network, k.Gateways...)
	return err
}

// DeleteNetwork takes it away.
func (d *Driver) DeleteNetwork(ctx context.Context, n network.Network) error {
	k, err := d.known(n.ID)
	if err != nil {
		return err // of which ErrNotFound is fine
	}
	if err := d.c.Mesh.RemoveNetwork(ctx, k.Network); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return state.Remove(d.c.Root, file(n.ID))
}

// CreateEndpoint chooses a MAC.
func (d *Driver) CreateEndpoint(_ context.Context, n network.Network, ep network.Endpoint) (network.Assigned, error) {
	if _, err := d.known(n.ID); err != nil {
		return network.Assigned{}, err
	}
	if !ep.IPv4.IsValid() && !ep.IPv6.IsValid() {
		return network.Assigned{}, errdefs.Errorf(errdefs.ErrUnsupported, "an endpoint without an address")
	}
	if ep.MAC != nil {
		return network.Assigned{}, nil
	}
	return network.Assigned{MAC: macOf(ep)}, nil
}

// DeleteEndpoint takes away what may be left of it.
func (d *Driver) DeleteEndpoint(ctx context.Context, n network.Network, ep network.Endpoint) error {
	return d.Leave(ctx, n, ep)
}

// Join makes the pair of interfaces.
func (d *Driver) Join(ctx context.Context, n network.Network, ep network.Endpoint, _ network.Sandbox) (network.Attachment, error) {
	k, err := d.known(n.ID)
	if err != nil {
		return network.Attachment{}, err
	}
	b, err := d.c.Mesh.EnsureNetwork(ctx, k.Network, k.Gateways...) // nothing else has made it after a reboot
	if err != nil {
		return network.Attachment{}, err
	}
	mac := ep.MAC
	if mac == nil {
		mac = macOf(ep)
	}
	outside, inside := portNames(ep.ID)
	if err := makePair(outside, inside, b.MTU, mac); err != nil {
		return network.Attachment{}, fmt.Errorf("interface %s: %w", outside, err)
	}
	if err := d.c.Mesh.AttachPort(k.Network, outside); err != nil {
		return network.Attachment{}, errors.Join(err, removeLink(outside))
	}
	// The engine moves the other end and sets it up. There is no gateway: the way out, and ports that are
	// published, are the engine's own business, on its bridge.
	a := network.Attachment{Interface: inside, Prefix: "eth", NoGatewayBridge: k.Internal}
	for _, r := range b.Routes {
		if r.Destination.Addr().Is6() && ep.IPv6.IsValid() || r.Destination.Addr().Is4() && ep.IPv4.IsValid() {
			a.Routes = append(a.Routes, r)
		}
	}
	if k.Multicast && ep.IPv4.IsValid() {
		a.Routes = append(a.Routes, network.Route{Destination: netip.MustParsePrefix("224.0.0.0/4")})
	}
	return a, nil
}

// Leave takes the pair away, if that did not go with the sandbox.
func (d *Driver) Leave(_ context.Context, _ network.Network, ep network.Endpoint) error {
	outside, inside := portNames(ep.ID)
	for _, name := range []string{outside, inside} {
		if err := removeLink(name); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
	}
	return nil
}

// Joined implements [catalog.Joined]: the end of a pair that stays on the host goes with the sandbox.
func (d *Driver) Joined(ep network.Endpoint) (bool, error) {
	outside, _ := portNames(ep.ID)
	_, err := netlink.LinkByName(outside)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return false, nil
	}
	return err == nil, err
}
