package client

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// IPAM calls the methods of an IPAM plugin. An engine gives these calls no limit of time;
// set [Options].Timeout, or end the context.
type IPAM struct{ c *Client }

// IPAM returns the calls of an IPAM plugin. Whether the plugin is one, Activate says.
func (c *Client) IPAM() IPAM { return IPAM{c} }

// IPAMCapabilities is what an IPAM plugin wants of an engine.
type IPAMCapabilities struct {
	// WantsMAC: a request for an address carries the endpoint's MAC.
	WantsMAC bool
	// WantsReplay: after its start an engine asks anew for the pools and addresses that
	// it remembers.
	WantsReplay bool
}

// Capabilities asks what the plugin wants. An engine takes an error for nothing.
func (p IPAM) Capabilities(ctx context.Context) (IPAMCapabilities, error) {
	resp, err := call(ctx, p.c, wire.IpamGetCapabilities, nil, func(r *wire.IpamCapabilitiesResponse) string { return r.Error })
	return IPAMCapabilities{resp.RequiresMACAddress, resp.RequiresRequestReplay}, err
}

// AddressSpaces returns the names of the address spaces for networks of this host and of
// a whole cluster.
func (p IPAM) AddressSpaces(ctx context.Context) (local, global string, err error) {
	resp, err := call(ctx, p.c, wire.IpamGetDefaultAddressSpaces, nil, func(r *wire.AddressSpacesResponse) string { return r.Error })
	return resp.LocalDefaultAddressSpace, resp.GlobalDefaultAddressSpace, err
}

// PoolRequest asks for a pool of addresses.
type PoolRequest struct {
	// AddressSpace is one that [IPAM.AddressSpaces] returned.
	AddressSpace string
	// Prefix is "--subnet"; zero is any.
	Prefix netip.Prefix
	// Range is "--ip-range", the part of Prefix to give addresses from; zero is all of it.
	Range netip.Prefix
	// Options are the "--ipam-opt" pairs.
	Options map[string]string
	// IPv6: the pool is to be one of IPv6.
	IPv6 bool
}

// Pool is a pool of addresses as the plugin gave it.
type Pool struct {
	// ID is the plugin's name for the pool.
	ID string
	// Prefix is the whole pool.
	Prefix netip.Prefix
	// Gateway is the gateway that comes with the pool; zero is none, and then an engine
	// requests one.
	Gateway netip.Prefix
	// Data is what more the plugin says.
	Data map[string]string
}

// RequestPool asks for a pool. An answer without an ID or with something else than a
// prefix is ErrInvalid.
func (p IPAM) RequestPool(ctx context.Context, r PoolRequest) (Pool, error) {
	if r.Options == nil {
		r.Options = map[string]string{} // the engine sends no null here
	}
	resp, err := call(ctx, p.c, wire.IpamRequestPool, wire.RequestPoolRequest{
		AddressSpace: r.AddressSpace, Pool: prefixText(r.Prefix), SubPool: prefixText(r.Range), Options: r.Options, V6: r.IPv6,
	}, func(r *wire.RequestPoolResponse) string { return r.Error })
	if err != nil {
		return Pool{}, err
	}
	pool := Pool{ID: resp.PoolID, Data: maps.Clone(resp.Data)}
	pool.Prefix, err = toPrefix(resp.Pool)
	if err == nil && !pool.Prefix.IsValid() {
		err = errors.New("no pool")
	}
	if err == nil {
		pool.Gateway, err = toPrefix(resp.Data[wire.PoolDataGateway])
	}
	delete(pool.Data, wire.PoolDataGateway)
	return pool, p.wrong(wire.IpamRequestPool, err)
}

// ReleasePool gives a pool back.
func (p IPAM) ReleasePool(ctx context.Context, poolID string) error {
	return p.do(ctx, wire.IpamReleasePool, wire.ReleasePoolRequest{PoolID: poolID})
}

// AddressRequest asks for one address.
type AddressRequest struct {
	// PoolID is the one of the pool.
	PoolID string
	// Address is the address that is wanted; zero is any.
	Address netip.Addr
	// Gateway: it is for the gateway of the network.
	Gateway bool
	// MAC is the endpoint's, for a plugin that wants it.
	MAC net.HardwareAddr
	// EndpointName is the container's name, from engines since 29.
	EndpointName string
}

// RequestAddress asks for an address, and returns it with the length of its pool's prefix.
// No address in the answer is ErrInvalid.
func (p IPAM) RequestAddress(ctx context.Context, r AddressRequest) (netip.Prefix, error) {
	req := wire.RequestAddressRequest{PoolID: r.PoolID, Address: addrText(r.Address)}
	set := func(key, value string) {
		if req.Options == nil {
			req.Options = make(map[string]string)
		}
		req.Options[key] = value
	}
	if r.Gateway {
		set(wire.OptionAddressType, wire.AddressTypeGateway)
	}
	if r.MAC != nil {
		set(wire.AddressOptionMACAddr, r.MAC.String())
	}
	if r.EndpointName != "" {
		set(wire.OptionEndpointName, r.EndpointName)
	}
	resp, err := call(ctx, p.c, wire.IpamRequestAddress, req, func(r *wire.RequestAddressResponse) string { return r.Error })
	if err != nil {
		return netip.Prefix{}, err
	}
	address, err := toPrefix(resp.Address)
	if err == nil && !address.IsValid() {
		err = errors.New("no address")
	}
	return address, p.wrong(wire.IpamRequestAddress, err)
}

// ReleaseAddress gives an address back.
func (p IPAM) ReleaseAddress(ctx context.Context, poolID string, address netip.Addr) error {
	return p.do(ctx, wire.IpamReleaseAddress, wire.ReleaseAddressRequest{PoolID: poolID, Address: addrText(address)})
}

func (p IPAM) do(ctx context.Context, method string, req any) error {
	_, err := call(ctx, p.c, method, req, func(r *wire.IpamEmptyResponse) string { return r.Error })
	return err
}

// wrong is an answer that was decoded and cannot be used.
func (p IPAM) wrong(method string, err error) error {
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: %s: answer: %w", p.c.name, method, err)
	}
	return nil
}
