package networktest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/internal/wire"
	"github.com/remora-plugins/remora/sdk/network"
)

func lifeWire() cases {
	return cases{
		"Activate":                   activate,
		"EachCallTwice":              eachCallTwice,
		"GatewayMoves":               gatewayMoves,
		"DeleteEndpointWhileJoined":  deleteEndpointWhileJoined,
		"DeleteNetworkWithEndpoints": deleteNetworkWithEndpoints,
	}
}

// checks are the cases of package check.
func checks() cases {
	return suitetest.Checks(check.Network, func(t *testing.T, c Config) (string, check.Options, func()) {
		p := startPlugin(t, c)
		return p.socket, check.Options{Create: c.Options}, p.empty
	})
}

func answerWire() cases {
	return cases{
		"SettledIsNotAnswered":  settledIsNotAnswered,
		"UnknownObjects":        unknownObjects,
		"OtherEndpointOfThatID": otherEndpointOfThatID,
		"EmptyBodyDoesNothing":  emptyBodyDoesNothing,
		"CallerHangsUp":         callerHangsUp,
		"GatewayCheck":          gatewayCheck,
	}
}

func restartWire() cases {
	return cases{
		"RestartWithNetwork": restartWithNetwork,
		"RestartWhileJoined": restartWhileJoined,
		"EngineKilled":       engineKilled,
	}
}

func activate(t *testing.T, c Config) {
	p := startPlugin(t, c)
	kinds, err := p.client.Activate(t.Context())
	must(t, "Activate", err)
	if !slices.Equal(kinds, []string{"NetworkDriver"}) {
		t.Errorf("Activate: %q", kinds)
	}
	var caps wire.NetworkCapabilitiesResponse
	p.call(wire.NetworkGetCapabilities, nil, &caps)
	for _, scope := range []string{caps.Scope, caps.ConnectivityScope} {
		if scope != "local" && scope != "global" {
			t.Errorf("GetCapabilities: scope %q", scope)
		}
	}
}

func eachCallTwice(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.create(n)
	p.create(n)
	made, joined := p.connect(n, ep, 1)
	madeAgain, joinedAgain := p.connect(n, ep, 1)
	if got, want := encode(t, madeAgain), encode(t, made); got != want {
		t.Errorf("CreateEndpoint again: %s, the first time %s", got, want)
	}
	if got, want := encode(t, joinedAgain), encode(t, joined); got != want {
		t.Errorf("Join again: %s, the first time %s", got, want)
	}
	p.program(n, ep)
	p.program(n, ep)
	p.revoke(n, ep)
	p.revoke(n, ep)
	for range 2 {
		p.on(wire.NetworkLeave, n, ep)
	}
	for range 2 {
		p.on(wire.NetworkDeleteEndpoint, n, ep)
	}
	p.delete(n)
	p.delete(n)
	p.empty()
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, "encode", err)
	return string(b)
}

// gatewayMoves is a container with two networks, of which one is its way out after the
// other.
func gatewayMoves(t *testing.T, c Config) {
	p, n, a, b := startPlugin(t, c), c.network(1), c.endpoint(1), c.endpoint(2)
	p.create(n)
	p.connect(n, a, 1)
	p.program(n, a)
	p.info(n, a)
	p.connect(n, b, 1)
	p.revoke(n, a)
	p.program(n, b)
	p.revoke(n, b)
	p.program(n, a)
	p.on(wire.NetworkLeave, n, b)
	p.info(n, a)
	p.on(wire.NetworkDeleteEndpoint, n, b)
	p.revoke(n, a)
	p.on(wire.NetworkLeave, n, a)
	p.on(wire.NetworkDeleteEndpoint, n, a)
	p.delete(n)
	p.empty()
}

// deleteEndpointWhileJoined is what an engine of version 20.10 does after a Join that it
// could not use.
func deleteEndpointWhileJoined(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.create(n)
	p.connect(n, ep, 1)
	p.program(n, ep)
	p.on(wire.NetworkDeleteEndpoint, n, ep)
	p.on(wire.NetworkLeave, n, ep) // too late, and no mistake
	p.delete(n)
	p.empty()
}

func deleteNetworkWithEndpoints(t *testing.T, c Config) {
	p, n := startPlugin(t, c), c.network(1)
	p.create(n)
	for i := range 3 {
		p.connect(n, c.endpoint(i), i)
	}
	p.delete(n)
	p.empty()
}

func settledIsNotAnswered(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	ep.MAC = mac(1)
	p.create(n)
	made, _ := p.connect(n, ep, 1)
	if i := made.Interface; i != nil && (i.Address != "" || i.MacAddress != "" || ep.IPv6.IsValid() && i.AddressIPv6 != "") {
		t.Errorf("CreateEndpoint answers %+v to one that had it all; an engine refuses that", *i)
	}
	p.on(wire.NetworkDeleteEndpoint, n, ep)

	// Without a MAC the driver may choose one, and says the same again.
	ep = c.endpoint(2)
	made, _ = p.connect(n, ep, 2)
	if i := made.Interface; i != nil {
		if i.Address != "" {
			t.Errorf("CreateEndpoint answers address %q although it was settled", i.Address)
		}
		if _, err := net.ParseMAC(i.MacAddress); i.MacAddress != "" && err != nil {
			t.Errorf("CreateEndpoint: %v", err)
		}
	}
	p.delete(n)
	p.empty()
}

