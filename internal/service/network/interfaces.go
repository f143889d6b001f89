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
var notOurs = prefixes{"docker", "br-", "veth", "rm-", "rmv", "cni", "podman", "virbr"}

type prefixes []string

func (p prefixes) has(name string) bool {
	return slices.ContainsFunc(p, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

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
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || notOurs.has(i.Name) {
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
