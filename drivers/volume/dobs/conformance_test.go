package dobs

import (
	"io"
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

// daemon is what a driver under test was opened with.
type daemon struct {
	conf     config
	metadata string
	dir      string
	droplet  int
	poll     time.Duration
}

// daemon returns what a pool on a new droplet is opened with.
func (c *cloud) daemon(t testing.TB) daemon {
	t.Helper()
	id, m, metadata := c.droplet(t, nyc)
	d := daemon{poll: blocktest.Quick, conf: c.pool(), metadata: metadata, dir: t.TempDir(), droplet: id}
	d.conf.Config = block.Config{
		Namespace: "test", Size: gib, FS: "ext4", Detach: 20 * time.Millisecond, Wait: time.Second, Preempt: "never",
		Refresh: time.Hour, Rate: 10000, Dev: m.Dev(), Sys: m.Sys(),
	}
	return d
}

// driver opens a pool as the daemon does.
func (d daemon) driver(t testing.TB) volume.Driver {
	t.Helper()
	p, err := connect(t.Context(), d.conf, catalog.Env{}.Log(), func(p *provider) { p.host.url = d.metadata })
	if err != nil {
		t.Fatal(err)
	}
	p.t.Poll = d.poll
	drv, err := block.Open(t.Context(), p, d.conf.Config, catalog.Env{PoolName: "pool", StateDir: filepath.Join(d.dir, "state"), RunDir: filepath.Join(d.dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = drv.(io.Closer).Close() })
	return drv
}

func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	conf := quick()
	conf.ListLag = 0 // the suite starts a plugin anew before a list that is behind has heard of a change
	blocktest.Conformance(t, volumetest.Config{
		Options:    map[string]string{"mode": "0750", "uid": "1000", "mount_options": "noatime", "zone": nyc},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "type": "gp3", "zone": "New York"},
		Resize:     2 * gib,
	}, func(t *testing.T) func(t testing.TB) volume.Driver {
		return newCloud(t, conf).daemon(t).driver
	})
}
