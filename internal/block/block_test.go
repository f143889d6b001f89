package block_test

import (
	"testing"

	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/testenv"
)

func TestScenarios(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	blocktest.Run(t, blocktest.Config{New: func(t testing.TB) blocktest.Cloud { return blocktest.NewReference(t) }})
}
