package rbd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/ceph"
)

func TestMain(m *testing.M) { os.Exit(ceph.Main(m)) }

// cloud is a pool of the cluster that a test shares with others.
type cloud struct {
	*ceph.Cluster
	pool string

	mu     sync.Mutex
	hosts  int
	opened map[string]*ceph.Mount
}

var pools = struct {
	sync.Mutex
	n    int
	open map[*ceph.Cluster]bool
}{open: map[*ceph.Cluster]bool{}}

func newCloud(t testing.TB, cluster *ceph.Cluster) *cloud {
	t.Helper()
	testenv.Require(t, testenv.Loop)
	pools.Lock()
	pools.n++
	c := &cloud{Cluster: cluster, pool: fmt.Sprintf("pool%d", pools.n), opened: map[string]*ceph.Mount{}}
	pools.Unlock()
	all := [][]string{{"osd", "pool", "create", c.pool, "1"}}
	pools.Lock()
	if !pools.open[cluster] { // to all pools
		all = append(all, []string{"auth", "caps", "client." + ceph.User, "mon", "profile rbd", "osd", "profile rbd", "mgr", "profile rbd"})
		pools.open[cluster] = true
	}
	pools.Unlock()
	for _, args := range all {
		if _, err := cluster.Admin(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	c.Must(t, "rbd", "pool", "init", c.pool)
	return c
}

func (c *cloud) config(host string) config {
	limit := 30 * time.Second
	if os.Getenv(testenv.InVM) != "" {
		limit = 3 * time.Minute
	}
	return config{Config: block.Config{
		Namespace: "test", Size: 64 << 20, FS: "ext4", Detach: 20 * time.Millisecond, Wait: 50 * time.Millisecond,
		Preempt: "never", Refresh: time.Hour, Rate: 10000, Dev: "/dev", Sys: "/sys",
	}, Pool: c.pool, Conf: c.Config, User: ceph.User, Keyring: c.Keyring, Map: "fuse", Host: host, Timeout: limit}
}

// Host adds a host: a directory of its own on this machine.
func (c *cloud) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	c.mu.Lock()
	c.hosts++
	conf := c.config(fmt.Sprintf("host-%d", c.hosts))
	c.mu.Unlock()
	dir := t.TempDir()
	t.Cleanup(func() { c.sweep(t, dir) })
	return &blocktest.Host{
		ID: conf.Host,
		Provider: func(t testing.TB) block.Provider {
			t.Helper()
			p, err := newProvider(t.Context(), conf, catalog.Env{PoolName: "pool", RunDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			return &closing{p, c}
		},
		Attached: func() []string { // what is written down of one is removed last
			all, err := filepath.Glob(filepath.Join(dir, "rbd", "pool", "*.json"))
			if err != nil {
				t.Fatal(err)
			}
			return all
		},
	}
}

// loopsBelow returns the loop devices on files below a directory.
func loopsBelow(t testing.TB, dir string) (names []string) {
	t.Helper()
	all, err := filepath.Glob("/sys/block/loop*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if strings.HasPrefix(backing(l), dir+"/") {
			names = append(names, filepath.Base(l))
		}
	}
	return names
}

// sweep ends what a host has, as the end of its machine does.
func (c *cloud) sweep(t testing.TB, dir string) {
	t.Helper()
	conf := c.config("gone")
	p := &provider{
		cluster: &cluster{c: &conf}, dir: filepath.Join(dir, "rbd", "pool"), attached: map[string]*attachment{}, map_: fuse{},
	}
	if err := p.load(); err != nil {
		t.Error(err)
	}
	for _, a := range p.attached {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		if err := p.wayOf(a).close(ctx, a, true); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if left := loopsBelow(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// File is the bytes of an image, by a client of the test's own. It has the image open, and ends
// when somebody looks for images or removes one.
func (c *cloud) File(t testing.TB, disk string) string {
	t.Helper()
	p, err := newProvider(t.Context(), c.config("test"), catalog.Env{PoolName: "pool", RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	image, err := p.nameOf(t.Context(), disk)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := t.TempDir()
	m, err := c.FusePool(t.Context(), c.pool, dir)
	if err != nil {
		t.Fatal(err)
	}
	c.opened[dir] = m
	t.Cleanup(c.close)
	return m.File(image)
}

func (c *cloud) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for dir, m := range c.opened {
		m.Close()
		delete(c.opened, dir)
	}
}

// Foreign makes an image as a person does.
func (c *cloud) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	c.Must(t, "rbd", "create", c.pool+"/"+name, "--size", bytesOf(size), "--image-feature", "layering,exclusive-lock,object-map,fast-diff")
	p, err := newProvider(t.Context(), c.config("test"), catalog.Env{PoolName: "pool", RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	i, err := p.info(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return i.ID
}

// closing ends the test's own clients in time.
type closing struct {
	*provider
	c *cloud
}

func (p *closing) Find(ctx context.Context, ref string) ([]block.Foreign, error) {
	p.c.close()
	return p.provider.Find(ctx, ref)
}

func (p *closing) Delete(ctx context.Context, d block.Disk) error {
	p.c.close()
	return p.provider.Delete(ctx, d)
}

func TestScenarios(t *testing.T) {
	cluster := ceph.Shared(t)
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newCloud(t, cluster) },
		Slow: time.Minute,
	})
}
