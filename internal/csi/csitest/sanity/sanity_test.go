// Package sanity has Kubernetes' own tests of CSI drivers judge the driver of package csitest, so that what is
// tested against that one is tested against the specification. It is a module of its own, as these tests bring
// libraries that nothing else here needs.
package sanity

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"

	"github.com/remora-plugins/remora/internal/csi/csitest"
)

// TestSanity runs all there are for a driver that can do everything.
func TestSanity(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	o := csitest.All()
	o.Process, o.MayViolate, o.MaxVolumes = true, true, 4
	m := csitest.Start(t, o)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := sanity.NewTestConfig()
	c.Address, c.TargetPath, c.StagingPath = "unix://"+m.Endpoint, filepath.Join(dir, "t"), filepath.Join(dir, "s")
	c.TestVolumeSize, c.TestVolumeExpandSize = 10<<20, 20<<20
	c.TestNodeVolumeAttachLimit = true
	c.TestVolumeMutableParameters = map[string]string{"iops": "100"}
	sanity.Test(t, c)
	if left := m.Left(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestMain is also the driver.
func TestMain(m *testing.M) {
	if csitest.Main() {
		return
	}
	os.Exit(m.Run())
}
