package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

const (
	docRemote    = "moby daemon/libnetwork/docs/remote.md"
	mobyRemote   = "moby daemon/libnetwork/drivers/remote/driver.go"
	mobyEndpoint = "moby daemon/libnetwork/endpoint.go"
	mobyNetwork  = "moby daemon/libnetwork/network.go"
)

func networkCases() []Case {
	return ofKind(Network, []Case{
		{
			ID: "network/lifecycle", Basic: true, run: networkLifecycle,
			Asserts: "A network is made, a container connected to it and taken off it again, and the network removed.",
			Source:  docRemote + ", Protocol; " + mobyRemote,
		},
		{
			ID: "network/capabilities", Basic: true, run: networkCapabilities,
			Asserts: "The scope is local or global, and so is the scope of connectivity if it is there; without that no engine registers the driver.",
			Source:  docRemote + ", Set capability; " + mobyRemote + ", getCapabilities",
		},
		{
			ID: "network/gateway-check", run: gatewayCheck,
			Asserts: "A plugin that says it is a GwAllocChecker answers GwAllocCheck: engines since 28 make no network otherwise.",
			Source:  docRemote + ", Gateway Allocation Check; " + mobyRemote + ", GetSkipGwAlloc",
		},
		{
			ID: "network/settled-is-not-answered", run: settledIsNotAnswered,
			Asserts: "CreateEndpoint answers with no address that the request had set, and with no MAC if one was set: the engine deletes such an endpoint.",
			Source:  docRemote + ", Create endpoint; " + mobyRemote + ", CreateEndpoint",
		},
		{
			ID: "network/join-is-admissible", run: joinIsAdmissible,
			Asserts: "Join answers with an interface and a prefix for its name, or with neither and then without gateway or routes; addresses and routes can be read.",
			Source:  docRemote + ", Join; " + mobyRemote + ", Join and parseStaticRoutes",
		},
		{
			ID: "network/interface-is-there", run: interfaceIsThere,
			Asserts: "The interface that Join names is on the host when it answers, and is gone when the endpoint is.",
			Source:  docRemote + ", Join and Leave; moby daemon/libnetwork/sandbox_linux.go, populateNetworkResources",
		},
		{
			ID: "network/oper-info", run: operInfo,
			Asserts: "EndpointOperInfo is answered with an object for an endpoint that has joined: engines before 23 start no container otherwise.",
			Source:  docRemote + ", Endpoint operational info; " + mobyRemote + ", EndpointOperInfo",
		},
		{
			ID: "network/external", run: external,
			Asserts: "ProgramExternalConnectivity and RevokeExternalConnectivity succeed, or are answered with status 404, which engines tolerate.",
			Source:  mobyRemote + ", ProgramExternalConnectivity (IsNotFound)",
		},
		{
			ID: "network/each-call-twice", run: eachCallTwice,
			Asserts: "Each call may be repeated, as one whose answer was lost is: makers succeed with the same answer, and undoers do no harm.",
			Source:  mobyClient + ", callWithRetry; moby issue 33756",
		},
		{
			ID: "network/internal", run: internalNetwork,
			Asserts: "A network that is internal works as others do.",
			Source:  mobyNetwork + ", NetworkOptionInternalNetwork (com.docker.network.internal)",
		},
		{
			ID: "network/ipv6", run: networkIPv6,
			Asserts: "A network with IPv6 beside IPv4 works, and CreateEndpoint answers with neither address; or it is refused.",
			Source:  docRemote + ", Create network and Create endpoint; " + mobyRemote + ", CreateEndpoint (AddressIPv6)",
		},
		{
			ID: "network/without-gateway", run: withoutGateway,
			Asserts: "A network for which no gateway is reserved works, or is refused; no gateway is made up in its subnet, where a container may get that address.",
			Source:  mobyNetwork + ", ipamAllocate (gateway may be left out since 28); " + docRemote + ", Create network and Join",
		},
		{
			ID: "network/without-address", run: withoutAddress,
			Asserts: "An endpoint for which there is no address, as with the IPAM driver null, works or is refused.",
			Source:  "moby daemon/libnetwork/ipams/null/null.go; " + mobyRemote + ", CreateEndpoint",
		},
		{
			ID: "network/unknown", run: unknownNetwork,
			Asserts: "CreateEndpoint on a network that was never made, and Join of an endpoint that was not, are refused.",
			Source:  docRemote + ", Create endpoint and Join",
		},
		{
			ID: "network/empty-body", run: networkEmptyBody,
			Asserts: "A call without a body is not answered as if it had been carried out: it is how an engine repeats a call after its connection broke.",
			Source:  mobyClient + ", callWithRetry",
		},
	})
}

