package gcepd

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
	poll     time.Duration
}

// driver opens a pool as the daemon does.
func (d daemon) driver(t testing.TB) volume.Driver {
	t.Helper()
	p, err := connect(t.Context(), d.conf, catalog.Env{}.Log(), d.metadata)
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

// daemon returns what a pool on a new instance is opened with.
func (c *cloud) daemon(t testing.TB, zone string) daemon {
	t.Helper()
	_, m, metadata := c.instance(t, zone)
	d := daemon{poll: blocktest.Quick, conf: c.pool(), metadata: metadata, dir: t.TempDir()}
	d.conf.Config = block.Config{
		Namespace: "test", Size: 10 * gib, FS: "ext4", Detach: 20 * time.Millisecond, Wait: time.Second, Preempt: "never",
		Refresh: time.Hour, Rate: 10000, Dev: m.Dev(), Sys: m.Sys(),
	}
	return d
}

func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	// The suite starts a plugin anew within milliseconds of a change, which a list that is behind has
	// not heard of; the scenarios are for that.
	conf := quick()
	conf.ListLag = 0
	blocktest.Conformance(t, volumetest.Config{
		Options:    map[string]string{"mode": "0750", "uid": "1000", "type": "hyperdisk-balanced", "iops": "3000"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "type": "gp3", "throughput": "much", "zone": "us-central1", multiWriter: "true"},
		Resize:     15 * gib,
	}, func(t *testing.T) func(t testing.TB) volume.Driver {
		return newCloud(t, conf).daemon(t, zoneA).driver
	})
}
