package client

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
	"github.com/remora-plugins/remora/sdk/network"
)

// Network calls the methods of a network plugin. An engine gives these calls no limit of
// time; set [Options].Timeout, or end the context.
type Network struct{ c *Client }

// Network returns the calls of a network plugin. Whether the plugin is one, Activate says.
func (c *Client) Network() Network { return Network{c} }

// NetworkCapabilities is what a network plugin says of itself.
type NetworkCapabilities struct {
	// Scope is "local" or "global".
	Scope string
	// ConnectivityScope is the same as Scope where the plugin does not say.
	ConnectivityScope string
	// SkipsGateways: [Network.SkipGateways] may be called.
	SkipsGateways bool
}

// Capabilities asks for the scopes. One that is neither "local" nor "global" is
// ErrInvalid: no engine registers such a driver.
func (n Network) Capabilities(ctx context.Context) (NetworkCapabilities, error) {
	resp, err := call(ctx, n.c, wire.NetworkGetCapabilities, nil, func(r *wire.NetworkCapabilitiesResponse) string { return r.Err })
	if err != nil {
		return NetworkCapabilities{}, err
	}
	caps := NetworkCapabilities{resp.Scope, resp.ConnectivityScope, resp.GwAllocChecker}
	if caps.ConnectivityScope == "" {
		caps.ConnectivityScope = caps.Scope
	}
	for _, s := range []string{caps.Scope, caps.ConnectivityScope} {
		if s != "local" && s != "global" {
			return caps, n.wrong(wire.NetworkGetCapabilities, fmt.Errorf("scope %.40q is neither local nor global", s))
		}
	}
	return caps, nil
}

// SkipGateways asks for which families no gateway address is to be reserved. Engines
// since 28 do so before they create a network whose plugin says that it can tell.
func (n Network) SkipGateways(ctx context.Context, nw network.Network) (v4, v6 bool, err error) {
	options, err := networkOptions(nw)
	if err != nil {
		return false, false, err
	}
	resp, err := call(ctx, n.c, wire.NetworkGwAllocCheck, wire.GwAllocCheckRequest{Options: options},
		func(r *wire.GwAllocCheckResponse) string { return r.Err })
	return resp.SkipIPv4, resp.SkipIPv6, err
}

// Allocate is sent by a Swarm manager for a driver of global scope. The options that it
// returns go to the CreateNetwork of every node.
func (n Network) Allocate(ctx context.Context, nw network.Network) (map[string]string, error) {
	req := wire.AllocateNetworkRequest{NetworkID: nw.ID, Options: nw.Options, IPv4Data: ipamData(nw.IPv4), IPv6Data: ipamData(nw.IPv6)}
	resp, err := call(ctx, n.c, wire.NetworkAllocate, req, func(r *wire.AllocateNetworkResponse) string { return r.Err })
	return resp.Options, err
}

// Free undoes Allocate.
func (n Network) Free(ctx context.Context, networkID string) error {
	return n.do(ctx, wire.NetworkFree, wire.NetworkRequest{NetworkID: networkID})
}

// CreateNetwork makes a network. EnableIPv4 is sent only where it is false, as engines
// before 28 do not know it.
func (n Network) CreateNetwork(ctx context.Context, nw network.Network) error {
	options, err := networkOptions(nw)
	if err != nil {
		return err
	}
	return n.do(ctx, wire.NetworkCreate, wire.CreateNetworkRequest{
		NetworkID: nw.ID, Options: options, IPv4Data: ipamData(nw.IPv4), IPv6Data: ipamData(nw.IPv6),
	})
}

// DeleteNetwork undoes CreateNetwork.
func (n Network) DeleteNetwork(ctx context.Context, networkID string) error {
	return n.do(ctx, wire.NetworkDelete, wire.NetworkRequest{NetworkID: networkID})
}

