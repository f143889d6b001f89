package networktest

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
	"github.com/remora-plugins/remora/sdk/network"
)

// The cases of this file are what plugins were seen to die of: what an engine leaves out,
// and the order in which it undoes.

func edgeDirect() cases {
	return cases{
		"EndpointWithoutIP":     endpointWithoutIP,
		"NetworkWithoutGateway": networkWithoutGateway,
		"GatewayRemoved":        gatewayRemoved,
		"LeaveBeforeJoin":       leaveBeforeJoin,
	}
}

func edgeWire() cases {
	return cases{
		"WireEndpointWithoutIP":     wireEndpointWithoutIP,
		"WireNetworkWithoutGateway": wireNetworkWithoutGateway,
		"WireGatewayRemoved":        wireGatewayRemoved,
		"WireLeaveBeforeJoin":       wireLeaveBeforeJoin,
	}
}

// did tells whether a call succeeded. A driver may refuse what it cannot do, but in words
// for the user, who has asked for it.
func did(t *testing.T, what string, err error) bool {
	t.Helper()
	if err != nil && !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("%s: %v, want it done, or ErrInvalid or ErrUnsupported", what, err)
	}
	return err == nil
}

// unaddressed is what "docker network create --ipam-driver null" makes of n: one pool that
// is everything, and no gateway.
func unaddressed(n network.Network) network.Network {
	n.IPv4 = []network.Pool{{AddressSpace: "null", Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}}
	n.IPv6, n.EnableIPv6 = nil, false
	return n
}

// gatewayless is n when no gateway is reserved for it, as by "--internal" with some IPAM
// drivers, and since engine 28 by what [network.GatewaySkipper] says.
func gatewayless(n network.Network) network.Network {
	for _, pools := range []*[]network.Pool{&n.IPv4, &n.IPv6} {
		*pools = slices.Clone(*pools)
		for i := range *pools {
			(*pools)[i].Gateway = netip.Prefix{}
		}
	}
	return n
}

// usable fails unless an engine could do something with the answer to a Join.
func usable(t *testing.T, n network.Network, ep network.Endpoint, a network.Attachment) {
	t.Helper()
	if a.Interface == "" && (a.Gateway.IsValid() || a.GatewayIPv6.IsValid() || len(a.Routes) > 0) {
		t.Errorf("Join: no interface, but a gateway or routes: %+v", a)
	}
	for _, gw := range []netip.Addr{a.Gateway, a.GatewayIPv6} {
		inside := false
		for _, p := range slices.Concat(n.IPv4, n.IPv6) {
			inside = inside || p.Prefix.Contains(gw)
		}
		if gw.IsValid() && (gw.IsUnspecified() || gw == ep.IPv4.Addr() || gw == ep.IPv6.Addr() || !inside && !gw.IsLinkLocalUnicast()) {
			t.Errorf("Join: gateway %s for %s and %s, of the pools %v and %v", gw, ep.IPv4, ep.IPv6, n.IPv4, n.IPv6)
		}
	}
}

// lives takes an endpoint through its life; a driver may refuse to make it.
func lives(t *testing.T, d network.Driver, n network.Network, ep network.Endpoint) {
	t.Helper()
	a, err := d.CreateEndpoint(t.Context(), n, ep)
	if did(t, "CreateEndpoint", err) {
		ep = admitted(t, ep, a)
		again, err := d.CreateEndpoint(t.Context(), n, ep)
		must(t, "CreateEndpoint again", err)
		if whole := admitted(t, ep, again); !reflect.DeepEqual(whole, ep) {
			t.Errorf("CreateEndpoint again: %+v, the first time %+v", whole, ep)
		}
		j, err := d.Join(t.Context(), n, ep, sandbox(1))
		must(t, "Join", err)
		usable(t, n, ep, j)
		undone(t, "Leave", d.Leave(t.Context(), n, ep))
	}
	undone(t, "DeleteEndpoint", d.DeleteEndpoint(t.Context(), n, ep))
}

// endpointWithoutIP: an IPAM driver may give no address, and then the engine sends none.
func endpointWithoutIP(t *testing.T, c Config) {
	for _, n := range []network.Network{c.network(1), unaddressed(c.network(2))} {
		d := c.New(t)
		if did(t, "CreateNetwork", d.CreateNetwork(t.Context(), n)) {
			lives(t, d, n, network.Endpoint{ID: c.endpoint(1).ID})
			if n.ID == c.network(1).ID { // and one that has addresses is none the worse for it
				lives(t, d, n, c.endpoint(2))
			}
		}
		undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
	}
}

func networkWithoutGateway(t *testing.T, c Config) {
	d, n := c.New(t), gatewayless(c.network(1))
	if did(t, "CreateNetwork", d.CreateNetwork(t.Context(), n)) {
		lives(t, d, n, c.endpoint(1))
	}
	undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
}

