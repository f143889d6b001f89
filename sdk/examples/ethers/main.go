// Command ethers is a whole IPAM plugin: containers whose MAC is in a file get the address
// that stands beside it, as from a DHCP server with fixed leases; all others get one that
// is free. The file has the format of ethers(5), with addresses in the place of names.
//
//	ethers start -file /etc/ethers.docker
//	docker network create --ipam-driver ethers --subnet 10.20.0.0/24 lan
//	docker run --network lan --mac-address 02:42:0a:14:00:63 …
package main

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

// leases is an Allocator that looks into a file first.
type leases struct {
	*ipam.Allocator
	file string
}

// Capabilities makes the engine tell the MAC with each request for an address.
func (l leases) Capabilities() ipam.Capabilities {
	c := l.Allocator.Capabilities()
	c.RequiresMACAddress = true
	return c
}

// RequestAddress asks the Allocator for the address of the lease, if there is one in that
// pool, so that nobody else gets it while the container runs.
func (l leases) RequestAddress(ctx context.Context, r ipam.AddressRequest) (ipam.Address, error) {
	if r.MAC != nil && !r.Address.IsValid() {
		text, err := os.ReadFile(l.file) // at each start of a container: it may have changed
		if err != nil {
			return ipam.Address{}, errdefs.As(errdefs.ErrUnavailable, err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 2 || strings.HasPrefix(f[0], "#") {
				continue
			}
			mac, macErr := net.ParseMAC(f[0])
			a, err := netip.ParseAddr(f[1])
			if macErr == nil && err == nil && mac.String() == r.MAC.String() {
				r.Address = a
			}
		}
	}
	return l.Allocator.RequestAddress(ctx, r)
}

func main() {
	file := flag.String("file", "/etc/ethers.docker", "`file` of the leases")
	state := flag.String("state", "/var/lib/ethers", "`directory` of what is remembered")
	os.Exit(sdk.Main("ethers", func(ctx context.Context, log *slog.Logger) (sdk.Plugin, error) {
		a, err := ipam.NewAllocator(ctx, ipam.Config{State: ipam.Dir(*state)})
		if err != nil {
			return nil, err
		}
		return ipam.NewHandler(leases{a, *file}, ipam.Options{Logger: log}), nil
	}))
}
