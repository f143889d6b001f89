package network

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

func networkFromWire(w *wire.CreateNetworkRequest) (n Network, err error) {
	n = Network{ID: w.NetworkID, EnableIPv4: true}
	rest := options{left: w.Options}
	var generic map[string]json.RawMessage
	rest.take(wire.OptionGeneric, &generic)
	rest.take(wire.OptionEnableIPv4, &n.EnableIPv4)
	rest.take(wire.OptionEnableIPv6, &n.EnableIPv6)
	rest.take(wire.OptionInternal, &n.Internal)
	if rest.err != nil {
		return n, rest.err
	}
	n.Raw = rest.remaining()
	n.Options = make(map[string]string, len(generic))
	for key, value := range generic {
		n.Options[key] = text(value)
	}
	if n.IPv4, err = poolsFromWire(w.IPv4Data); err == nil {
		n.IPv6, err = poolsFromWire(w.IPv6Data)
	}
	return n, err
}

func allocateFromWire(w *wire.AllocateNetworkRequest) (n Network, err error) {
	n = Network{ID: w.NetworkID, Options: w.Options, EnableIPv4: true, EnableIPv6: len(w.IPv6Data) > 0}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.IPv4, err = poolsFromWire(w.IPv4Data); err == nil {
		n.IPv6, err = poolsFromWire(w.IPv6Data)
	}
	return n, err
}

func poolsFromWire(data []wire.IPAMData) ([]Pool, error) {
	var pools []Pool
	for _, w := range data {
		p := Pool{AddressSpace: w.AddressSpace}
		var err error
		if p.Prefix, err = prefix("pool", w.Pool); err != nil {
			return nil, err
		}
		if p.Gateway, err = prefix("gateway", w.Gateway); err != nil {
			return nil, err
		}
		for name, s := range w.AuxAddresses {
			a, err := prefix("auxiliary address "+name, s)
			if err != nil {
				return nil, err
			}
			if p.Aux == nil {
				p.Aux = make(map[string]netip.Prefix, len(w.AuxAddresses))
			}
			p.Aux[name] = a
		}
		pools = append(pools, p)
	}
	return pools, nil
}

func endpointFromWire(w *wire.CreateEndpointRequest) (ep Endpoint, err error) {
	ep = Endpoint{ID: w.EndpointID}
	var mac net.HardwareAddr
	if ep.Options, mac, err = endpointOptionsFromWire(w.Options); err != nil {
		return ep, err
	}
	if w.Interface == nil {
		w.Interface = &wire.EndpointInterface{}
	}
	if ep.IPv4, err = prefix("address", w.Interface.Address); err != nil {
		return ep, err
	}
	if ep.IPv6, err = prefix("IPv6 address", w.Interface.AddressIPv6); err != nil {
		return ep, err
	}
	if ep.MAC = mac; w.Interface.MacAddress != "" {
		if ep.MAC, err = net.ParseMAC(w.Interface.MacAddress); err != nil {
			return ep, errdefs.Errorf(errdefs.ErrInvalid, "MAC %.40q: not a MAC address", w.Interface.MacAddress)
		}
	}
	return ep, nil
}

func endpointOptionsFromWire(w wire.NetworkOptions) (o EndpointOptions, mac net.HardwareAddr, err error) {
	rest := options{left: w}
	var ports []wire.TransportPort
	var bindings []wire.PortBinding
	var hardware []byte
	rest.take(wire.OptionExposedPorts, &ports)
	rest.take(wire.OptionPortMap, &bindings)
	rest.take(wire.OptionMACAddress, &hardware)
	rest.take(wire.OptionDNSServers, &o.DNS)
	rest.take(wire.OptionInterfaceName, &o.InterfaceName)
	rest.take(wire.OptionSysctls, &o.Sysctls)
	rest.take(wire.OptionNoProxy6To4, &o.NoProxy6To4)
	if rest.err != nil {
		return o, nil, rest.err
	}
	for _, p := range ports {
		o.ExposedPorts = append(o.ExposedPorts, Port{Protocol(p.Proto), p.Port})
	}
	for _, b := range bindings {
		binding, err := bindingFromWire(b)
		if err != nil {
			return o, nil, err
		}
		o.PortMap = append(o.PortMap, binding)
	}
	for key, value := range rest.remaining() {
		var s string
		if json.Unmarshal(value, &s) != nil || value[0] != '"' {
			if o.Raw == nil {
				o.Raw = map[string]json.RawMessage{}
			}
			o.Raw[key] = value
			continue
		}
		if o.DriverOpts == nil {
			o.DriverOpts = map[string]string{}
		}
		o.DriverOpts[key] = s
	}
	if len(hardware) > 0 {
		mac = hardware
	}
	return o, mac, nil
}

