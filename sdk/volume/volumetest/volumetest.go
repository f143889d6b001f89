// Package volumetest is the conformance suite of volume drivers. A driver that passes it
// can be left alone behind a [volume.Handler] on a host whose engine and plugin are
// killed at any moment.
//
//	func TestConformance(t *testing.T) {
//		volumetest.Run(t, volumetest.Config{
//			New:     func(t *testing.T) volume.Driver { return newDriver(t, t.TempDir()) },
//			Options: map[string]string{"mode": "0750"},
//		})
//	}
//
// Each case runs against a driver of its own. There are two passes: "direct" holds the
// driver to the contract of [volume.Driver], and "wire" calls it as an engine does,
// through Handler, Server, a unix socket and a client. In both every verb is called
// twice, since engines do so, and what is left behind afterwards, be it a goroutine, a
// file descriptor or a mount, fails the case. What needs nothing but the socket is in
// package check, for plugins by others too, and is called Check… here.
//
// What a driver can do beyond the five methods is found by type assertion, never by its
// name.
package volumetest

import (
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Config says how to get at a driver. New is required, the rest may be zero.
type Config struct {
	// New makes a driver with storage of its own that has no volume in it, and cleans up
	// by [testing.T.Cleanup]. What it mounts and writes lies below t.TempDir.
	New func(t *testing.T) volume.Driver
	// Reopen makes another driver on the storage of d, as a plugin does when it was
	// killed and started again; d is not used afterwards. Without it the cases of a
	// restart keep the driver and renew all that stands in front of it.
	Reopen func(t *testing.T, d volume.Driver) volume.Driver
	// Options are valid for Create.
	Options map[string]string
	// BadOptions are wrong for Create, by their value or by belonging to nobody. A key
	// that no driver has is tried in any case.
	BadOptions map[string]string
	// Resize is a size in bytes to which a [volume.Resizer] can bring a volume that was made
	// with Options, larger than it is, and half as much again.
	Resize int64
	// Deviates names the cases that this driver cannot pass, each with the reason, which
	// belongs into its README. Such a case is skipped with that text.
	Deviates map[string]string
}

type cases = suitetest.Cases[Config]

// Run runs every case as a subtest of t. It must not run beside other tests of the same
// process, which could be taken for leaks.
func Run(t *testing.T, c Config) {
	if c.New == nil {
		t.Fatal("volumetest: Config.New is not set")
	}
	suitetest.Suite[Config]{
		Name:   "volumetest",
		Direct: []cases{createDirect(), mountDirect(), listDirect(), removeDirect(), restartDirect(), concurrencyDirect(), storageDirect(), surveyDirect(), trashDirect()},
		Wire:   []cases{createWire(), mountWire(), listWire(), removeWire(), restartWire(), concurrencyWire(), requestWire(), issues(), outage(), checks()},
	}.Run(t, c, c.Deviates)
}
