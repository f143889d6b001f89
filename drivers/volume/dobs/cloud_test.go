package dobs

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/do"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

const (
	nyc    = "nyc1"
	secret = "dop_v1_3f1c2d4e5a6b7c8d9e0f"
)

// cloud is a fake of DigitalOcean with the droplets in it.
type cloud struct {
	*do.Cloud
	dir  string
	url  string
	last atomic.Int64 // droplet
}

// quick is a cloud in which things take a while, and lists are a little behind.
func quick() do.Config {
	const step = 15 * time.Millisecond
	return do.Config{
		Attach: step, Detach: step, Resize: step, DeviceLag: step, ListLag: step, Gone: 2 * time.Second, Hourly: -1, Burst: -1, PerDroplet: 50,
	}
}

func newCloud(t testing.TB, conf do.Config) *cloud {
	t.Helper()
	ignoreEnvironment(t)
	c := &cloud{dir: t.TempDir()}
	conf.Dir, conf.Tokens = c.dir, map[string]bool{secret: true, "reader": false}
	c.Cloud = do.New(conf)
	s := httptest.NewServer(c.Handler())
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// ignoreEnvironment keeps what this machine knows of DigitalOcean out of the tests.
func ignoreEnvironment(t testing.TB) {
	t.Helper()
	for _, name := range append([]string{"DOBS_REGION"}, tokenVariables...) {
		setenv(t, name, "")
	}
	for name := range needless {
		setenv(t, name, "")
	}
}

// setenv changes the environment where it is another: a test that runs beside others may not.
func setenv(t testing.TB, name, value string) {
	t.Helper()
	if os.Getenv(name) != value {
		t.Setenv(name, value)
	}
}

// pool is the configuration of a pool with a token.
func (c *cloud) pool() config {
	return config{Config: block.Config{Rate: 10000, Dev: "/dev", Sys: "/sys"}, Token: catalog.NewSecret(secret), Endpoint: c.url}
}

// droplet starts a machine, and returns its ID and its metadata service's address.
func (c *cloud) droplet(t testing.TB, region string) (id int, m *machine.Machine, metadata string) {
	t.Helper()
	testenv.Require(t, testenv.Loop)
	id = int(c.last.Add(1))
	m, err := machine.NewSeed(filepath.Join(c.dir, "droplet"+strconv.Itoa(id)), uint64(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.AddDroplet(id, "host", region, m); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c.Metadata(id))
	t.Cleanup(s.Close)
	return id, m, s.URL
}

// open makes a provider on a droplet.
func (c *cloud) open(t testing.TB, conf config, metadata string) *provider {
	t.Helper()
	p, err := connect(t.Context(), conf, catalog.Env{}.Log(), func(p *provider) { p.host.url = metadata })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sdk is a client of somebody else.
func (c *cloud) sdk(t testing.TB) *godo.Client {
	t.Helper()
	client, err := godo.New(godo.NewFromToken(secret).HTTPClient, godo.SetBaseURL(c.url))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Host adds a machine.
func (c *cloud) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	id, m, metadata := c.droplet(t, nyc)
	return &blocktest.Host{
		ID: strconv.Itoa(id), Machine: m,
		Provider: func(t testing.TB) block.Provider { return c.open(t, c.pool(), metadata) },
		Terminate: func() {
			if err := c.Destroy(id); err != nil {
				t.Error(err)
			}
		},
	}
}

// File returns the file with the bytes of a disk.
func (c *cloud) File(t testing.TB, disk string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(c.dir, disk+"*"))
	if err != nil || len(all) != 1 {
		t.Fatalf("files of disk %s: %q, %v", disk, all, err)
	}
	return all[0]
}

// Foreign makes a disk as REX-Ray does, which makes a dash of an underscore, and waits until it
// is listed.
func (c *cloud) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	return c.volume(t, godo.VolumeCreateRequest{Name: strings.ReplaceAll(name, "_", "-"), SizeGigaBytes: size / gib, Region: nyc})
}

func (c *cloud) volume(t testing.TB, req godo.VolumeCreateRequest) string {
	t.Helper()
	v, _, err := c.sdk(t).Storage.CreateVolume(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		list, _, err := c.sdk(t).Storage.ListVolumes(t.Context(), &godo.ListVolumeParams{Name: req.Name})
		if err == nil && len(list) > 0 {
			return v.ID
		}
		if time.Now().After(end) {
			t.Fatalf("volume %s is not listed: %v", v.ID, err)
		}
	}
}
