package ebs

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/testenv"
)

func scenarios() blocktest.Config {
	return blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newCloud(t, quick()) },
		Size: gib, Bigger: 2 * gib, XFS: gib, Lag: 100 * time.Millisecond,
	}
}

func TestScenarios(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	ignoreEnvironment(t)
	c := scenarios()
	c.Parallel = true
	blocktest.Run(t, c)
}
