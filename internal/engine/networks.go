package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
)

// Network is one that an engine knows.
type Network struct {
	ID       string `json:"Id"`
	Name     string
	Driver   string
	Internal bool
	IPv6     bool `json:"EnableIPv6"`
	IPAM     IPAM
	Options  map[string]string
	Labels   map[string]string
}

// IPAM says where a network's addresses come from.
type IPAM struct {
	Driver  string
	Options map[string]string `json:",omitempty"`
	Config  []Subnet
}

// Subnet is one of a network.
type Subnet struct {
	Subnet  netip.Prefix
	IPRange netip.Prefix `json:",omitzero"`
}

// Networks returns all networks of the engine.
func (e Engine) Networks(ctx context.Context) ([]Network, error) {
	var list []struct {
		Network
		IPAM struct {
			Driver  string
			Options map[string]string
			Config  []struct{ Subnet, IPRange string }
		}
	}
	// Podman has "id" and "name" in its own API only; in Docker's they are as Docker has them.
	if err := e.Get(ctx, "/networks", &list); err != nil {
		return nil, err
	}
	all := make([]Network, 0, len(list))
	for _, l := range list {
		n := l.Network
		n.IPAM = IPAM{Driver: l.IPAM.Driver, Options: l.IPAM.Options}
		for _, c := range l.IPAM.Config {
			var s Subnet
			s.Subnet, _ = netip.ParsePrefix(c.Subnet) // not a subnet: of a driver that has other addresses
			s.IPRange, _ = netip.ParsePrefix(c.IPRange)
			n.IPAM.Config = append(n.IPAM.Config, s)
		}
		all = append(all, n)
	}
	return all, nil
}

// Addresses returns those that a network's containers have.
func (e Engine) Addresses(ctx context.Context, network string) ([]netip.Addr, error) {
	var n struct {
		Containers map[string]struct{ IPv4Address, IPv6Address string }
	}
	if err := e.Get(ctx, "/networks/"+url.PathEscape(network), &n); err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, c := range n.Containers {
		for _, text := range []string{c.IPv4Address, c.IPv6Address} {
			if p, err := netip.ParsePrefix(text); err == nil {
				all = append(all, p.Addr())
			}
		}
	}
	return all, nil
}

// On returns the names of the containers on a network, of those that are stopped too.
func (e Engine) On(ctx context.Context, network string) ([]string, error) {
	text, err := json.Marshal(map[string][]string{"network": {network}})
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID    string `json:"Id"`
		Names []string
	}
	if err := e.Get(ctx, "/containers/json?all=1&filters="+url.QueryEscape(string(text)), &list); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(list))
	for _, c := range list {
		name := fmt.Sprintf("%.12s", c.ID)
		if len(c.Names) > 0 {
			name = trimSlash(c.Names[0])
		}
		names = append(names, name)
	}
	return names, nil
}

// CreateNetwork makes a network and returns its ID. One of that name that is there already is ErrExists.
func (e Engine) CreateNetwork(ctx context.Context, n Network) (id string, err error) {
	var made struct {
		ID string `json:"Id"`
	}
	err = e.call(ctx, http.MethodPost, "/networks/create", struct {
		Network
		CheckDuplicate bool // of engines before 25; later ones do
	}{n, true}, &made)
	return made.ID, err
}

// RemoveNetwork removes a network by its ID. One that is gone is ErrNotFound, one that containers are on ErrInUse or
// ErrDenied, as the engine says.
func (e Engine) RemoveNetwork(ctx context.Context, id string) error {
	return e.call(ctx, http.MethodDelete, "/networks/"+url.PathEscape(id), nil, nil)
}

// Connect puts a container onto a network, by their IDs, with the addresses that are valid; the others are chosen. One that is on it
// already is ErrUnavailable or ErrInUse, as the engine says.
func (e Engine) Connect(ctx context.Context, network, container string, v4, v6 netip.Addr) error {
	type ipam struct {
		IPv4Address netip.Addr `json:",omitzero"`
		IPv6Address netip.Addr `json:",omitzero"`
	}
	type config struct {
		IPAMConfig ipam
	}
	return e.call(ctx, http.MethodPost, "/networks/"+url.PathEscape(network)+"/connect", struct {
		Container      string
		EndpointConfig config
	}{container, config{ipam{v4, v6}}}, nil)
}

// Disconnect takes a container off a network, by their IDs.
func (e Engine) Disconnect(ctx context.Context, network, container string) error {
	return e.call(ctx, http.MethodPost, "/networks/"+url.PathEscape(network)+"/disconnect", struct{ Container string }{container}, nil)
}