// CreateEndpoint makes ready to connect a container, and returns what the plugin chose.
// Whatever the request had set must be zero in the answer, or an engine deletes the
// endpoint again; that is left to the caller.
func (n Network) CreateEndpoint(ctx context.Context, networkID string, ep network.Endpoint) (network.Assigned, error) {
	options, err := endpointOptions(ep.Options)
	if err != nil {
		return network.Assigned{}, err
	}
	if ep.MAC != nil {
		if err := option(options, wire.OptionMACAddress, []byte(ep.MAC)); err != nil {
			return network.Assigned{}, err
		}
	}
	req := wire.CreateEndpointRequest{NetworkID: networkID, EndpointID: ep.ID, Options: options, Interface: &wire.EndpointInterface{
		Address: prefixText(ep.IPv4), AddressIPv6: prefixText(ep.IPv6), MacAddress: ep.MAC.String(),
	}}
	resp, err := call(ctx, n.c, wire.NetworkCreateEndpoint, req, func(r *wire.CreateEndpointResponse) string { return r.Err })
	if err != nil || resp.Interface == nil {
		return network.Assigned{}, err
	}
	var a network.Assigned
	if a.IPv4, err = toPrefix(resp.Interface.Address); err == nil {
		a.IPv6, err = toPrefix(resp.Interface.AddressIPv6)
	}
	if err == nil && resp.Interface.MacAddress != "" {
		a.MAC, err = net.ParseMAC(resp.Interface.MacAddress)
	}
	return a, n.wrong(wire.NetworkCreateEndpoint, err)
}

// DeleteEndpoint undoes CreateEndpoint.
func (n Network) DeleteEndpoint(ctx context.Context, networkID, endpointID string) error {
	return n.do(ctx, wire.NetworkDeleteEndpoint, wire.EndpointRequest{NetworkID: networkID, EndpointID: endpointID})
}

// Info returns what the plugin tells of an endpoint (NetworkDriver.EndpointOperInfo).
// With engines of 20.10 a container does not start where this fails.
func (n Network) Info(ctx context.Context, networkID, endpointID string) (map[string]any, error) {
	resp, err := call(ctx, n.c, wire.NetworkEndpointOperInfo, wire.EndpointRequest{NetworkID: networkID, EndpointID: endpointID},
		func(r *wire.EndpointOperInfoResponse) string { return r.Err })
	return resp.Value, err
}

// Join connects an endpoint to a sandbox and returns what the engine is to do with it.
func (n Network) Join(ctx context.Context, networkID, endpointID string, s network.Sandbox) (network.Attachment, error) {
	options, err := endpointOptions(s.Options)
	if err != nil {
		return network.Attachment{}, err
	}
	req := wire.JoinRequest{NetworkID: networkID, EndpointID: endpointID, SandboxKey: s.Key, Options: options}
	resp, err := call(ctx, n.c, wire.NetworkJoin, req, func(r *wire.JoinResponse) string { return r.Err })
	if err != nil {
		return network.Attachment{}, err
	}
	a := network.Attachment{NoGatewayBridge: resp.DisableGatewayService}
	if resp.InterfaceName != nil {
		a.Interface, a.Prefix, a.Name = resp.InterfaceName.SrcName, resp.InterfaceName.DstPrefix, resp.InterfaceName.DstName
	}
	if a.Gateway, err = toAddr(resp.Gateway); err == nil {
		a.GatewayIPv6, err = toAddr(resp.GatewayIPv6)
	}
	for _, w := range resp.StaticRoutes {
		var r network.Route
		if err == nil {
			r.Destination, err = toPrefix(w.Destination)
		}
		if err == nil && w.RouteType == wire.RouteNextHop {
			r.NextHop, err = toAddr(w.NextHop)
		}
		a.Routes = append(a.Routes, r)
	}
	return a, n.wrong(wire.NetworkJoin, err)
}

// Leave undoes Join.
func (n Network) Leave(ctx context.Context, networkID, endpointID string) error {
	return n.do(ctx, wire.NetworkLeave, wire.EndpointRequest{NetworkID: networkID, EndpointID: endpointID})
}

// ProgramExternal makes an endpoint the way out of its container, and publishes ports. An
// engine takes ErrUnsupported for success.
func (n Network) ProgramExternal(ctx context.Context, networkID, endpointID string, o network.EndpointOptions) error {
	options, err := endpointOptions(o)
	if err != nil {
		return err
	}
	return n.do(ctx, wire.NetworkProgramExternal, wire.ProgramExternalRequest{NetworkID: networkID, EndpointID: endpointID, Options: options})
}

// RevokeExternal undoes ProgramExternal.
func (n Network) RevokeExternal(ctx context.Context, networkID, endpointID string) error {
	return n.do(ctx, wire.NetworkRevokeExternal, wire.EndpointRequest{NetworkID: networkID, EndpointID: endpointID})
}

