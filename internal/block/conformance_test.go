package block_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

// pool is what a driver under test was opened with.
type pool struct {
	host *blocktest.Host
	dir  string
}

func (p pool) open(t testing.TB) volume.Driver {
	t.Helper()
	d, err := block.Open(t.Context(), p.host.Provider(t), block.Config{
		Namespace: "test", Size: 64 << 20, FS: "ext4", Detach: 20 * time.Millisecond, Wait: time.Second, Preempt: "never",
		Refresh: time.Hour, Rate: 10000, Dev: p.host.Machine.Dev(), Sys: p.host.Machine.Sys(),
	}, catalog.Env{PoolName: "pool", StateDir: filepath.Join(p.dir, "state"), RunDir: filepath.Join(p.dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	blocktest.Conformance(t, volumetest.Config{
		Options:    map[string]string{"mode": "0750", "uid": "1000", "mount_options": "noatime"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "mount_options": "errors=panic"},
		Resize:     96 << 20,
	}, func(t *testing.T) func(t testing.TB) volume.Driver {
		return pool{blocktest.NewReference(t).Host(t), t.TempDir()}.open
	})
}
