// Package networktest is the conformance suite of network drivers. A driver that passes it
// can be left alone behind a [network.Handler], whatever engine and plugin die of.
//
//	func TestConformance(t *testing.T) {
//		networktest.Run(t, networktest.Config{
//			New: func(t *testing.T) network.Driver { return newDriver(t) },
//		})
//	}
//
// Each case runs against a driver of its own. There are two passes: "direct" holds the
// driver to the contract of [network.Driver], and "wire" calls it as an engine does,
// through Handler, Server, a unix socket and a client. In both every verb is called twice,
// and a goroutine, a file descriptor or a mount that is left behind fails the case. What
// needs nothing but the socket is in package check, for plugins by others too, and is
// called Check… here.
//
// What a driver can do beyond the six methods is found by type assertion, never by its
// name.
package networktest

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/network"
)

// Config says how to get at a driver. New is required, the rest may be zero.
type Config struct {
	// New makes a driver that has no network, and cleans up by [testing.T.Cleanup].
	New func(t *testing.T) network.Driver
	// Reopen makes another driver in the place of d, as a plugin does when it was killed
	// and started again; d is not used afterwards. Without it the cases of a restart keep
	// the driver and renew all that stands in front of it.
	Reopen func(t *testing.T, d network.Driver) network.Driver
	// Options are valid for CreateNetwork.
	Options map[string]string
	// BadOptions are wrong for CreateNetwork, each alone.
	BadOptions map[string]string
	// IPv4 is the pool of the networks that are made; zero is 10.99.0.0/24. It has room
	// for 64 addresses at least.
	IPv4 netip.Prefix
	// IPv6 is their IPv6 pool; zero is none.
	IPv6 netip.Prefix
	// Deviates names the cases that this driver cannot pass, each with the reason, which
	// belongs into its README. Such a case is skipped with that text.
	Deviates map[string]string
}

type cases = suitetest.Cases[Config]

// Run runs every case as a subtest of t. It must not run beside other tests of the same
// process, which could be taken for leaks.
func Run(t *testing.T, c Config) {
	if c.New == nil {
		t.Fatal("networktest: Config.New is not set")
	}
	if !c.IPv4.IsValid() {
		c.IPv4 = netip.MustParsePrefix("10.99.0.0/24")
	}
	suitetest.Suite[Config]{
		Name:   "networktest",
		Direct: []cases{networkDirect(), endpointDirect(), optionalDirect(), edgeDirect()},
		Wire:   []cases{lifeWire(), answerWire(), restartWire(), edgeWire(), checks()},
	}.Run(t, c, c.Deviates)
}

// network returns a network with the number i.
func (c Config) network(i int) network.Network {
	n := network.Network{
		ID: fmt.Sprintf("%064x", 0xa000+i), EnableIPv4: true, EnableIPv6: c.IPv6.IsValid(),
		Options: map[string]string{},
		IPv4:    []network.Pool{{AddressSpace: "local", Prefix: c.IPv4.Masked(), Gateway: host(c.IPv4, 1)}},
	}
	maps.Copy(n.Options, c.Options)
	if c.IPv6.IsValid() {
		n.IPv6 = []network.Pool{{AddressSpace: "local", Prefix: c.IPv6.Masked(), Gateway: host(c.IPv6, 1)}}
	}
	return n
}

// endpoint returns an endpoint with the number i, and no MAC.
func (c Config) endpoint(i int) network.Endpoint {
	ep := network.Endpoint{ID: fmt.Sprintf("%064x", 0xe000+i), IPv4: host(c.IPv4, 2+i)}
	if c.IPv6.IsValid() {
		ep.IPv6 = host(c.IPv6, 2+i)
	}
	return ep
}

func sandbox(i int) network.Sandbox {
	return network.Sandbox{Key: fmt.Sprintf("/var/run/docker/netns/%012x", i)}
}

func mac(i int) net.HardwareAddr { return net.HardwareAddr{2, 0x42, 10, 99, 0, byte(i)} }

// host returns the address with the number i in p.
func host(p netip.Prefix, i int) netip.Prefix {
	a := p.Masked().Addr()
	for range i {
		a = a.Next()
	}
	return netip.PrefixFrom(a, p.Bits())
}

func prefixOf(b [4]byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4(b), bits).Masked()
}
