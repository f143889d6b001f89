package btrfs

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	volumetest.Run(t, volumetest.Config{
		New:        func(t *testing.T) volume.Driver { return openImage(t, newHost(t)) },
		Reopen:     func(t *testing.T, d volume.Driver) volume.Driver { return openImage(t, hostOf(d.(*driver))) },
		Options:    opts("size=16m", "mode=0750", "uid=1000", "compress=none"),
		BadOptions: opts("compress=rar"),
		Resize:     32 << 20,
	})
}

// openCounting opens a pool that counts from the start, and waits until it does.
func openCounting(t testing.TB, path string) *driver {
	t.Helper()
	d := openTable(t, host{}, map[string]any{"path": path, "quota": true})
	list(t, d)
	for deadline := time.Now().Add(30 * time.Second); !quotaIs(t, path).known(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("quota is %+v", quotaIs(t, path))
		}
	}
	return d
}

// TestConformanceOnAPath is the same on a btrfs that somebody else made, and that counts from
// the start.
func TestConformanceOnAPath(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	volumetest.Run(t, volumetest.Config{
		New:        func(t *testing.T) volume.Driver { return openCounting(t, mkfs(t)) },
		Reopen:     func(t *testing.T, d volume.Driver) volume.Driver { return openCounting(t, d.(*driver).Path) },
		Options:    opts("size=16m"),
		BadOptions: opts("size=0"),
		Resize:     32 << 20,
	})
}
