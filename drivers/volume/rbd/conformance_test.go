package rbd

import (
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
	"github.com/remora-plugins/remora/test/cloud/ceph"
)

// opened is a pool as the daemon opens it, of a table.
type opened struct {
	c   *cloud
	dir string
	log *slog.Logger
}

func (o opened) open(t testing.TB) volume.Driver {
	t.Helper()
	d, err := Driver().Open(t.Context(), map[string]any{
		"pool": o.c.pool, "conf": o.c.Config, "user": ceph.User, "keyring": o.c.Keyring, "map": "fuse", "namespace": "test", "host": "a-host",
		"size": "64m", "detach_after": "20ms", "wait": "1s", "cloud_refresh": "1h", "timeout": "30s",
	}, catalog.Env{PoolName: "pool", StateDir: filepath.Join(o.dir, "state"), RunDir: filepath.Join(o.dir, "run"), Logger: o.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.(io.Closer).Close() })
	return d
}

func TestConformance(t *testing.T) {
	cluster := ceph.Shared(t)
	all := map[volume.Driver]opened{}
	var deviates map[string]string
	if !canResizeExt4(t) {
		deviates = map[string]string{"Resize": "the kernel grows an ext4 that is mounted for CAP_SYS_RESOURCE alone, which this process lacks"}
	}
	volumetest.Run(t, volumetest.Config{
		New: func(t *testing.T) volume.Driver {
			o := opened{newCloud(t, cluster), t.TempDir(), nil}
			t.Cleanup(func() { sweep(t, filepath.Join(o.dir, "run")) })
			d := o.open(t)
			all[d] = o
			return d
		},
		Reopen: func(t *testing.T, d volume.Driver) volume.Driver {
			if err := d.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
			again := all[d].open(t)
			all[again] = all[d]
			return again
		},
		Options:    map[string]string{"mode": "0750", "uid": "1000", "mount_options": "noatime", "object_size": "1m"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "object_size": "3m", "features": "exclusive-lock", "stripe_count": "2"},
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