// gatewayRemoved: an endpoint that is its container's way out no longer is still on its
// network, and other endpoints are what they were.
func gatewayRemoved(t *testing.T, c Config) {
	d, n, a := connected(t, c)
	made, err := d.CreateEndpoint(t.Context(), n, c.endpoint(2))
	must(t, "CreateEndpoint", err)
	b := admitted(t, c.endpoint(2), made)
	first, err := d.Join(t.Context(), n, a, sandbox(1))
	must(t, "Join", err)
	_, err = d.Join(t.Context(), n, b, sandbox(2))
	must(t, "Join", err)
	x, ok := d.(network.ExternalConnector)
	if ok {
		undone(t, "RevokeExternal of what was never programmed", x.RevokeExternal(t.Context(), n, a))
		must(t, "ProgramExternal", x.ProgramExternal(t.Context(), n, a, network.EndpointOptions{}))
		must(t, "ProgramExternal", x.ProgramExternal(t.Context(), n, b, network.EndpointOptions{}))
		undone(t, "RevokeExternal", x.RevokeExternal(t.Context(), n, a))
	}
	again, err := d.Join(t.Context(), n, a, sandbox(1))
	must(t, "Join after RevokeExternal", err)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("Join after RevokeExternal: %+v, before %+v", again, first)
	}
	undone(t, "Leave", d.Leave(t.Context(), n, a))
	undone(t, "DeleteEndpoint", d.DeleteEndpoint(t.Context(), n, a))
	if ok {
		undone(t, "RevokeExternal of what is gone", x.RevokeExternal(t.Context(), n, a))
		must(t, "ProgramExternal of the other again", x.ProgramExternal(t.Context(), n, b, network.EndpointOptions{}))
		undone(t, "RevokeExternal of the other", x.RevokeExternal(t.Context(), n, b))
	}
	undone(t, "Leave", d.Leave(t.Context(), n, b))
	disconnect(t, d, n, b)
}

// leaveBeforeJoin: an engine that gave up on the start of a container leaves what it never
// joined. The endpoint is still there after that.
func leaveBeforeJoin(t *testing.T, c Config) {
	d, n, ep := connected(t, c)
	for range 2 {
		undone(t, "Leave of what has not joined", d.Leave(t.Context(), n, ep))
	}
	a, err := d.Join(t.Context(), n, ep, sandbox(1))
	must(t, "Join after Leave", err)
	usable(t, n, ep, a)
	undone(t, "Leave", d.Leave(t.Context(), n, ep))
	disconnect(t, d, n, ep)
}

// try makes one call that a driver may refuse.
func (p *plugin) try(method string, req any) bool {
	p.t.Helper()
	return did(p.t, method, p.client.Call(p.t.Context(), method, req, nil))
}

func wireEndpointWithoutIP(t *testing.T, c Config) {
	p := startPlugin(t, c)
	for i, n := range []network.Network{c.network(1), unaddressed(c.network(2))} {
		if !p.try(wire.NetworkCreate, createRequest(n)) {
			continue
		}
		for j, none := range []*wire.EndpointInterface{{}, nil} {
			ep := network.Endpoint{ID: c.endpoint(10*i + j).ID}
			r := endpointRequest(n, ep)
			r.Interface = none
			if p.try(wire.NetworkCreateEndpoint, r) {
				p.join(n, ep, 1)
				p.info(n, ep)
				p.restart()
				p.info(n, ep)
				p.on(wire.NetworkLeave, n, ep)
			}
			p.on(wire.NetworkDeleteEndpoint, n, ep)
		}
		p.delete(n)
	}
	p.empty()
}

func wireNetworkWithoutGateway(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), gatewayless(c.network(1)), c.endpoint(1)
	if p.try(wire.NetworkCreate, createRequest(n)) {
		if p.try(wire.NetworkCreateEndpoint, endpointRequest(n, ep)) {
			p.join(n, ep, 1)
			p.info(n, ep)
			p.revoke(n, ep) // engines send it for what was no gateway, too
			p.on(wire.NetworkLeave, n, ep)
		}
		p.on(wire.NetworkDeleteEndpoint, n, ep)
	}
	p.delete(n)
	p.empty()
}

// wireGatewayRemoved: the way out of one container goes, in the orders that an engine leaves
// behind when it dies half way, as those of 29.0 did; that of another container stays.
func wireGatewayRemoved(t *testing.T, c Config) {
	p, n, a, b := startPlugin(t, c), c.network(1), c.endpoint(1), c.endpoint(2)
	p.create(n)
	p.connect(n, a, 1)
	p.revoke(n, a) // before it was the way out
	p.program(n, a)
	p.connect(n, b, 2)
	p.program(n, b)
	p.on(wire.NetworkLeave, n, a) // while it still is
	p.revoke(n, a)
	p.on(wire.NetworkDeleteEndpoint, n, a)
	p.revoke(n, a) // when it is no more
	p.info(n, b)
	p.revoke(n, b)
	p.join(n, b, 2) // it is on its network as before
	p.program(n, b)
	p.restart()
	p.revoke(n, b)
	p.program(n, b)
	p.on(wire.NetworkDeleteEndpoint, n, b) // neither revoked nor left
	p.delete(n)
	p.empty()
}

func wireLeaveBeforeJoin(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.create(n)
	p.on(wire.NetworkLeave, n, ep) // before it is made, even
	p.call(wire.NetworkCreateEndpoint, endpointRequest(n, ep), nil)
	for range 2 {
		p.on(wire.NetworkLeave, n, ep)
	}
	p.restart()
	p.on(wire.NetworkLeave, n, ep)
	p.join(n, ep, 1)
	p.info(n, ep)
	p.on(wire.NetworkLeave, n, ep)
	p.on(wire.NetworkDeleteEndpoint, n, ep)
	p.delete(n)
	p.empty()
}
