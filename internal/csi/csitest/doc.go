// Package csitest has a strict CSI driver, for the tests of what calls CSI drivers.
//
// Its volumes are directories, its mounts are bind mounts, and its state is in files, so that they
// all outlive its process. It keeps to the specification (v1.13) and holds the caller to it: what a
// container orchestrator must not do is answered with an error and recorded as a [Violation], such
// as a call out of order, a second one for a volume while one is in flight, a repetition with other
// arguments, a detach below a mount, a context that is not the one that was handed out. A test fails
// at its end if there was one.
//
//	m := csitest.Start(t, csitest.All())
//	m.Faults.Set("NodeStageVolume", csitest.After, csitest.Crash, 1)
//	… // of m.Endpoint
//	m.Restart()
//
// A driver with [Options].Process has a process of its own, which can be killed. The test's binary
// is run again for it, so TestMain has to begin with
//
//	if csitest.Main() {
//		return
//	}
package csitest
