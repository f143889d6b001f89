// Package netavark is what Podman says to a plugin of its network program netavark, byte for byte: a program that is started for
// each call with the name of the call, reads JSON, and answers with JSON (netavark's plugin-API.md, API 1.0.0).
package netavark

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// APIVersion is that of the plugin API.
const APIVersion = "1.0.0"

// Network is the configuration of a network, as Podman keeps it.
type Network struct {
	Name        string            `json:"name"`
	ID          string            `json:"id"`
	Driver      string            `json:"driver"`
	Subnets     []Subnet          `json:"subnets,omitempty"`
	IPv6        bool              `json:"ipv6_enabled"`
	Internal    bool              `json:"internal"`
	DNS         bool              `json:"dns_enabled"`
	DNSServers  []netip.Addr      `json:"network_dns_servers,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	IPAMOptions map[string]string `json:"ipam_options,omitempty"`
	// rest are the fields that have no place here, which are given back as they came.
	rest map[string]json.RawMessage
}

// Subnet is one of a network.
type Subnet struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	Range   *Range       `json:"lease_range,omitempty"`
}

// Range is the part of a subnet from which addresses are given.
type Range struct {
	Start netip.Addr `json:"start_ip,omitzero"`
	End   netip.Addr `json:"end_ip,omitzero"`
}

// Prefix returns the subnet that a range is, with or without its first address, which Podman takes for that of the network.
func (r Range) Prefix(within netip.Prefix) (netip.Prefix, bool) {
	if !r.Start.IsValid() || !r.End.IsValid() {
		return netip.Prefix{}, false
	}
	for bits := within.Bits(); bits <= r.End.BitLen(); bits++ {
		p, err := r.End.Prefix(bits)
		if err != nil || !within.Contains(p.Addr()) {
			continue
		}
		whole := p.Addr() == r.Start || p.Addr().Next() == r.Start && bits < r.End.BitLen()-1
		if whole && last(p) == r.End {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // it is as long as before
	return a
}

// Container says which container is to be connected to which network, and how.
type Container struct {
	ID      string           `json:"container_id"`
	Name    string           `json:"container_name"`
	Network Network          `json:"network"`
	Options ContainerOptions `json:"network_options"`
}

// ContainerOptions are those of one container in one network.
type ContainerOptions struct {
	Aliases   []string          `json:"aliases"`
	Interface string            `json:"interface_name"`
	Addresses []netip.Addr      `json:"static_ips"`
	MAC       string            `json:"static_mac"`
	Options   map[string]string `json:"options"`
}

// Status answers setup.
type Status struct {
	Search     []string             `json:"dns_search_domains"`
	Servers    []netip.Addr         `json:"dns_server_ips"`
	Interfaces map[string]Interface `json:"interfaces"`
}

// Interface is one that a container got.
type Interface struct {
	MAC     string    `json:"mac_address"`
	Subnets []Address `json:"subnets"`
}

// Address is one that an interface has, with the length of its subnet.
type Address struct {
	Address netip.Prefix `json:"ipnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// Info answers info.
type Info struct {
	Version    string `json:"version"`
	APIVersion string `json:"api_version"`
}

// UnmarshalJSON keeps what it does not know.
func (n *Network) UnmarshalJSON(text []byte) error {
	type plain Network
	if err := json.Unmarshal(text, (*plain)(n)); err != nil {
		return err
	}
	n.rest = nil
	return json.Unmarshal(text, &n.rest)
}

// MarshalJSON gives it back.
func (n Network) MarshalJSON() ([]byte, error) {
	type plain Network
	text, err := json.Marshal(plain(n))
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	for key, value := range n.rest {
		if !known[key] {
			all[key] = value
		}
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

var known = map[string]bool{
	"name": true, "id": true, "driver": true, "subnets": true, "ipv6_enabled": true, "internal": true, "dns_enabled": true,
	"network_dns_servers": true, "options": true, "ipam_options": true,
}

// Plugin does what is asked for.
type Plugin interface {
	// Create completes the configuration of a network. Name, ID and driver stay as they are.
	Create(ctx context.Context, n Network) (Network, error)
	// Setup connects a container, whose network namespace is at path, and Teardown undoes that, also for one that was never
	// connected.
	Setup(ctx context.Context, path string, c Container) (Status, error)
	Teardown(ctx context.Context, path string, c Container) error
	Info() Info
}

// maxInput bounds what is read: a network of hundreds of options is less.
const maxInput = 4 << 20

// Serve does one call, of which args are the name and the path of a namespace.
func Serve(ctx context.Context, p Plugin, args []string, in io.Reader, out io.Writer) error {
	answer, err := serve(ctx, p, args, in)
	if err != nil || answer == nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}

// Tell answers with an error, for which there is a form of its own: what people see of a plugin is that one line.
func Tell(out io.Writer, err error) error {
	text := errdefs.OneLine(err.Error())
	if hints := errdefs.Hints(err); len(hints) > 0 {
		text += " (" + errdefs.OneLine(strings.Join(hints, "; ")) + ")"
	}
	return json.NewEncoder(out).Encode(struct {
		Error string `json:"error"`
	}{text})
}

func serve(ctx context.Context, p Plugin, args []string, in io.Reader) (any, error) {
	verb, path := "info", "" // as netavark's own plugins have it
	if len(args) > 0 {
		verb = args[0]
	}
	if len(args) > 1 {
		path = args[1]
	}
	switch verb {
	case "info":
		return p.Info(), nil
	case "create":
		n, err := DecodeNetwork(in)
		if err != nil {
			return nil, err
		}
		return p.Create(ctx, n)
	case "setup", "teardown":
		if path == "" {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: the path of the network namespace is missing", verb)
		}
		c, err := DecodeContainer(in)
		if err != nil {
			return nil, err
		}
		if verb == "teardown" {
			return nil, p.Teardown(ctx, path, c)
		}
		return p.Setup(ctx, path, c)
	}
	return nil, errdefs.Errorf(errdefs.ErrInvalid, "call %.60q: not known, there are create, setup, teardown and info", verb)
}
