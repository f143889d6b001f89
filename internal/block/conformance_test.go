package block_test

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	pools := map[volume.Driver]pool{}
	shut := func(t *testing.T, d volume.Driver) {
		if err := d.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
	var deviates map[string]string
	if !canResizeExt4(t) {
		deviates = map[string]string{"Resize": "the kernel grows an ext4 that is mounted for CAP_SYS_RESOURCE alone, which this process lacks"}
	}
	volumetest.Run(t, volumetest.Config{
		New: func(t *testing.T) volume.Driver {
			p := pool{blocktest.NewReference(t).Host(t), t.TempDir()}
			d := p.open(t)
			pools[d] = p
			t.Cleanup(func() { _ = d.(io.Closer).Close() })
			return d
		},
		Reopen: func(t *testing.T, d volume.Driver) volume.Driver {
			p := pools[d]
			shut(t, d)
			again := p.open(t)
			pools[again] = p
			t.Cleanup(func() { _ = again.(io.Closer).Close() })
			return again
		},
		Options:    map[string]string{"mode": "0750", "uid": "1000", "mount_options": "noatime"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "mount_options": "errors=panic"},
		Resize:     96 << 20,
		Deviates:   deviates,
	})
}

// canResizeExt4 tells whether this process has the capability CAP_SYS_RESOURCE.
func canResizeExt4(t testing.TB) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
