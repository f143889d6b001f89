package ebs

import (
	"cmp"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
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
	poll     time.Duration
	gone     time.Duration // how long a disk must be missing; 0 is the driver's
}

// driver opens a pool as the daemon does.
func (d daemon) driver(t testing.TB) volume.Driver {
	t.Helper()
	p, err := connect(t.Context(), d.conf, catalog.Env{}.Log(), func(o *imds.Options) { o.Endpoint = d.metadata })
	if err != nil {
		t.Fatal(err)
	}
	p.t.Poll = d.poll
	p.vanishedFor = cmp.Or(d.gone, p.vanishedFor)
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
	d := daemon{poll: blocktest.Quick, conf: c.pool(), metadata: metadata, dir: t.TempDir()}
	d.conf.Config = block.Config{
		Namespace: "test", Size: gib, FS: "ext4", Detach: 20 * time.Millisecond, Wait: time.Second, Preempt: "never",
		Refresh: time.Hour, Rate: 10000, Dev: i.Machine().Dev(), Sys: i.Machine().Sys(),
	}
	return d
}

func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	blocktest.Conformance(t, volumetest.Config{
		Options:    map[string]string{"mode": "0750", "uid": "1000", "type": "gp3", "iops": "3000"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "type": "gp9", "throughput": "much", "zone": "eu-west-1a", multiAttach: "true"},
		Resize:     2 * gib,
	}, func(t *testing.T) func(t testing.TB) volume.Driver {
		return newCloud(t, quick()).daemon(t, ec2.InstanceSpec{}).driver
	})
}
