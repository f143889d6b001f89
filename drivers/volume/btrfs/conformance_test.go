package btrfs

import (
	"testing"

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

// TestConformanceOnAPath is the same on a btrfs that somebody else made.
func TestConformanceOnAPath(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	volumetest.Run(t, volumetest.Config{
		New:        func(t *testing.T) volume.Driver { return openPath(t, mkfs(t)) },
		Reopen:     func(t *testing.T, d volume.Driver) volume.Driver { return openPath(t, d.(*driver).Path) },
		Options:    opts("size=16m"),
		BadOptions: opts("size=0"),
		Resize:     32 << 20,
	})
}