// subnetOf returns the i-th prefix of 24 bits in the subnet of the run.
func (t *T) subnetOf(i int) netip.Prefix {
	b := t.p.subnet.Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8
	if t.p.subnet.Bits() < 24 {
		n += uint32(i) << 8 & (1<<(32-t.p.subnet.Bits()) - 1) //nolint:gosec // a small number
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8)}), 24) //nolint:gosec // bytes
}

// nth returns the address with the number i in p.
func nth(p netip.Prefix, i int) netip.Prefix {
	b := p.Addr().As4()
	b[3] += byte(i) //nolint:gosec // below 256
	return netip.PrefixFrom(netip.AddrFrom4(b), p.Bits())
}

// network describes the i-th network of a case, which is not made yet.
func (t *T) network(i int) network.Network {
	p := t.subnetOf(i)
	n := network.Network{
		ID: t.hex(64, "network", i), EnableIPv4: true, Options: map[string]string{},
		IPv4: []network.Pool{{AddressSpace: "LocalDefault", Prefix: p, Gateway: nth(p, 1)}},
	}
	maps.Copy(n.Options, t.options(n.ID))
	return n
}

// endpoint describes the i-th endpoint on a network.
func (t *T) endpoint(n network.Network, i int) network.Endpoint {
	ep := network.Endpoint{ID: t.hex(64, "endpoint", i, n.ID), IPv4: nth(n.IPv4[0].Prefix, 2+i)}
	ep.Options.ExposedPorts = []network.Port{{Protocol: network.TCP, Number: 80}}
	return ep
}

func (t *T) sandbox(i int) network.Sandbox {
	return network.Sandbox{Key: "/var/run/docker/netns/" + t.hex(12, "sandbox", i)}
}

func (t *T) createNetwork(i int) network.Network {
	n := t.network(i)
	t.must("CreateNetwork", t.tryNetwork(n))
	return n
}

func (t *T) connect(n network.Network, ep network.Endpoint, sandbox int) network.Attachment {
	_, err := t.tryEndpoint(n, ep)
	t.must("CreateEndpoint", err)
	return t.join(n, ep, sandbox)
}

func (t *T) join(n network.Network, ep network.Endpoint, sandbox int) network.Attachment {
	a, err := t.c.Network().Join(t.ctx, n.ID, ep.ID, t.sandbox(sandbox))
	t.must("Join", err)
	return a
}

func (t *T) info(n network.Network, ep network.Endpoint) {
	_, err := t.c.Network().Info(t.ctx, n.ID, ep.ID)
	t.must("EndpointOperInfo", err)
}

// tolerated wants a call to succeed, or to be one that the plugin does not have.
func (t *T) tolerated(what string, err error) {
	if err != nil && !errors.Is(err, errdefs.ErrUnsupported) {
		t.Fatalf("%s: %w", what, err)
	}
}

func (t *T) program(n network.Network, ep network.Endpoint) {
	t.tolerated("ProgramExternalConnectivity", t.c.Network().ProgramExternal(t.ctx, n.ID, ep.ID, ep.Options))
}

func (t *T) revoke(n network.Network, ep network.Endpoint) {
	t.tolerated("RevokeExternalConnectivity", t.c.Network().RevokeExternal(t.ctx, n.ID, ep.ID))
}

func (t *T) leave(n network.Network, ep network.Endpoint) {
	t.must("Leave", t.c.Network().Leave(t.ctx, n.ID, ep.ID))
}

func (t *T) deleteEndpoint(n network.Network, ep network.Endpoint) {
	t.must("DeleteEndpoint", t.tryDeleteEndpoint(n, ep))
}

func (t *T) deleteNetwork(n network.Network) {
	t.must("DeleteNetwork", t.tryDeleteNetwork(n))
}

// disconnect is the end of a container.
func (t *T) disconnect(n network.Network, ep network.Endpoint) {
	t.leave(n, ep)
	t.deleteEndpoint(n, ep)
}

func networkLifecycle(t *T) {
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	t.connect(n, ep, 1)
	t.info(n, ep)
	t.disconnect(n, ep)
	t.deleteNetwork(n)
}

func networkCapabilities(t *T) {
	for range 2 {
		_, err := t.c.Network().Capabilities(t.ctx)
		t.must("GetCapabilities", err)
	}
}

