package ebs

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

// daemon is what a driver under test was opened with.
type daemon struct {
	conf     config
	metadata string
	dir      string
}

// driver opens a pool as the daemon does.
func (d daemon) driver(t testing.TB) volume.Driver {
	t.Helper()
	p, err := connect(t.Context(), d.conf, catalog.Env{}.Log(), func(o *imds.Options) { o.Endpoint = d.metadata })
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

// daemon returns what a pool on a new instance is opened with.
func (c *cloud) daemon(t testing.TB, spec ec2.InstanceSpec) daemon {
	t.Helper()
	i, metadata := c.instance(t, spec)
	d := daemon{conf: c.pool(), metadata: metadata, dir: t.TempDir()}
	d.conf.Config = block.Config{
		Namespace: "test", Size: gib, FS: "ext4", Detach: 20 * time.Millisecond, Wait: time.Second, Preempt: "never",
		Refresh: time.Hour, Rate: 10000, Dev: i.Machine().Dev(), Sys: i.Machine().Sys(),
	}
	return d
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
			d := newCloud(t, quick()).daemon(t, ec2.InstanceSpec{})
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
		Options:    map[string]string{"mode": "0750", "uid": "1000", "type": "gp3", "iops": "3000"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "type": "gp9", "throughput": "much", "zone": "eu-west-1a", multiAttach: "true"},
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
