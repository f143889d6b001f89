package cinder

import (
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
	"github.com/remora-plugins/remora/test/cloud/nova"
)

// daemon is what a driver under test was opened with.
type daemon struct {
	cloud    *cloud
	server   *nova.Server
	conf     config
	metadata string
	dir      string
}

// daemon returns what a pool on a new server is opened with.
func (c *cloud) daemon(t testing.TB) daemon {
	t.Helper()
	s := c.nova.Server(t, c.project)
	m := httptest.NewServer(s.Metadata())
	t.Cleanup(m.Close)
	d := daemon{cloud: c, server: s, conf: c.pool(), metadata: m.URL + "/openstack/latest/meta_data.json", dir: t.TempDir()}
	d.conf.Config = block.Config{
		Namespace: "test", Size: gib, FS: "ext4", Detach: 20 * time.Millisecond, Wait: time.Second, Preempt: "never",
		Refresh: time.Hour, Rate: 10000, Dev: s.Machine.Dev(), Sys: s.Machine.Sys(),
	}
	return d
}

// driver opens a pool as the daemon does.
func (d daemon) driver(t testing.TB) (*provider, volume.Driver) {
	t.Helper()
	p := d.cloud.open(t, d.conf, d.metadata)
	d.cloud.user = p
	drv, err := block.Open(t.Context(), p, d.conf.Config, catalog.Env{PoolName: "pool", StateDir: filepath.Join(d.dir, "state"), RunDir: filepath.Join(d.dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = drv.(io.Closer).Close() })
	return p, drv
}

func TestConformance(t *testing.T) {
	newCloud(t, "ceph") // what is shared is there before the suite looks for leaks
	blocktest.Conformance(t, volumetest.Config{
		Options:    map[string]string{"mode": "0750", "uid": "1000", "type": "ceph"},
		BadOptions: map[string]string{"mode": "rwx", "size": "1k", "fs": "ntfs", "type": "gold", "iops": "3000", "zone": "moon", multiAttach: "true"},
		Resize:     2 * gib,
		Deviates:   map[string]string{"Rollback": "Cinder brings a disk back to its last snapshot alone; see TestRollback"},
	}, func(t *testing.T) func(t testing.TB) volume.Driver {
		d := newCloud(t, "ceph").daemon(t)
		return func(t testing.TB) volume.Driver {
			_, drv := d.driver(t)
			return drv
		}
	})
}

// TestRequests counts what is asked of Cinder and Nova for each verb. To look whether something is
// done is left to how long it takes.
func TestRequests(t *testing.T) {
	d := newCloud(t, "files").daemon(t)
	p, drv := d.driver(t)
	target := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	_ = drv.(volume.Pinger).Ping(t.Context())
	mount := func() error { _, err := drv.Mount(t.Context(), "data", target); return err }
	unmount := func() error {
		if err := drv.Unmount(t.Context(), "data", target); err != nil {
			return err
		}
		for end := time.Now().Add(time.Minute); time.Now().Before(end) && (len(d.server.Machine.Names()) > 0 || working(drv)); {
			time.Sleep(20 * time.Millisecond)
		}
		all, err := p.where(t.Context(), nil, "")
		for err == nil && len(all) == 1 && all[0].Status != "available" { // for a moment it is "detaching"
			time.Sleep(50 * time.Millisecond)
			all, err = p.where(t.Context(), nil, "")
		}
		return err
	}
	for _, tt := range []struct {
		what string
		do   func() error
		want map[string]int
	}{
		{"create", func() error { return drv.Create(t.Context(), "data", map[string]string{"type": "files"}) }, map[string]int{"CreateVolume": 1}},
		{"create again", func() error { return drv.Create(t.Context(), "data", map[string]string{}) }, map[string]int{}},
		{"first mount", mount, map[string]int{"AttachVolume": 1, "SetMetadata": 2}},
		{"unmount", unmount, map[string]int{"DetachVolume": 1}},
		{"mount", mount, map[string]int{"AttachVolume": 1}},
		{"unmount again", unmount, map[string]int{"DetachVolume": 1}},
		{"remove", func() error { return drv.Remove(t.Context(), "data") }, map[string]int{"DeleteVolume": 1, "ListSnapshots": 1}},
	} {
		before := count(p)
		if err := tt.do(); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		got := map[string]int{}
		for op, n := range count(p) {
			if n -= before[op]; n > 0 {
				got[op] = n
			}
		}
		t.Logf("%-14s %v", tt.what, got)
		for op, n := range got {
			look := op == "ListVolumes" || op == "GetVolume" || op == "ListAttachments"
			if !look && n > tt.want[op] {
				t.Errorf("%s: %d of %s, want at most %d", tt.what, n, op, tt.want[op])
			}
		}
	}
}

func working(d volume.Driver) bool {
	for _, j := range d.(volume.Worker).Jobs() {
		if !j.Ended {
			return true
		}
	}
	return false
}

func count(p *provider) map[string]int {
	all := map[string]int{}
	for _, c := range p.client.Counts() {
		all[c.Op] += c.N
	}
	return all
}

// TestRollback: a disk is brought back to its last snapshot, and to no other.
func TestRollback(t *testing.T) {
	_, drv := newCloud(t, "ceph").daemon(t).driver(t)
	file := filepath.Join(t.TempDir(), "f")
	target := filepath.Dir(file)
	sn, rb := drv.(volume.Snapshotter), drv.(volume.Rollbacker)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mounted := func(do func() error) {
		t.Helper()
		_, err := drv.Mount(t.Context(), "data", target)
		must(err)
		must(do())
		must(drv.Unmount(t.Context(), "data", target))
	}
	text := func(want string) func() error {
		return func() error {
			got, err := os.ReadFile(file)
			if string(got) != want {
				t.Errorf("the file has %q, want %q", got, want)
			}
			return err
		}
	}
	must(drv.Create(t.Context(), "data", map[string]string{"type": "ceph"}))
	mounted(func() error {
		must(os.WriteFile(file, []byte("first"), 0o600))
		must(sn.CreateSnapshot(t.Context(), "data", "s1", nil))
		return os.WriteFile(file, []byte("second"), 0o600)
	})
	must(rb.Rollback(t.Context(), "data", "s1"))
	mounted(text("first"))
	must(sn.CreateSnapshot(t.Context(), "data", "s2", nil))
	wantErr(t, rb.Rollback(t.Context(), "data", "s1"), errdefs.ErrUnsupported, "last snapshot", "make a clone")
	mounted(text("first"))
}
