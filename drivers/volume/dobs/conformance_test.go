package dobs

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
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
}

// daemon returns what a pool on a new droplet is opened with.
func (c *cloud) daemon(t testing.TB) daemon {
	t.Helper()
	id, m, metadata := c.droplet(t, nyc)
	d := daemon{conf: c.pool(), metadata: metadata, dir: t.TempDir(), droplet: id}
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
	drv, err := block.Open(t.Context(), p, d.conf.Config, catalog.Env{PoolName: "pool", StateDir: filepath.Join(d.dir, "state"), RunDir: filepath.Join(d.dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = drv.(io.Closer).Close() })
	return drv
}

func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	daemons := map[volume.Driver]daemon{}
	deviates := map[string]string{}
	if !canResizeExt4(t) {
		deviates["Resize"] = "the kernel grows an ext4 that is mounted for CAP_SYS_RESOURCE alone, which this process lacks"
	}
	volumetest.Run(t, volumetest.Config{
		New: func(t *testing.T) volume.Driver {
			conf := quick()
			conf.ListLag = 0 // what was removed right before a restart may be seen in a list after it
			d := newCloud(t, conf).daemon(t)
			drv := d.driver(t)
			daemons[drv] = d
			return drv
		},
		Reopen: func(t *testing.T, old volume.Driver) volume.Driver {
			if err := old.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
			drv := daemons[old].driver(t)
			daemons[drv] = daemons[old]
			return drv
		},
		Options:    map[string]string{"mode": "0750", "uid": "1000", "mount_options": "noatime", "zone": nyc},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "type": "gp3", "zone": "New York"},
		Resize:     2 * gib,
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
