package rbd

import (
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/remora-plugins/remora/internal/block/blocktest"
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
	blocktest.Conformance(t, volumetest.Config{
		Options:    map[string]string{"mode": "0750", "uid": "1000", "mount_options": "noatime", "object_size": "1m"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "object_size": "3m", "features": "exclusive-lock", "stripe_count": "2"},
		Resize:     96 << 20,
	}, func(t *testing.T) func(t testing.TB) volume.Driver {
		o := opened{newCloud(t, cluster), t.TempDir(), nil}
		t.Cleanup(func() { o.c.sweep(t, filepath.Join(o.dir, "run")) })
		return o.open
	})
}
