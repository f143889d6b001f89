package networktest

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"reflect"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

func networkDirect() cases {
	return cases{
		"NetworkTwice":         networkTwice,
		"DeleteUnknownNetwork": deleteUnknownNetwork,
		"UnknownOption":        unknownOption,
		"ManyNetworks":         manyNetworks,
		"ReopenWithNetwork":    reopenWithNetwork,
	}
}

func endpointDirect() cases {
	return cases{
		"EndpointTwice":       endpointTwice,
		"SettledStaysSettled": settledStaysSettled,
		"UnknownEndpoint":     unknownEndpoint,
		"JoinTwice":           joinTwice,
		"InterfaceIsThere":    interfaceIsThere,
		"ManyEndpoints":       manyEndpoints,
		"ReopenWhileJoined":   reopenWhileJoined,
	}
}

func optionalDirect() cases {
	return cases{
		"ExternalTwice": externalTwice,
		"InfoIsJSON":    infoIsJSON,
		"ScopeIsKnown":  scopeIsKnown,
		"AllocateTwice": allocateTwice,
		"NodesTwice":    nodesTwice,
	}
}

// undone fails unless err is nil or says that there is nothing to undo.
func undone(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%s: %v", what, err)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func networkTwice(t *testing.T, c Config) {
	d, n := c.New(t), c.network(1)
	for range 2 {
		must(t, "CreateNetwork", d.CreateNetwork(t.Context(), n))
	}
	for range 2 {
		undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
	}
	must(t, "CreateNetwork after its deletion", d.CreateNetwork(t.Context(), n))
	must(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
}

func deleteUnknownNetwork(t *testing.T, c Config) {
	undone(t, "DeleteNetwork of what never was", c.New(t).DeleteNetwork(t.Context(), network.Network{ID: c.network(1).ID}))
}

func unknownOption(t *testing.T, c Config) {
	bad := map[string]string{"no.driver.has.this.option": "x"}
	maps.Copy(bad, c.BadOptions)
	for k, v := range bad {
		d, n := c.New(t), c.network(1)
		n.Options[k] = v
		if err := d.CreateNetwork(t.Context(), n); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("CreateNetwork with option %q=%q: %v, want ErrInvalid", k, v, err)
		}
		undone(t, "DeleteNetwork of one that was refused", d.DeleteNetwork(t.Context(), n))
	}
}

func manyNetworks(t *testing.T, c Config) {
	d := c.New(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			n := c.network(i)
			// Each has a pool of its own, next to that of the one before.
			if c.IPv4.Addr().Is4() {
				b := c.IPv4.Masked().Addr().As4()
				b[1] += byte(i)
				p := network.Pool{AddressSpace: "local", Prefix: prefixOf(b, c.IPv4.Bits())}
				p.Gateway = host(p.Prefix, 1)
				n.IPv4, n.IPv6, n.EnableIPv6 = []network.Pool{p}, nil, false
			}
			if err := d.CreateNetwork(t.Context(), n); err != nil {
				t.Errorf("CreateNetwork %d: %v", i, err)
			}
			undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
		})
	}
	wg.Wait()
}

func reopenWithNetwork(t *testing.T, c Config) {
	d, n := c.New(t), c.network(1)
	must(t, "CreateNetwork", d.CreateNetwork(t.Context(), n))
	d = c.reopen(t, d, network.Restored{Network: n})
	must(t, "CreateNetwork again", d.CreateNetwork(t.Context(), n))
	undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
}

// reopen does what happens between two lives of a plugin.
func (c Config) reopen(t *testing.T, d network.Driver, had ...network.Restored) network.Driver {
	t.Helper()
	if c.Reopen != nil {
		d = c.Reopen(t, d)
	}
	if r, ok := d.(network.Restorer); ok {
		must(t, "Restore", r.Restore(t.Context(), had))
	}
	return d
}

// connected returns a driver with a network, and an endpoint that was just made.
func connected(t *testing.T, c Config) (network.Driver, network.Network, network.Endpoint) {
	t.Helper()
	d, n, ep := c.New(t), c.network(1), c.endpoint(1)
	must(t, "CreateNetwork", d.CreateNetwork(t.Context(), n))
	a, err := d.CreateEndpoint(t.Context(), n, ep)
	must(t, "CreateEndpoint", err)
	return d, n, admitted(t, ep, a)
}

