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
// Handler, Server, a unix socket and a client. A goroutine that is left behind fails the
// case.
package ipamtest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/leaktest"
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

// testCase is one case. Its name is unique over both passes.
type testCase struct {
	name string
	run  func(t *testing.T, c Config)
}

// Run runs every case as a subtest of t. It must not run beside other tests of the same
// process, which could be taken for leaks.
func Run(t *testing.T, c Config) {
	if c.New == nil {
		t.Fatal("ipamtest: Config.New is not set")
	}
	if !c.Pool.IsValid() {
		c.Pool = netip.MustParsePrefix("10.98.0.0/24")
	}
	passes := []struct {
		name  string
		cases []testCase
	}{
		{"direct", slices.Concat(poolDirect(), addressDirect())},
		{"wire", slices.Concat(lifeWire(), restartWire())},
	}
	known := map[string]bool{}
	for _, p := range passes {
		for _, k := range p.cases {
			if known[k.name] {
				t.Fatalf("ipamtest: two cases are called %q", k.name)
			}
			known[k.name] = true
		}
	}
	for name, reason := range c.Deviates {
		if !known[name] || strings.TrimSpace(reason) == "" {
			t.Fatalf("ipamtest: Deviates[%q] = %q: want the name of a case, and a reason", name, reason)
		}
	}
	for _, p := range passes {
		t.Run(p.name, func(t *testing.T) {
			for _, k := range p.cases {
				t.Run(k.name, func(t *testing.T) {
					if reason, ok := c.Deviates[k.name]; ok {
						t.Skip("deviates: " + reason)
					}
					leaktest.Check(t)
					k.run(t, c)
				})
			}
		})
	}
}

// host returns the address with the number i in p.
func host(p netip.Prefix, i int) netip.Addr {
	a := p.Masked().Addr()
	for range i {
		a = a.Next()
	}
	return a
}
