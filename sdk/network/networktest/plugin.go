package networktest

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/internal/wire"
	"github.com/remora-plugins/remora/sdk/network"
)

// plugin is a whole plugin on a socket, and the engine that calls it. It can be restarted.
type plugin struct {
	t      *testing.T
	config Config
	driver network.Driver
	state  string
	socket string

	handler *network.Handler
	client  *client.Client
	stop    func() // nil while it does not run
}

func startPlugin(t *testing.T, c Config) *plugin {
	t.Helper()
	socket := suitetest.Socket(t)
	p := &plugin{t: t, config: c, socket: socket, state: filepath.Join(filepath.Dir(socket), "state"), driver: c.New(t)}
	t.Cleanup(p.kill)
	p.start()
	return p
}

func (p *plugin) start() {
	p.t.Helper()
	log := slog.New(slog.NewTextHandler(p.t.Output(), nil))
	h, err := network.NewHandler(p.t.Context(), p.driver, network.Options{Logger: log, State: network.Dir(p.state)})
	must(p.t, "NewHandler", err)
	p.handler = h
	p.client, p.stop = suitetest.Serve(p.t, p.socket, h, log, time.Minute)
}

// kill ends the plugin and leaves everything as it is.
func (p *plugin) kill() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// restart ends the plugin and starts it again with the same state.
func (p *plugin) restart() {
	p.t.Helper()
	p.kill()
	if p.config.Reopen != nil {
		p.driver = p.config.Reopen(p.t, p.driver)
	}
	p.start()
}

// call makes one call, which must succeed.
func (p *plugin) call(method string, req, resp any) {
	p.t.Helper()
	if err := p.client.Call(p.t.Context(), method, req, resp); err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
}

// refused makes one call, which must fail with a class.
func (p *plugin) refused(method string, req any, class error) {
	p.t.Helper()
	if err := p.client.Call(p.t.Context(), method, req, nil); !errors.Is(err, class) {
		p.t.Errorf("%s: %v, want it to be of class %q", method, err, class)
	}
}

func (p *plugin) create(n network.Network) {
	p.t.Helper()
	p.call(wire.NetworkCreate, createRequest(n), nil)
}

func createRequest(n network.Network) wire.CreateNetworkRequest {
	generic, _ := json.Marshal(n.Options) // a map of strings
	r := wire.CreateNetworkRequest{
		NetworkID: n.ID, IPv4Data: pools(n.IPv4), IPv6Data: pools(n.IPv6),
		Options: wire.NetworkOptions{wire.OptionGeneric: generic, wire.OptionEnableIPv6: json.RawMessage("false")},
	}
	if n.EnableIPv6 {
		r.Options[wire.OptionEnableIPv6] = json.RawMessage("true")
	}
	return r
}

func pools(all []network.Pool) []wire.IPAMData {
	data := []wire.IPAMData{}
	for _, p := range all {
		data = append(data, wire.IPAMData{AddressSpace: p.AddressSpace, Gateway: text(p.Gateway), Pool: p.Prefix.String()})
	}
	return data
}

func (p *plugin) delete(n network.Network) {
	p.t.Helper()
	p.call(wire.NetworkDelete, wire.NetworkRequest{NetworkID: n.ID}, nil)
}

func endpointRequest(n network.Network, ep network.Endpoint) wire.CreateEndpointRequest {
	return wire.CreateEndpointRequest{
		NetworkID: n.ID, EndpointID: ep.ID, Options: wire.NetworkOptions{
			wire.OptionExposedPorts: json.RawMessage(`[{"Proto":6,"Port":80}]`),
			wire.OptionPortMap:      json.RawMessage(`[]`),
		},
		Interface: &wire.EndpointInterface{Address: text(ep.IPv4), AddressIPv6: text(ep.IPv6), MacAddress: ep.MAC.String()},
	}
}

func text(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// connect makes an endpoint and joins it, as an engine does when a container starts.
func (p *plugin) connect(n network.Network, ep network.Endpoint, i int) (wire.CreateEndpointResponse, wire.JoinResponse) {
	p.t.Helper()
	var made wire.CreateEndpointResponse
	p.call(wire.NetworkCreateEndpoint, endpointRequest(n, ep), &made)
	return made, p.join(n, ep, i)
}

func (p *plugin) join(n network.Network, ep network.Endpoint, i int) (joined wire.JoinResponse) {
	p.t.Helper()
	p.call(wire.NetworkJoin, wire.JoinRequest{NetworkID: n.ID, EndpointID: ep.ID, SandboxKey: sandbox(i).Key}, &joined)
	return joined
}

func (p *plugin) on(method string, n network.Network, ep network.Endpoint) {
	p.t.Helper()
	p.call(method, wire.EndpointRequest{NetworkID: n.ID, EndpointID: ep.ID}, nil)
}

// external makes a call that a driver may lack.
func (p *plugin) external(method string, req any) {
	p.t.Helper()
	err := p.client.Call(p.t.Context(), method, req, nil)
	if _, ok := p.driver.(network.ExternalConnector); !ok {
		if !errors.Is(err, errdefs.ErrUnsupported) {
			p.t.Errorf("%s of a driver without it: %v, want status 404", method, err)
		}
		return
	}
	must(p.t, method, err)
}

func (p *plugin) program(n network.Network, ep network.Endpoint) {
	p.t.Helper()
	p.external(wire.NetworkProgramExternal, wire.ProgramExternalRequest{NetworkID: n.ID, EndpointID: ep.ID, Options: endpointRequest(n, ep).Options})
}

func (p *plugin) revoke(n network.Network, ep network.Endpoint) {
	p.t.Helper()
	p.external(wire.NetworkRevokeExternal, wire.EndpointRequest{NetworkID: n.ID, EndpointID: ep.ID})
}

// info asks for what every engine before 23 must be answered.
func (p *plugin) info(n network.Network, ep network.Endpoint) {
	p.t.Helper()
	var info wire.EndpointOperInfoResponse
	p.call(wire.NetworkEndpointOperInfo, wire.EndpointRequest{NetworkID: n.ID, EndpointID: ep.ID}, &info)
	if info.Value == nil {
		p.t.Errorf("EndpointOperInfo: no value")
	}
}

// empty fails unless the plugin has forgotten every network, in memory and in its state.
func (p *plugin) empty() {
	p.t.Helper()
	if left := p.handler.Networks(); len(left) > 0 {
		p.t.Errorf("%d networks are left, the first is %+v", len(left), left[0])
	}
	files, err := os.ReadDir(p.state)
	must(p.t, "state", err)
	for _, f := range files {
		p.t.Errorf("state %q is left", f.Name())
	}
}