// DiscoverNew tells of a node that joined the cluster.
func (n Network) DiscoverNew(ctx context.Context, node network.Node) error {
	return n.do(ctx, wire.NetworkDiscoverNew, discovery(node))
}

// DiscoverDelete tells of a node that left the cluster.
func (n Network) DiscoverDelete(ctx context.Context, node network.Node) error {
	return n.do(ctx, wire.NetworkDiscoverDelete, discovery(node))
}

func (n Network) do(ctx context.Context, method string, req any) error {
	_, err := call(ctx, n.c, method, req, func(r *wire.Error) string { return r.Err })
	return err
}

// wrong is an answer that was decoded and cannot be used.
func (n Network) wrong(method string, err error) error {
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: %s: answer: %w", n.c.name, method, err)
	}
	return nil
}

func discovery(node network.Node) wire.DiscoveryRequest {
	return wire.DiscoveryRequest{DiscoveryType: wire.DiscoveryNode, DiscoveryData: wire.NodeData{
		Address: addrText(node.Address), BindAddress: addrText(node.BindAddress), Self: node.Self,
	}}
}

// networkOptions are the options of CreateNetwork, as the engine writes them.
func networkOptions(nw network.Network) (wire.NetworkOptions, error) {
	options := maps.Clone(wire.NetworkOptions(nw.Raw))
	if options == nil {
		options = wire.NetworkOptions{}
	}
	generic := nw.Options
	if generic == nil {
		generic = map[string]string{}
	}
	err := option(options, wire.OptionGeneric, generic)
	if err == nil {
		err = option(options, wire.OptionEnableIPv6, nw.EnableIPv6)
	}
	if err == nil && !nw.EnableIPv4 {
		err = option(options, wire.OptionEnableIPv4, false)
	}
	if err == nil && nw.Internal {
		err = option(options, wire.OptionInternal, true)
	}
	return options, err
}

// endpointOptions are the options of CreateEndpoint, Join and ProgramExternal.
func endpointOptions(o network.EndpointOptions) (wire.NetworkOptions, error) {
	options := maps.Clone(wire.NetworkOptions(o.Raw))
	if options == nil {
		options = wire.NetworkOptions{}
	}
	ports := make([]wire.TransportPort, len(o.ExposedPorts))
	for i, p := range o.ExposedPorts {
		ports[i] = wire.TransportPort{Proto: uint8(p.Protocol), Port: p.Number}
	}
	bindings := make([]wire.PortBinding, len(o.PortMap))
	for i, b := range o.PortMap {
		bindings[i] = wire.PortBinding{
			Proto: uint8(b.Port.Protocol), Port: b.Port.Number, IP: addrText(b.IP), HostIP: addrText(b.HostIP), HostPort: b.HostPort, HostPortEnd: b.HostPortEnd,
		}
	}
	values := map[string]any{wire.OptionExposedPorts: ports, wire.OptionPortMap: bindings}
	if len(o.DNS) > 0 {
		values[wire.OptionDNSServers] = o.DNS
	}
	if o.InterfaceName != "" {
		values[wire.OptionInterfaceName] = o.InterfaceName
	}
	if o.Sysctls != "" {
		values[wire.OptionSysctls] = o.Sysctls
	}
	if o.NoProxy6To4 {
		values[wire.OptionNoProxy6To4] = true
	}
	for k, v := range o.DriverOpts {
		values[k] = v
	}
	for k, v := range values {
		if err := option(options, k, v); err != nil {
			return nil, err
		}
	}
	return options, nil
}

// option adds one option.
func option(to wire.NetworkOptions, key string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %w", key, err)
	}
	to[key] = b
	return nil
}

// ipamData is never null, as the engine's is not.
func ipamData(pools []network.Pool) []wire.IPAMData {
	data := make([]wire.IPAMData, len(pools))
	for i, p := range pools {
		data[i] = wire.IPAMData{AddressSpace: p.AddressSpace, Pool: prefixText(p.Prefix), Gateway: prefixText(p.Gateway)}
		for name, a := range p.Aux {
			if data[i].AuxAddresses == nil {
				data[i].AuxAddresses = make(map[string]string, len(p.Aux))
			}
			data[i].AuxAddresses[name] = prefixText(a)
		}
	}
	return data
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func toPrefix(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%.60q is not an address with a prefix length", s)
	}
	return p, nil
}

func toAddr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("%.60q is not an address", s)
	}
	return a, nil
}