func unknownObjects(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.info(n, ep)
	p.on(wire.NetworkLeave, n, ep)
	p.on(wire.NetworkDeleteEndpoint, n, ep)
	p.delete(n)
	p.refused(wire.NetworkCreateEndpoint, endpointRequest(n, ep), errdefs.ErrNotFound)
	p.create(n)
	p.refused(wire.NetworkJoin, wire.JoinRequest{NetworkID: n.ID, EndpointID: ep.ID, SandboxKey: sandbox(1).Key}, errdefs.ErrNotFound)
	p.refused(wire.NetworkDelete, wire.NetworkRequest{NetworkID: "../" + n.ID}, errdefs.ErrInvalid)
	p.delete(n)
	p.empty()
}

func otherEndpointOfThatID(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.create(n)
	p.connect(n, ep, 1)
	other := c.endpoint(2)
	other.ID = ep.ID
	p.refused(wire.NetworkCreateEndpoint, endpointRequest(n, other), errdefs.ErrExists)
	p.refused(wire.NetworkJoin, wire.JoinRequest{NetworkID: n.ID, EndpointID: ep.ID, SandboxKey: sandbox(2).Key}, errdefs.ErrInUse)
	p.delete(n)
	p.empty()
}

// emptyBodyDoesNothing is how an engine repeats a call after a connection that broke.
func emptyBodyDoesNothing(t *testing.T, c Config) {
	p := startPlugin(t, c)
	for _, method := range []string{
		wire.NetworkCreate, wire.NetworkDelete, wire.NetworkCreateEndpoint, wire.NetworkDeleteEndpoint, wire.NetworkJoin, wire.NetworkLeave,
	} {
		p.refused(method, nil, errdefs.ErrInvalid)
	}
	p.empty0()
}

// empty0 is empty where the state may not have been touched at all.
func (p *plugin) empty0() {
	p.t.Helper()
	if left := p.handler.Networks(); len(left) > 0 {
		p.t.Errorf("networks %+v", left)
	}
}

func callerHangsUp(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.create(n)
	for range 5 {
		body, err := json.Marshal(endpointRequest(n, ep))
		must(t, "encode", err)
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", p.socket)
		must(t, "dial", err)
		r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, "http://x/"+wire.NetworkCreateEndpoint, strings.NewReader(string(body)))
		must(t, "request", err)
		must(t, "write", r.Write(conn))
		must(t, "close", conn.Close())
	}
	// Whatever came of that, the engine goes on with what it knows.
	p.on(wire.NetworkDeleteEndpoint, n, ep)
	p.connect(n, c.endpoint(2), 2)
	p.delete(n)
	p.kill() // until which a late call may have come
	p.start()
	for _, left := range p.handler.Networks() {
		t.Errorf("network is left: %+v", left)
	}
}

func gatewayCheck(t *testing.T, c Config) {
	p := startPlugin(t, c)
	var caps wire.NetworkCapabilitiesResponse
	p.call(wire.NetworkGetCapabilities, nil, &caps)
	_, skips := p.driver.(network.GatewaySkipper)
	if caps.GwAllocChecker != skips {
		t.Errorf("GetCapabilities: GwAllocChecker %t, and the driver has it: %t", caps.GwAllocChecker, skips)
	}
	p.call(wire.NetworkGwAllocCheck, wire.GwAllocCheckRequest{Options: createRequest(c.network(1)).Options}, nil)
}

// restartWithNetwork: an engine never creates a network again.
func restartWithNetwork(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.create(n)
	p.restart()
	p.connect(n, ep, 1)
	p.on(wire.NetworkLeave, n, ep)
	p.on(wire.NetworkDeleteEndpoint, n, ep)
	p.delete(n)
	p.empty()
	p.restart()
	p.empty()
}

func restartWhileJoined(t *testing.T, c Config) {
	p, n, ep := startPlugin(t, c), c.network(1), c.endpoint(1)
	p.create(n)
	p.connect(n, ep, 1)
	p.program(n, ep)
	p.restart()
	p.info(n, ep)
	p.revoke(n, ep)
	p.on(wire.NetworkLeave, n, ep)
	p.restart()
	p.on(wire.NetworkDeleteEndpoint, n, ep)
	p.delete(n)
	p.empty()
}

// engineKilled is what an engine sends when it starts after it was killed.
func engineKilled(t *testing.T, c Config) {
	p, n := startPlugin(t, c), c.network(1)
	p.create(n)
	for i := range 3 {
		p.connect(n, c.endpoint(i), i)
		p.program(n, c.endpoint(i))
	}
	_, err := p.client.Activate(t.Context())
	must(t, "Activate", err)
	p.call(wire.NetworkGetCapabilities, nil, nil)
	for i := range 3 {
		p.revoke(n, c.endpoint(i))
		p.on(wire.NetworkLeave, n, c.endpoint(i))
		p.on(wire.NetworkDeleteEndpoint, n, c.endpoint(i))
	}
	p.connect(n, c.endpoint(7), 7)
	p.delete(n)
	p.empty()
}
