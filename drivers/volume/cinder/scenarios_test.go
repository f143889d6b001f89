package cinder

import (
	"context"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block/blocktest"
)

// withoutTest is a context for what is tidied up after a test.
func withoutTest(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
}

const onCeph = "the driver of NFS cannot do this with a volume that a server has; see TestScenariosOnCeph"

// TestScenarios runs the scenarios with volumes that are files.
func TestScenarios(t *testing.T) {
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newCloud(t, "files") },
		Size: gib, Bigger: 2 * gib, XFS: gib, Slow: time.Minute,
		Deviates: map[string]string{
			"Resize": onCeph, "Snapshots": onCeph, "XFSClone": onCeph, "Rollback": onCeph, "OpenSnapshot": onCeph,
		},
	})
}
