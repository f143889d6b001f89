package dobs

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/testenv"
)

func TestScenarios(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	ignoreEnvironment(t)
	blocktest.Run(t, blocktest.Config{
		Parallel: true,
		New:      func(t testing.TB) blocktest.Cloud { return newCloud(t, quick()) },
		Size:     gib, Bigger: 2 * gib, XFS: gib, Lag: 100 * time.Millisecond,
	})
}
