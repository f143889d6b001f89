package block_test

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/testenv"
)

func TestScenarios(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	blocktest.Run(t, blocktest.Config{Parallel: true, New: func(t testing.TB) blocktest.Cloud {
		c := blocktest.NewReference(t)
		c.In = []string{"a", "b"}
		return c
	}})
}

// TestSlowCloud is the same with a cloud that takes its time and whose lists are behind.
func TestSlowCloud(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	if testing.Short() {
		t.Skip("short: it waits for a cloud that takes its time")
	}
	blocktest.Run(t, blocktest.Config{Parallel: true, Slow: 30 * time.Second, Lag: 450 * time.Millisecond, New: func(t testing.TB) blocktest.Cloud {
		c := blocktest.NewReference(t)
		c.Delay, c.Lag, c.Rollbacks, c.In = 100*time.Millisecond, 400*time.Millisecond, true, []string{"a", "b"}
		return c
	}})
}

// TestManyVolumes: what an engine asks for is told at once, however many volumes there are and
// however long the cloud takes.
func TestManyVolumes(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	n := 10000
	if testing.Short() {
		n = 1000
	}
	blocktest.Many(t, blocktest.Config{New: func(t testing.TB) blocktest.Cloud { return blocktest.NewReference(t) }, Slow: 30 * time.Second, Size: 16 << 20}, n)
}
