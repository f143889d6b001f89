package ipam

import (
	"maps"
	"net"
	"net/netip"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

func poolRequestFromWire(w *wire.RequestPoolRequest) (r PoolRequest, err error) {
	r = PoolRequest{AddressSpace: w.AddressSpace, Options: w.Options, V6: w.V6}
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	if r.Pool, err = prefix("pool", w.Pool); err != nil {
		return r, err
	}
	if r.SubPool, err = prefix("range", w.SubPool); err != nil {
		return r, err
	}
	switch {
	case r.SubPool.IsValid() && !r.Pool.IsValid():
		return r, errdefs.Errorf(errdefs.ErrInvalid, "range %s: without a pool that it is a part of", r.SubPool)
	case r.SubPool.IsValid() && !within(r.Pool, r.SubPool):
		return r, errdefs.Errorf(errdefs.ErrInvalid, "range %s: not a part of pool %s", r.SubPool, r.Pool)
	case r.Pool.IsValid() && r.Pool.Addr().Is6() != r.V6:
		return r, errdefs.Errorf(errdefs.ErrInvalid, "pool %s: not of the family of addresses that is asked for", r.Pool)
	}
	return r, nil
}

func addressRequestFromWire(w *wire.RequestAddressRequest) (r AddressRequest, err error) {
	r = AddressRequest{
		PoolID: w.PoolID, Options: w.Options, Endpoint: w.Options[wire.OptionEndpointName],
		Gateway: w.Options[wire.OptionAddressType] == wire.AddressTypeGateway,
	}
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	if mac := w.Options[wire.AddressOptionMACAddr]; mac != "" {
		if r.MAC, err = net.ParseMAC(mac); err != nil {
			return r, errdefs.Errorf(errdefs.ErrInvalid, "MAC %.40q: not a MAC address", mac)
		}
	}
	if w.Address != "" {
		r.Address, err = address(w.Address)
	}
	return r, err
}

func poolToWire(p Pool) wire.RequestPoolResponse {
	data := maps.Clone(p.Data)
	if data == nil {
		data = map[string]string{}
	}
	if p.Gateway.IsValid() {
		data[wire.PoolDataGateway] = p.Gateway.String()
	}
	return wire.RequestPoolResponse{PoolID: p.ID, Pool: p.Prefix.String(), Data: data}
}

func addressToWire(a Address) wire.RequestAddressResponse {
	data := a.Data
	if data == nil {
		data = map[string]string{}
	}
	return wire.RequestAddressResponse{Address: a.Prefix.String(), Data: data}
}

// prefix parses a pool; empty is zero. The host's part is cut off, as an engine does.
func prefix(what, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errdefs.Errorf(errdefs.ErrInvalid, "%s %.60q: not an address with a prefix length", what, s)
	}
	return p.Masked(), nil
}

// address parses an address, be it with the length of its pool.
func address(s string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap(), nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().Unmap(), nil
	}
	return netip.Addr{}, errdefs.Errorf(errdefs.ErrInvalid, "address %.60q: not an address", s)
}

// within reports whether all of part lies in whole.
func within(whole, part netip.Prefix) bool {
	return whole.Bits() <= part.Bits() && whole.Contains(part.Addr())
}
