package network

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxInterfaceName is IFNAMSIZ without its final zero (netdevice(7)).
const maxInterfaceName = 15

// checkID refuses what could not be the name of an object, or of a file.
func checkID(what, id string) error {
	ok := id != "" && len(id) <= 128 && id[0] != '.'
	for _, c := range []byte(id) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s ID %.40q: not an ID", what, id)
	}
	return nil
}

// mistake is an answer of the driver that the engine must not see. It has no class: the
// user can neither cause nor mend it.
func mistake(format string, args ...any) error {
	return fmt.Errorf("the driver's answer is wrong: "+format, args...)
}

// admit takes from a what the engine may be told: only what ep has not settled. It is an
// error for the driver to change what is settled, since the engine would refuse it and
// the container with it.
func admit(ep Endpoint, a Assigned) (Assigned, error) {
	var err error
	if a.IPv4, err = admitAddress("address", ep.IPv4, a.IPv4, netip.Addr.Is4); err != nil {
		return Assigned{}, err
	}
	if a.IPv6, err = admitAddress("IPv6 address", ep.IPv6, a.IPv6, netip.Addr.Is6); err != nil {
		return Assigned{}, err
	}
	switch {
	case len(a.MAC) == 0:
		a.MAC = nil
	case ep.MAC == nil:
		if len(a.MAC) != 6 || bytes.Equal(a.MAC, make(net.HardwareAddr, 6)) || a.MAC[0]&1 != 0 {
			return Assigned{}, mistake("MAC %s cannot be that of an Ethernet interface", a.MAC)
		}
	case bytes.Equal(a.MAC, ep.MAC):
		a.MAC = nil
	default:
		return Assigned{}, mistake("it changes the MAC from %s, which is settled, to %s", ep.MAC, a.MAC)
	}
	return a, nil
}

func admitAddress(what string, settled, chosen netip.Prefix, family func(netip.Addr) bool) (netip.Prefix, error) {
	switch {
	case chosen == netip.Prefix{} || chosen == settled:
		return netip.Prefix{}, nil
	case settled.IsValid():
		return netip.Prefix{}, mistake("it changes the %s from %s, which is settled, to %s", what, settled, chosen)
	case !chosen.IsValid() || !family(chosen.Addr()):
		return netip.Prefix{}, mistake("%s is no %s", chosen, what)
	}
	return chosen, nil
}

// with returns ep with what was assigned to it.
func (ep Endpoint) with(a Assigned) Endpoint {
	if a.IPv4.IsValid() {
		ep.IPv4 = a.IPv4
	}
	if a.IPv6.IsValid() {
		ep.IPv6 = a.IPv6
	}
	if a.MAC != nil {
		ep.MAC = a.MAC
	}
	return ep
}

// checkAttachment fills in what may be left out of a, and refuses what an engine, or the
// kernel behind it, would refuse.
func checkAttachment(n Network, ep Endpoint, a Attachment) (Attachment, error) {
	if a.Interface == "" {
		switch {
		case a.Gateway.IsValid() || a.GatewayIPv6.IsValid():
			return a, mistake("a gateway, but no interface to reach it")
		case len(a.Routes) > 0:
			return a, mistake("routes, but no interface to reach them")
		case a.Name != "":
			return a, mistake("a name, but no interface that could have it")
		}
		return a, nil
	}
	if a.Prefix == "" {
		a.Prefix = "eth"
	}
	for _, name := range []string{a.Interface, a.Prefix, a.Name} {
		if len(name) > maxInterfaceName || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\r\n\x00") {
			return a, mistake("interface name %q: at most %d bytes without slash, colon and space", name, maxInterfaceName)
		}
	}
	if err := checkGateway("gateway", a.Gateway, netip.Addr.Is4, n.IPv4, ep.IPv4); err != nil {
		return a, err
	}
	if err := checkGateway("IPv6 gateway", a.GatewayIPv6, netip.Addr.Is6, n.IPv6, ep.IPv6); err != nil {
		return a, err
	}
	for _, r := range a.Routes {
		switch {
		case !r.Destination.IsValid():
			return a, mistake("a route without a destination")
		case r.NextHop.IsValid() && r.NextHop.Is4() != r.Destination.Addr().Is4():
			return a, mistake("route to %s by way of %s: two families of addresses", r.Destination, r.NextHop)
		}
	}
	return a, nil
}

func checkGateway(what string, gw netip.Addr, family func(netip.Addr) bool, pools []Pool, own netip.Prefix) error {
	switch {
	case !gw.IsValid():
		return nil
	case !family(gw) || gw.Zone() != "" || gw.IsUnspecified() || gw.IsMulticast():
		return mistake("%s is no %s", gw, what)
	case gw == own.Addr():
		return mistake("%s %s is the endpoint's own address", what, gw)
	case gw.Is6() && gw.IsLinkLocalUnicast():
		return nil
	}
	for _, p := range pools {
		if !p.Prefix.IsValid() || p.Prefix.Contains(gw) {
			return nil
		}
	}
	if len(pools) == 0 || own.IsValid() && own.Contains(gw) {
		return nil
	}
	return mistake("%s %s lies in no pool of the network", what, gw)
}
