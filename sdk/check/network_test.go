package check_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/check"
)

// fabric is the model of a network plugin, without interfaces on the host.
type fabric struct {
	model
	networks map[string]*wired
	joins    int
}

type wired struct {
	gateway   string
	endpoints map[string]*plugged
	created   int
}

type plugged struct {
	address, sandbox string
	programmed, left bool
}

func newFabric(_ *testing.T, b bug) *model {
	f := &fabric{networks: map[string]*wired{}}
	f.bug, f.kinds = b, []string{"NetworkDriver"}
	f.call = func(method string, req object) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.do(strings.TrimPrefix(method, "NetworkDriver."), req)
	}
	f.activate = func() {
		if b == "forgets at activation" {
			f.networks = map[string]*wired{}
		}
	}
	return &f.model
}

func (f *fabric) do(method string, req object) (any, error) {
	switch method {
	case "GetCapabilities":
		if f.bug == "scope is Local" {
			return object{"Scope": "Local"}, nil
		}
		return object{"Scope": "local", "GwAllocChecker": true}, nil
	case "GwAllocCheck":
		if f.bug == "checks no gateways" {
			return nil, nil
		}
		return object{"SkipIPv4": false}, nil
	case "CreateNetwork":
		return f.createNetwork(req)
	case "DeleteNetwork":
		switch f.bug {
		case "keeps networks":
			return nil, refuse("is in use")
		case "one network at a time":
			f.networks = map[string]*wired{}
		}
		delete(f.networks, text(req, "NetworkID"))
		return object{}, nil
	}
	n := f.networks[text(req, "NetworkID")]
	if n == nil && f.bug == "makes networks up" {
		n = &wired{endpoints: map[string]*plugged{}}
	}
	if n == nil {
		if method == "Leave" || method == "DeleteEndpoint" || strings.HasPrefix(method, "Revoke") {
			return object{}, nil
		}
		return nil, refuse("no such network")
	}
	return f.endpoint(method, n, req)
}

func (f *fabric) createNetwork(req object) (any, error) {
	pools, _ := req["IPv4Data"].([]any)
	pool, _ := pools[0].(object)
	opts, _ := req["Options"].(object)
	id := text(req, "NetworkID")
	switch {
	case f.bug == "no internal networks" && opts["com.docker.network.internal"] != nil:
		return nil, refuse("internal")
	case f.bug == "networks once" && f.networks[id] != nil:
		return nil, refuse("exists")
	case f.bug == "dies without a gateway" && pool["Gateway"] == nil, f.bug == "dies without a pool" && text(pool, "Pool") == "0.0.0.0/0":
		panic(http.ErrAbortHandler)
	case f.networks[id] != nil:
		return object{}, nil
	}
	gateway, _, _ := strings.Cut(text(pool, "Gateway"), "/")
	f.networks[id] = &wired{gateway: gateway, endpoints: map[string]*plugged{}}
	return object{}, nil
}

func (f *fabric) endpoint(method string, n *wired, req object) (any, error) {
	id := text(req, "EndpointID")
	ep := n.endpoints[id]
	switch method {
	case "CreateEndpoint":
		return f.createEndpoint(n, id, ep, req)
	case "DeleteEndpoint":
		switch {
		case ep != nil && ep.sandbox != "" && f.bug == "dies of joined endpoints":
			panic(http.ErrAbortHandler)
		case f.bug == "ends with its first endpoint":
			n.endpoints = map[string]*plugged{}
			n.created = 99
		default:
			delete(n.endpoints, id)
		}
		return object{}, nil
	case "Leave":
		if ep != nil {
			ep.sandbox, ep.left = "", true
		}
		return object{}, nil
	case "RevokeExternalConnectivity":
		if f.bug == "revokes nothing" {
			return nil, refuse("not programmed")
		}
		return object{}, nil
	}
	if ep == nil && f.bug != "makes networks up" {
		return nil, refuse("no such endpoint")
	}
	switch method {
	case "Join":
		return f.join(n, ep, req)
	case "EndpointOperInfo":
		if f.bug == "knows no info" {
			return nil, nil
		}
		return object{"Value": object{}}, nil
	case "ProgramExternalConnectivity":
		if f.bug == "programs nothing" {
			return nil, refuse("cannot")
		}
		if f.bug == "programs once" && ep.programmed {
			return nil, refuse("is programmed")
		}
		ep.programmed = true
		return object{}, nil
	}
	return nil, nil
}

