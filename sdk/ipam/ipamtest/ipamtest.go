// Package ipamtest is the conformance suite of IPAM drivers.
//
//	func TestConformance(t *testing.T) {
//		ipamtest.Run(t, ipamtest.Config{
//			New: func(t *testing.T) ipam.Driver { return newDriver(t, t.TempDir()) },
//		})
//	}
//
// Each case runs against a driver of its own. There are two passes: "direct" holds the
// driver to the contract of [ipam.Driver], and "wire" calls it as an engine does, through
// Handler, Server, a unix socket and a client. A goroutine, a file descriptor or a mount
// that is left behind fails the case. What needs nothing but the socket is in package
// check, for plugins by others too, and is called Check… here.
package ipamtest

import (
	"net/netip"
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/ipam"
)

// Config says how to get at a driver. New is required, the rest may be zero.
type Config struct {
	// New makes a driver that has handed out nothing, and cleans up by
	// [testing.T.Cleanup].
	New func(t *testing.T) ipam.Driver
	// Reopen makes another driver in the place of d, as a plugin does when it was killed
	// and started again; d is not used afterwards. Without it the cases of a restart keep
	// the driver and renew all that stands in front of it.
	Reopen func(t *testing.T, d ipam.Driver) ipam.Driver
	// Pool is what cases ask for by name; zero is 10.98.0.0/24. It has room for 64
	// addresses at least.
	Pool netip.Prefix
	// Deviates names the cases that this driver cannot pass, each with the reason, which
	// belongs into its README. Such a case is skipped with that text.
	Deviates map[string]string
}

type cases = suitetest.Cases[Config]

// Run runs every case as a subtest of t. It must not run beside other tests of the same
// process, which could be taken for leaks.
func Run(t *testing.T, c Config) {
	if c.New == nil {
		t.Fatal("ipamtest: Config.New is not set")
	}
	if !c.Pool.IsValid() {
		c.Pool = netip.MustParsePrefix("10.98.0.0/24")
	}
	suitetest.Suite[Config]{
		Name:   "ipamtest",
		Direct: []cases{poolDirect(), addressDirect()},
		Wire:   []cases{lifeWire(), restartWire(), checks()},
	}.Run(t, c, c.Deviates)
}

// host returns the address with the number i in p.
func host(p netip.Prefix, i int) netip.Addr {
	a := p.Masked().Addr()
	for range i {
		a = a.Next()
	}
	return a
}
