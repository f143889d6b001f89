// Package blocktest is the scenarios that every provider of block storage is proved by: with its
// fake, with its real server, or with an account.
//
//	func TestScenarios(t *testing.T) {
//		testenv.Require(t, testenv.Loop)
//		blocktest.Run(t, blocktest.Config{New: newCloud, Size: 1 << 30})
//	}
//
// A scenario has a cloud of its own and several hosts in it. The suite stands between the core and
// the provider, so that calls get lost on either way, hang, and are counted, whatever the cloud.
// [Reference] is a small cloud within the process, by which the suite itself is proved.
package blocktest

import (
	"slices"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

// Config is what the suite has to know of a provider.
type Config struct {
	// New makes a cloud with nothing in it, and cleans up by [testing.TB.Cleanup].
	New func(t testing.TB) Cloud
	// Size is that of the disks that are made, and Bigger one that they can be brought to.
	// 0 is 64 MiB and half as much again. XFS is the size of one with an xfs on it; 0 is
	// 320 MiB.
	Size, Bigger, XFS int64
	// Slow is how long the cloud takes for what it does in the background, amply.
	Slow time.Duration
	// Lag is how far its lists may be behind.
	Lag time.Duration
	// Together is how many lives are played at once in which a daemon ends: most of one is waiting. 0 is 6.
	Together int
	// Parallel runs scenarios beside each other, as each has a cloud of its own, but for those that measure.
	Parallel bool
	// Change changes the configuration of each pool. nil changes nothing.
	Change func(c *block.Config)
	// Only names the scenarios to run, where another test has the rest; empty runs all.
	Only []string
	// Deviates names scenarios that the provider cannot pass, each with the reason, which
	// belongs into its README. They are skipped with that text.
	Deviates map[string]string
}

// Cloud is an account of a cloud.
type Cloud interface {
	// Host adds a machine.
	Host(t testing.TB) *Host
	// File returns the file that holds the bytes of a disk; empty where that is out of
	// reach, which skips what needs it.
	File(t testing.TB, disk string) string
	// Foreign makes a disk that people know by a name, and that is not ours.
	Foreign(t testing.TB, name string, size int64) (disk string)
}

// Host is a machine of a cloud.
type Host struct {
	// ID is the cloud's for it.
	ID string
	// Machine is where its disks appear; nil for the machine that the test runs on.
	Machine *machine.Machine
	// Attached returns what is attached to the host, where Machine does not tell.
	Attached func() []string
	// Provider makes what a pool on that host has, anew for each daemon.
	Provider func(t testing.TB) block.Provider
	// Terminate ends the machine for good, as the cloud knows; nil where that cannot be done.
	Terminate func()
}

// Run runs every scenario as a subtest of t.
func Run(t *testing.T, c Config) {
	c = c.defaults()
	for _, s := range scenarios() {
		if len(c.Only) > 0 && !slices.Contains(c.Only, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			if why, ok := c.Deviates[s.name]; ok {
				t.Skip("deviates: " + why)
			}
			if c.Parallel && !measures[s.name] {
				t.Parallel()
			}
			s.run(newStage(t, c))
		})
	}
}

// defaults fills in what is left open.
func (c Config) defaults() Config {
	if c.Size == 0 {
		c.Size = 64 << 20
	}
	if c.Bigger == 0 {
		c.Bigger = c.Size + c.Size/2
	}
	if c.XFS == 0 {
		c.XFS = 320 << 20
	}
	if c.Slow == 0 {
		c.Slow = 10 * time.Second
	}
	if c.Together == 0 {
		c.Together = 6
	}
	return c
}

// measures has the scenarios that look at the time or count what is asked in the background.
var measures = map[string]bool{"HangingCloud": true, "Calls": true, "Idle": true}

type scenario struct {
	name string
	run  func(*stage)
}

func scenarios() []scenario {
	return []scenario{
		{"Classic", classic},
		{"OneName", oneName},
		{"TwoMakeOneName", twoMakeOneName},
		{"GivenWay", givenWay},
		{"SecondWriter", secondWriter},
		{"Handover", handover},
		{"TakenByForce", takenByForce},
		{"DeadHolder", deadHolder},
		{"FormattedMeanwhile", formattedMeanwhile},
		{"UsedElsewhere", usedElsewhere},
		{"CopyOfOldMemory", copyOfOldMemory},
		{"RemovedOnce", removedOnce},
		{"AttachedUnawares", attachedUnawares},
		{"SnapshotsOfOthers", snapshotsOfOthers},
		{"LyingNames", lyingNames},
		{"NotBlank", notBlank},
		{"Formatted", formattedStays},
		{"OwnerOnce", ownerOnce},
		{"WrongOptions", wrongOptions},
		{"LostAnswers", lostAnswers},
		{"Crashes", crashes},
		{"Resize", resize},
		{"Snapshots", snapshotsAndClones},
		{"XFSClone", xfsClone},
		{"Rollback", rollback},
		{"OpenSnapshot", openSnapshot},
		{"HeldElsewhere", heldElsewhere},
		{"Zones", zones},
		{"MoveZone", moveZone},
		{"MoveGivenUp", moveGivenUp},
		{"MoveRegion", moveRegion},
		{"MoveCrashes", moveCrashes},
		{"Trash", trash},
		{"Import", imports},
		{"JobOutlivesCall", jobOutlivesCall},
		{"HangingCloud", hangingCloud},
		{"Calls", calls},
		{"Idle", idle},
	}
}