func (f *fabric) createEndpoint(n *wired, id string, ep *plugged, req object) (any, error) {
	iface, _ := req["Interface"].(object)
	n.created++
	switch {
	case f.bug == "answers what was set":
		return f.plug(n, id, iface, object{"Interface": iface})
	case f.bug == "answers IPv6" && text(iface, "AddressIPv6") != "":
		return f.plug(n, id, iface, object{"Interface": object{"AddressIPv6": iface["AddressIPv6"]}})
	case f.bug == "endpoints once" && ep != nil:
		return nil, refuse("exists")
	case f.bug == "one container at a time" && len(n.endpoints) > 0, f.bug == "one endpoint for ever" && n.created > 1, n.created > 99:
		return nil, refuse("full")
	case f.bug == "dies without an address" && text(iface, "Address") == "":
		panic(http.ErrAbortHandler)
	}
	return f.plug(n, id, iface, object{"Interface": object{}})
}

func (f *fabric) plug(n *wired, id string, iface, answer object) (any, error) {
	if n.endpoints[id] == nil {
		n.endpoints[id] = &plugged{address: text(iface, "Address")}
	}
	return answer, nil
}

func (f *fabric) join(n *wired, ep *plugged, req object) (any, error) {
	f.joins++
	if f.bug == "left is left" && ep != nil && ep.left {
		return nil, refuse("has left")
	}
	if ep != nil {
		ep.sandbox = text(req, "SandboxKey")
	}
	switch f.bug {
	case "names no prefix":
		return object{"InterfaceName": object{"SrcName": "lo"}}, nil
	case "gateway without an interface":
		return object{"Gateway": n.gateway}, nil
	case "interface is not there":
		return object{"InterfaceName": object{"SrcName": "no" + text(req, "EndpointID")[8:18], "DstPrefix": "eth"}}, nil
	case "interface stays":
		return object{"InterfaceName": object{"SrcName": "lo", "DstPrefix": "eth"}}, nil
	case "a new name each time":
		return object{"InterfaceName": object{"SrcName": fmt.Sprint("veth", f.joins), "DstPrefix": "eth"}}, nil
	case "a gateway for all":
		return object{"InterfaceName": object{"SrcName": "veth0", "DstPrefix": "eth"}, "Gateway": "198.18.1.1"}, nil
	case "a gateway elsewhere":
		return object{"InterfaceName": object{"SrcName": "veth0", "DstPrefix": "eth"}, "Gateway": "169.254.1.1"}, nil
	case "gateway is the container":
		address, _, _ := strings.Cut(ep.address, "/")
		return object{"InterfaceName": object{"SrcName": "veth0", "DstPrefix": "eth"}, "Gateway": address}, nil
	}
	return object{"DisableGatewayService": true}, nil
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	all := mutants{
		"knows no info":                {"network/lifecycle", "network/oper-info", "network/engine-run", "network/engine-connect"},
		"keeps networks":               {"network/lifecycle", "network/leave-before-join"},
		"scope is Local":               {"network/capabilities"},
		"answers what was set":         {"network/settled-is-not-answered", "network/ipv6"},
		"answers IPv6":                 {"network/ipv6"},
		"checks no gateways":           {"network/gateway-check"},
		"names no prefix":              {"network/join-is-admissible"},
		"gateway without an interface": {"network/join-is-admissible"},
		"gateway is the container":     {"network/join-is-admissible"},
		"interface is not there":       {"network/interface-is-there"},
		"interface stays":              {"network/interface-is-there", "network/containers-at-once"},
		"programs nothing":             {"network/external", "network/engine-run"},
		"revokes nothing":              {"network/external", "network/engine-restart"},
		"programs once":                {"network/engine-connect"},
		"networks once":                {"network/each-call-twice"},
		"endpoints once":               {"network/each-call-twice"},
		"a new name each time":         {"network/each-call-twice"},
		"no internal networks":         {"network/internal"},
		"dies without a gateway":       {"network/without-gateway"},
		"a gateway for all":            {"network/without-gateway"},
		"dies without an address":      {"network/without-address"},
		"dies without a pool":          {"network/without-address"},
		"makes networks up":            {"network/unknown"},
		"takes no body for success":    {"network/empty-body"},
		"left is left":                 {"network/leave-before-join"},
		"dies of joined endpoints":     {"network/delete-while-joined"},
		"one endpoint for ever":        {"network/delete-while-joined", "network/engine-failed-start", "network/engine-restart"},
		"one network at a time":        {"network/two-networks"},
		"one container at a time":      {"network/containers-at-once"},
		"ends with its first endpoint": {"network/engine-failed-start", "network/engine-run"},
		"forgets at activation":        {"network/engine-crash"},
	}
	all.check(t, check.Network, newFabric, check.Options{}, "network/interface-is-there")
}

// TestGatewayOfItsOwn: a gateway out of no pool is a driver's own affair.
func TestGatewayOfItsOwn(t *testing.T) {
	t.Parallel()
	r, err := check.Run(t.Context(), serve(t, newFabric(t, "a gateway elsewhere")), check.Options{Only: []string{"network/without-gateway"}})
	if err != nil || r.Count(check.Pass) != 1 {
		t.Errorf("%v, %+v", err, r.Failed())
	}
}
