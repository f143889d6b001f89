package cinder

import (
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/ceph"
	"github.com/remora-plugins/remora/test/cloud/nova"
	"github.com/remora-plugins/remora/test/cloud/openstack"
)

func TestMain(m *testing.M) {
	ignoreEnvironment()
	status := openstack.Main(m)
	if shared.Nova != nil {
		shared.Close()
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(status)
}

// ignoreEnvironment keeps what this machine knows of clouds out of the tests.
func ignoreEnvironment() {
	for _, v := range append(ofREXRay(), ofOpenStack()...) {
		_ = os.Unsetenv(v.name)
	}
}

// shared is the Nova of all tests of the package.
var shared struct {
	sync.Mutex
	*nova.Nova
	dir string
}

// cloud is a project of its own in the real Keystone and Cinder, with the fake Nova.
type cloud struct {
	*openstack.Cloud
	nova    *nova.Nova
	kind    string // of volumes
	name    string // of the project
	project string
	user    *provider // who is logged in already, and tidies up
}

var projects atomic.Int64

func newCloud(t testing.TB, kind string) *cloud {
	t.Helper()
	testenv.Require(t, testenv.Loop)
	c := &cloud{Cloud: openstack.Shared(t), kind: kind, name: fmt.Sprintf("test-%d", projects.Add(1))}
	shared.Lock()
	defer shared.Unlock()
	if shared.Nova == nil {
		dir, err := os.MkdirTemp("", "nova-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
		if shared.Nova, err = nova.New(t.Context(), c.Cloud, ceph.Shared(t), dir); err != nil {
			t.Fatal(err)
		}
	}
	c.nova = shared.Nova
	var err error
	if c.project, err = c.NewProject(t.Context(), c.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.clean(t) })
	return c
}

// clean deletes what a test left in its project.
func (c *cloud) clean(t testing.TB) {
	p := c.user
	if p == nil {
		p = c.open(t, c.pool(), "")
	}
	defer p.http.CloseIdleConnections()
	ctx := t.Context()
	if ctx.Err() != nil {
		var cancel func()
		ctx, cancel = withoutTest(t)
		defer cancel()
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		all, err := p.where(ctx, nil, "")
		if err != nil {
			t.Error(err)
			return
		}
		if len(all) == 0 {
			return
		}
		for _, v := range all {
			if list, err := p.attachments(ctx, v.ID); err == nil {
				for _, a := range list {
					_ = p.drop(ctx, a.ID)
				}
			}
			if s, err := p.login(ctx); err == nil {
				_ = volumes.Delete(ctx, s.volumes, v.ID, volumes.DeleteOpts{Cascade: true}).ExtractErr()
			}
		}
	}
}

// pool is the configuration of a pool that logs in by password.
func (c *cloud) pool() config {
	return config{
		Config: block.Config{Rate: 10000, Dev: "/dev", Sys: "/sys"}, Region: openstack.Region, Interface: "public",
		AuthURL: c.AuthURL, UserName: openstack.User, Password: catalog.NewSecret(c.Password), ProjectName: c.name, Type: c.kind,
	}
}

// open makes a provider on a server.
func (c *cloud) open(t testing.TB, conf config, metadata string) *provider {
	t.Helper()
	p, err := newProvider(t.Context(), conf, catalog.Env{}.Log())
	if err != nil {
		t.Fatal(err)
	}
	p.metadata = metadata
	t.Cleanup(p.http.CloseIdleConnections)
	return p
}

// Host adds a machine.
func (c *cloud) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	s := c.nova.Server(t, c.project)
	metadata := httptest.NewServer(s.Metadata())
	t.Cleanup(metadata.Close)
	url := metadata.URL + "/openstack/latest/meta_data.json"
	return &blocktest.Host{
		ID: s.ID, Machine: s.Machine,
		Provider:  func(t testing.TB) block.Provider { return c.open(t, c.pool(), url) },
		Terminate: func() { s.Stop(t) },
	}
}

// File returns the file with the bytes of a disk.
func (c *cloud) File(_ testing.TB, disk string) string {
	if c.kind != "files" {
		return ""
	}
	return c.Cloud.File(disk)
}

// Foreign makes a disk as people do.
func (c *cloud) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	p := c.open(t, c.pool(), "")
	s, err := p.login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, err := volumes.Create(t.Context(), s.volumes, volumes.CreateOpts{Name: name, Size: int(size / gib), VolumeType: c.kind}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		now, err := p.get(t.Context(), v.ID)
		if err == nil && now.Status == "available" {
			return v.ID
		}
		if time.Now().After(end) {
			t.Fatalf("volume %s is %s, %v", v.ID, strings.TrimSpace(now.Status), err)
		}
	}
}