func gatewayCheck(t *T) {
	c := t.c.Network()
	caps, err := c.Capabilities(t.ctx)
	t.must("GetCapabilities", err)
	if !caps.SkipsGateways {
		t.Skipf("the plugin does not say that it is a GwAllocChecker")
	}
	n := t.network(1)
	_, _, err = c.SkipGateways(t.ctx, n)
	t.must("GwAllocCheck", err)
	t.must("CreateNetwork", t.tryNetwork(n))
	t.deleteNetwork(n)
}

func settledIsNotAnswered(t *T) {
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	a, err := t.tryEndpoint(n, ep)
	t.must("CreateEndpoint", err)
	if a.IPv4.IsValid() {
		t.Errorf("CreateEndpoint answers with the address %s although one was set; the engine deletes the endpoint", a.IPv4)
	}
	t.deleteEndpoint(n, ep)

	ep = t.endpoint(n, 2)
	ep.MAC = net.HardwareAddr{2, 0x42, 198, 18, 1, 2}
	a, err = t.tryEndpoint(n, ep)
	t.must("CreateEndpoint", err)
	if a.IPv4.IsValid() || a.MAC != nil {
		t.Errorf("CreateEndpoint answers with address %s and MAC %s although both were set; the engine deletes the endpoint", a.IPv4, a.MAC)
	}
	t.deleteEndpoint(n, ep)
	t.deleteNetwork(n)
}

// admissible says what an engine could not use of the answer to a Join.
func (t *T) admissible(n network.Network, ep network.Endpoint, a network.Attachment) {
	if a.Interface == "" && (a.Gateway.IsValid() || a.GatewayIPv6.IsValid() || len(a.Routes) > 0) {
		t.Errorf("Join: no interface, but a gateway or routes: %+v", a)
	}
	if a.Interface != "" && a.Prefix == "" {
		t.Errorf("Join: interface %q without a prefix for its name in the container", a.Interface)
	}
	if gw := a.Gateway; gw.IsValid() && (gw.IsUnspecified() || gw == ep.IPv4.Addr()) {
		t.Errorf("Join: gateway %s for the container with address %s on %s", gw, ep.IPv4, n.IPv4[0].Prefix)
	}
	for _, r := range a.Routes {
		if !r.Destination.IsValid() {
			t.Errorf("Join: a route without a destination")
		}
	}
}

func joinIsAdmissible(t *T) {
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	t.admissible(n, ep, t.connect(n, ep, 1))
	t.disconnect(n, ep)
	t.deleteNetwork(n)
}

func interfaceIsThere(t *T) {
	t.here()
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	a := t.connect(n, ep, 1)
	if a.Interface == "" {
		t.Skipf("Join names no interface")
	}
	if _, err := net.InterfaceByName(a.Interface); err != nil {
		t.Errorf("Join names the interface %q, which is not there: %v", a.Interface, err)
	}
	t.disconnect(n, ep)
	if _, err := net.InterfaceByName(a.Interface); err == nil {
		t.Errorf("interface %q is still there after DeleteEndpoint", a.Interface)
	}
	t.deleteNetwork(n)
}

func operInfo(t *T) {
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	t.connect(n, ep, 1)
	for range 2 {
		t.info(n, ep)
	}
	t.disconnect(n, ep)
	t.deleteNetwork(n)
}

func external(t *T) {
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	t.connect(n, ep, 1)
	ep.Options.PortMap = []network.PortBinding{}
	t.program(n, ep)
	t.info(n, ep)
	t.revoke(n, ep)
	t.disconnect(n, ep)
	t.deleteNetwork(n)
}

func eachCallTwice(t *T) {
	n := t.createNetwork(1)
	t.must("CreateNetwork again", t.tryNetwork(n))
	ep := t.endpoint(n, 1)
	first, err := t.tryEndpoint(n, ep)
	t.must("CreateEndpoint", err)
	again, err := t.tryEndpoint(n, ep)
	t.must("CreateEndpoint again", err)
	if first.IPv4 != again.IPv4 || !bytes.Equal(first.MAC, again.MAC) {
		t.Errorf("CreateEndpoint again answers %+v, and answered %+v", again, first)
	}
	one, two := t.join(n, ep, 1), t.join(n, ep, 1)
	if fmt.Sprint(one) != fmt.Sprint(two) {
		t.Errorf("Join again answers %+v, and answered %+v", two, one)
	}
	c := t.c.Network()
	for _, undo := range []struct {
		what string
		call func() error
	}{
		{"Leave", func() error { return c.Leave(t.ctx, n.ID, ep.ID) }},
		{"DeleteEndpoint", func() error { return t.tryDeleteEndpoint(n, ep) }},
		{"DeleteNetwork", func() error { return t.tryDeleteNetwork(n) }},
	} {
		t.must(undo.what, undo.call())
		if err := undo.call(); unanswered(err) { // engines only log what else it may say
			t.Fatalf("%s again: %w", undo.what, err)
		}
	}
	t.must("CreateNetwork after it was deleted", t.tryNetwork(n))
	t.deleteNetwork(n)
}