// disconnect undoes connected.
func disconnect(t *testing.T, d network.Driver, n network.Network, ep network.Endpoint) {
	t.Helper()
	undone(t, "DeleteEndpoint", d.DeleteEndpoint(t.Context(), n, ep))
	undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
}

// admitted fails unless the driver chose only what it may, and returns the whole.
func admitted(t *testing.T, ep network.Endpoint, a network.Assigned) network.Endpoint {
	t.Helper()
	if a.IPv4.IsValid() {
		if ep.IPv4.IsValid() && a.IPv4 != ep.IPv4 {
			t.Errorf("CreateEndpoint changes the address %s to %s", ep.IPv4, a.IPv4)
		}
		ep.IPv4 = a.IPv4
	}
	if a.IPv6.IsValid() {
		if ep.IPv6.IsValid() && a.IPv6 != ep.IPv6 {
			t.Errorf("CreateEndpoint changes the IPv6 address %s to %s", ep.IPv6, a.IPv6)
		}
		ep.IPv6 = a.IPv6
	}
	if a.MAC != nil {
		if ep.MAC != nil && !bytes.Equal(ep.MAC, a.MAC) {
			t.Errorf("CreateEndpoint changes the MAC %s to %s", ep.MAC, a.MAC)
		}
		ep.MAC = a.MAC
	}
	return ep
}

func endpointTwice(t *testing.T, c Config) {
	d, n, ep := connected(t, c)
	again, err := d.CreateEndpoint(t.Context(), n, ep)
	must(t, "CreateEndpoint again", err)
	if whole := admitted(t, ep, again); !reflect.DeepEqual(whole, ep) {
		t.Errorf("CreateEndpoint again: %+v, the first time %+v", whole, ep)
	}
	for range 2 {
		undone(t, "DeleteEndpoint", d.DeleteEndpoint(t.Context(), n, ep))
	}
	disconnect(t, d, n, ep)
}

func settledStaysSettled(t *testing.T, c Config) {
	d, n, ep := c.New(t), c.network(1), c.endpoint(1)
	ep.MAC = mac(1)
	must(t, "CreateNetwork", d.CreateNetwork(t.Context(), n))
	a, err := d.CreateEndpoint(t.Context(), n, ep)
	must(t, "CreateEndpoint", err)
	admitted(t, ep, a)
	disconnect(t, d, n, ep)
}

func unknownEndpoint(t *testing.T, c Config) {
	d, n, ep := c.New(t), c.network(1), network.Endpoint{ID: c.endpoint(1).ID}
	must(t, "CreateNetwork", d.CreateNetwork(t.Context(), n))
	for _, n := range []network.Network{n, {ID: n.ID}} {
		undone(t, "Leave of what never was", d.Leave(t.Context(), n, ep))
		undone(t, "DeleteEndpoint of what never was", d.DeleteEndpoint(t.Context(), n, ep))
	}
	undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
}

func joinTwice(t *testing.T, c Config) {
	d, n, ep := connected(t, c)
	first, err := d.Join(t.Context(), n, ep, sandbox(1))
	must(t, "Join", err)
	again, err := d.Join(t.Context(), n, ep, sandbox(1))
	must(t, "Join again", err)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("Join again: %+v, the first time %+v", again, first)
	}
	for range 2 {
		undone(t, "Leave", d.Leave(t.Context(), n, ep))
	}
	disconnect(t, d, n, ep)
}

func interfaceIsThere(t *testing.T, c Config) {
	d, n, ep := connected(t, c)
	a, err := d.Join(t.Context(), n, ep, sandbox(1))
	must(t, "Join", err)
	if a.Interface != "" {
		if _, err := net.InterfaceByName(a.Interface); err != nil {
			t.Errorf("Join: interface %q: %v", a.Interface, err)
		}
	}
	undone(t, "Leave", d.Leave(t.Context(), n, ep))
	if _, err := net.InterfaceByName(a.Interface); a.Interface != "" && err == nil {
		t.Errorf("interface %q is still there after Leave", a.Interface)
	}
	disconnect(t, d, n, ep)
}

