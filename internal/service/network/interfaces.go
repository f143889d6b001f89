package network

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// notOurs are how the names of interfaces begin at whose addresses no other host reaches this one: those of engines, and
// our own.
var notOurs = []string{"docker", "br-", "veth", "rm-", "rmv", "cni", "podman", "virbr"}

// hostAddresses are those at which other hosts may reach this one: of the interface that it listens on, or of all.
func hostAddresses(listen string) ([]netip.Addr, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil && !ip.IsUnspecified() {
		return []netip.Addr{ip}, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var at []netip.Addr
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 ||
			slices.ContainsFunc(notOurs, func(p string) bool { return strings.HasPrefix(i.Name, p) }) {
			continue
		}
		of, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range of {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().IsGlobalUnicast() {
				at = append(at, p.Addr().Unmap())
			}
		}
	}
	if len(at) == 0 {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "network: this host has no address at which another could reach it"),
			"connect it, or say where it is reached with --advertise")
	}
	return at, nil
}