func bindingFromWire(w wire.PortBinding) (PortBinding, error) {
	b := PortBinding{Port: Port{Protocol(w.Proto), w.Port}, HostPort: w.HostPort, HostPortEnd: w.HostPortEnd}
	var err error
	if b.IP, err = address(w.IP); err == nil {
		b.HostIP, err = address(w.HostIP)
	}
	if err != nil {
		return b, errdefs.Errorf(errdefs.ErrInvalid, "published port %s: %w", b.Port, err)
	}
	return b, nil
}

func nodeFromWire(w *wire.DiscoveryRequest) (Node, error) {
	n := Node{Self: w.DiscoveryData.Self}
	var err error
	if n.Address, err = address(w.DiscoveryData.Address); err == nil {
		n.BindAddress, err = address(w.DiscoveryData.BindAddress)
	}
	if err != nil {
		return n, errdefs.Errorf(errdefs.ErrInvalid, "node: %w", err)
	}
	return n, nil
}

func assignedToWire(a Assigned) *wire.EndpointInterface {
	if !a.IPv4.IsValid() && !a.IPv6.IsValid() && a.MAC == nil {
		return nil
	}
	w := &wire.EndpointInterface{MacAddress: a.MAC.String()}
	if a.IPv4.IsValid() {
		w.Address = a.IPv4.String()
	}
	if a.IPv6.IsValid() {
		w.AddressIPv6 = a.IPv6.String()
	}
	return w
}

func attachmentToWire(a Attachment) *wire.JoinResponse {
	w := &wire.JoinResponse{DisableGatewayService: a.NoGatewayBridge}
	if a.Interface != "" {
		w.InterfaceName = &wire.InterfaceName{SrcName: a.Interface, DstPrefix: a.Prefix, DstName: a.Name}
	}
	if a.Gateway.IsValid() {
		w.Gateway = a.Gateway.String()
	}
	if a.GatewayIPv6.IsValid() {
		w.GatewayIPv6 = a.GatewayIPv6.String()
	}
	for _, r := range a.Routes {
		route := wire.StaticRoute{Destination: r.Destination.String(), RouteType: wire.RouteConnected}
		if r.NextHop.IsValid() {
			route.RouteType, route.NextHop = wire.RouteNextHop, r.NextHop.String()
		}
		w.StaticRoutes = append(w.StaticRoutes, route)
	}
	return w
}

// options are what is left of a request's options while they are taken out one by one.
type options struct {
	left  wire.NetworkOptions
	taken []string
	err   error
}

// take decodes the option key into v, if it is there. The first error stays.
func (o *options) take(key string, v any) {
	raw, ok := o.left[key]
	if !ok {
		return
	}
	o.taken = append(o.taken, key)
	if err := json.Unmarshal(raw, v); err != nil && o.err == nil {
		o.err = errdefs.Errorf(errdefs.ErrInvalid, "option %q: %w", key, err)
	}
}

// remaining returns the options that nobody took, nil if there are none.
func (o *options) remaining() map[string]json.RawMessage {
	var rest map[string]json.RawMessage
next:
	for key, value := range o.left {
		for _, t := range o.taken {
			if key == t {
				continue next
			}
		}
		if rest == nil {
			rest = map[string]json.RawMessage{}
		}
		rest[key] = value
	}
	return rest
}

// text returns a JSON string's content, and any other value as its JSON.
func text(raw json.RawMessage) string {
	var s string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

// prefix parses an address with its length; empty is zero.
func prefix(what, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errdefs.Errorf(errdefs.ErrInvalid, "%s %.60q: not an address with a prefix length", what, s)
	}
	return p, nil
}

// address parses an address; empty is zero.
func address(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%.60q: not an address", s)
	}
	return a, nil
}