func manyEndpoints(t *testing.T, c Config) {
	d, n := c.New(t), c.network(1)
	must(t, "CreateNetwork", d.CreateNetwork(t.Context(), n))
	var wg sync.WaitGroup
	var mu sync.Mutex
	interfaces := map[string]int{}
	for i := range 16 {
		wg.Go(func() {
			ep := c.endpoint(i)
			a, err := d.CreateEndpoint(t.Context(), n, ep)
			if err != nil {
				t.Errorf("CreateEndpoint %d: %v", i, err)
				return
			}
			ep = admitted(t, ep, a)
			j, err := d.Join(t.Context(), n, ep, sandbox(i))
			if err != nil {
				t.Errorf("Join %d: %v", i, err)
			}
			mu.Lock()
			interfaces[j.Interface]++
			mu.Unlock()
			undone(t, "Leave", d.Leave(t.Context(), n, ep))
			undone(t, "DeleteEndpoint", d.DeleteEndpoint(t.Context(), n, ep))
		})
	}
	wg.Wait()
	for name, times := range interfaces {
		if name != "" && times > 1 {
			t.Errorf("interface %q was given to %d endpoints", name, times)
		}
	}
	undone(t, "DeleteNetwork", d.DeleteNetwork(t.Context(), n))
}

func reopenWhileJoined(t *testing.T, c Config) {
	d, n, ep := connected(t, c)
	_, err := d.Join(t.Context(), n, ep, sandbox(1))
	must(t, "Join", err)
	s := sandbox(1)
	ep.Sandbox = &s
	d = c.reopen(t, d, network.Restored{Network: n, Endpoints: []network.Endpoint{ep}})
	undone(t, "Leave", d.Leave(t.Context(), n, ep))
	ep.Sandbox = nil
	disconnect(t, d, n, ep)
}

func externalTwice(t *testing.T, c Config) {
	d, n, ep := connected(t, c)
	x, ok := d.(network.ExternalConnector)
	if !ok {
		disconnect(t, d, n, ep)
		return
	}
	_, err := d.Join(t.Context(), n, ep, sandbox(1))
	must(t, "Join", err)
	for range 2 {
		must(t, "ProgramExternal", x.ProgramExternal(t.Context(), n, ep, network.EndpointOptions{}))
	}
	for range 2 {
		undone(t, "RevokeExternal", x.RevokeExternal(t.Context(), n, ep))
	}
	undone(t, "RevokeExternal of what never was", x.RevokeExternal(t.Context(), network.Network{ID: n.ID}, network.Endpoint{ID: c.endpoint(9).ID}))
	undone(t, "Leave", d.Leave(t.Context(), n, ep))
	disconnect(t, d, n, ep)
}

func infoIsJSON(t *testing.T, c Config) {
	d, n, ep := connected(t, c)
	if i, ok := d.(network.Informer); ok {
		info, err := i.EndpointInfo(t.Context(), n, ep)
		must(t, "EndpointInfo", err)
		if _, err := json.Marshal(info); err != nil {
			t.Errorf("EndpointInfo is not fit for JSON: %v", err)
		}
	}
	disconnect(t, d, n, ep)
}

func scopeIsKnown(t *testing.T, c Config) {
	if s, ok := c.New(t).(network.Scoper); ok {
		scope, connectivity := s.Scope()
		if scope != network.Local && scope != network.Global {
			t.Errorf("scope %q", scope)
		}
		if connectivity != "" && connectivity != network.Local && connectivity != network.Global {
			t.Errorf("connectivity scope %q", connectivity)
		}
	}
}

func allocateTwice(t *testing.T, c Config) {
	a, ok := c.New(t).(network.Allocator)
	if !ok {
		return
	}
	first, err := a.AllocateNetwork(t.Context(), c.network(1))
	must(t, "AllocateNetwork", err)
	again, err := a.AllocateNetwork(t.Context(), c.network(1))
	must(t, "AllocateNetwork again", err)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("AllocateNetwork again: %v, the first time %v", again, first)
	}
	for range 2 {
		undone(t, "FreeNetwork", a.FreeNetwork(t.Context(), c.network(1).ID))
	}
}

func nodesTwice(t *testing.T, c Config) {
	w, ok := c.New(t).(network.NodeWatcher)
	if !ok {
		return
	}
	node := network.Node{Address: host(c.IPv4, 9).Addr()}
	for range 2 {
		must(t, "NodeJoined", w.NodeJoined(t.Context(), node))
	}
	for range 2 {
		undone(t, "NodeLeft", w.NodeLeft(t.Context(), node))
	}
}
