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
			"UsedElsewhere": onCeph, "CopyOfOldMemory": onCeph,
			"Resize": onCeph, "Snapshots": onCeph, "XFSClone": onCeph, "Rollback": onCeph, "OpenSnapshot": onCeph, "HeldElsewhere": onCeph,
			"Calls": "Cinder has a volume in detaching for a moment after its device is gone, and deletes it when asked again; see TestRequests",
		},
	})
}

// TestScenariosOnCeph runs those that need a back end which takes snapshots of what is in use.
func TestScenariosOnCeph(t *testing.T) {
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newCloud(t, "ceph") },
		Size: gib, Bigger: 2 * gib, XFS: gib, Slow: 2 * time.Minute,
		Only: []string{
			"Classic", "TakenByForce", "FormattedMeanwhile", "UsedElsewhere", "CopyOfOldMemory", "RemovedOnce", "SnapshotsOfOthers", "Resize", "Snapshots",
			"XFSClone", "Rollback", "OpenSnapshot", "HeldElsewhere", "Zones", "MoveZone", "MoveGivenUp", "MoveRegion", "MoveCrashes",
		},
	})
}