func internalNetwork(t *T) {
	n := t.network(1)
	n.Internal = true
	t.must("CreateNetwork", t.tryNetwork(n))
	ep := t.endpoint(n, 1)
	t.connect(n, ep, 1)
	t.info(n, ep)
	t.disconnect(n, ep)
	t.deleteNetwork(n)
}

func networkIPv6(t *T) {
	n := t.network(1)
	local := t.p.subnet6()
	n.EnableIPv6 = true
	n.IPv6 = []network.Pool{{AddressSpace: "LocalDefault", Prefix: local, Gateway: netip.PrefixFrom(local.Addr().Next(), local.Bits())}}
	if !t.allowed("CreateNetwork", t.tryNetwork(n)) {
		return
	}
	ep := t.endpoint(n, 1)
	ep.IPv6 = netip.PrefixFrom(n.IPv6[0].Gateway.Addr().Next(), local.Bits())
	a, err := t.tryEndpoint(n, ep)
	t.must("CreateEndpoint", err)
	if a.IPv4.IsValid() || a.IPv6.IsValid() {
		t.Errorf("CreateEndpoint answers with the addresses %s and %s although both were set; the engine deletes the endpoint", a.IPv4, a.IPv6)
	}
	t.admissible(n, ep, t.join(n, ep, 1))
	t.info(n, ep)
	t.disconnect(n, ep)
	t.deleteNetwork(n)
}

// allowed tells whether a call succeeded that a plugin may refuse.
func (t *T) allowed(what string, err error) bool {
	if unanswered(err) {
		t.Fatalf("%s: %w", what, err)
	}
	return err == nil
}

func withoutGateway(t *T) {
	n := t.network(1)
	n.IPv4[0].Gateway = netip.Prefix{}
	if !t.allowed("CreateNetwork", t.tryNetwork(n)) {
		return
	}
	ep := t.endpoint(n, 1)
	if _, err := t.tryEndpoint(n, ep); t.allowed("CreateEndpoint", err) {
		a := t.join(n, ep, 1)
		t.admissible(n, ep, a)
		if gw := a.Gateway; n.IPv4[0].Prefix.Contains(gw) {
			t.Errorf("Join answers with the gateway %s out of %s, where none is reserved", gw, n.IPv4[0].Prefix)
		}
		t.info(n, ep)
		t.disconnect(n, ep)
	}
	t.deleteNetwork(n)
}

func withoutAddress(t *T) {
	n := t.network(1)
	n.IPv4 = []network.Pool{{AddressSpace: "null", Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}}
	if !t.allowed("CreateNetwork", t.tryNetwork(n)) {
		return
	}
	ep := network.Endpoint{ID: t.hex(64, "endpoint", 1)}
	if _, err := t.tryEndpoint(n, ep); t.allowed("CreateEndpoint", err) {
		t.admissible(n, ep, t.join(n, ep, 1))
		t.info(n, ep)
		t.disconnect(n, ep)
	}
	t.deleteNetwork(n)
}

func unknownNetwork(t *T) {
	n := t.network(1)
	ep := t.endpoint(n, 1)
	if _, err := t.tryEndpoint(n, ep); err == nil {
		t.Errorf("CreateEndpoint on a network that was never made succeeds")
	} else if unanswered(err) {
		t.Fatalf("CreateEndpoint on a network that was never made: %w", err)
	}
	t.must("CreateNetwork", t.tryNetwork(n))
	other := t.endpoint(n, 2)
	if _, err := t.c.Network().Join(t.ctx, n.ID, other.ID, t.sandbox(1)); err == nil {
		t.Errorf("Join of an endpoint that was never made succeeds")
	} else if unanswered(err) {
		t.Fatalf("Join of an endpoint that was never made: %w", err)
	}
	t.deleteNetwork(n)
}

func networkEmptyBody(t *T) {
	for _, method := range []string{"CreateNetwork", "CreateEndpoint", "Join"} {
		t.refused(method+" without a body", "NetworkDriver."+method, "")
	}
	if _, err := t.c.Network().Capabilities(t.ctx); unanswered(err) {
		t.Fatalf("GetCapabilities after that: %w", err)
	}
	var answer json.RawMessage
	_ = t.c.Call(t.ctx, "NetworkDriver.DeleteNetwork", map[string]string{"NetworkID": ""}, &answer) // what a plugin may have made of it
}
