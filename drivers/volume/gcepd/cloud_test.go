package gcepd

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"
	googleopt "google.golang.org/api/option"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/gce"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

const (
	project = "fake-project"
	zoneA   = "us-central1-a"
	zoneB   = "us-central1-b"
	zoneC   = "europe-west1-b"
	account = "remora@fake-project.iam.gserviceaccount.com"
)

// cloud is a fake of Compute Engine with the machines in it.
type cloud struct {
	*gce.Cloud
	dir, url, keyfile string
	sdk               *compute.Service
	hosts             atomic.Uint64
}

// quick is a cloud in which things take a while, and lists are a little behind.
func quick() gce.Config {
	const step = 15 * time.Millisecond
	return gce.Config{
		Create: step, Attach: step, Detach: step, Resize: step, Snapshot: step, Other: step, DeviceLag: step, ListLag: step, Gone: 2 * time.Second,
		Reads: -1, Writes: -1,
	}
}

func newCloud(t testing.TB, conf gce.Config) *cloud {
	t.Helper()
	ignoreEnvironment(t)
	c := &cloud{dir: t.TempDir()}
	conf.Dir = c.dir
	c.Cloud = gce.New(conf)
	s := httptest.NewServer(c.Handler())
	t.Cleanup(s.Close)
	c.url = s.URL
	key, err := c.ServiceAccount(account, c.url+"/token")
	if err != nil {
		t.Fatal(err)
	}
	c.keyfile = filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(c.keyfile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	c.sdk, err = compute.NewService(t.Context(), googleopt.WithAuthCredentialsFile(googleopt.ServiceAccount, c.keyfile), googleopt.WithEndpoint(c.url+"/compute/v1/"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ignoreEnvironment keeps what this machine knows of Google out of the tests.
func ignoreEnvironment(t testing.TB) {
	t.Helper()
	for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "GCEPD_KEYFILE", "GCEPD_ZONE", "GCEPD_DEFAULTDISKTYPE", "GCEPD_TAG"} {
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

// pool is the configuration of a pool with a key file, as its defaults make it.
func (c *cloud) pool() config {
	return config{
		Config:  block.Config{Namespace: "remora", Size: 16 * gib, Rate: 10000, Dev: "/dev", Sys: "/sys"},
		Keyfile: c.keyfile, Endpoint: c.url + "/compute/v1/", Type: standardType,
	}
}

// instance starts a machine, and returns it with the address of its metadata server.
func (c *cloud) instance(t testing.TB, zone string, scopes ...string) (name string, m *machine.Machine, metadata string) {
	t.Helper()
	testenv.Require(t, testenv.Loop)
	n := c.hosts.Add(1)
	name = "host-" + strconv.FormatUint(n, 10)
	m, err := machine.NewSeed(filepath.Join(c.dir, name), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.AddInstance(zone, name, m); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c.Metadata(zone, name, scopes...))
	t.Cleanup(s.Close)
	return name, m, strings.TrimPrefix(s.URL, "http://")
}

// open makes a provider on an instance.
func (c *cloud) open(t testing.TB, conf config, metadata string) *provider {
	t.Helper()
	p, err := connect(t.Context(), conf, catalog.Env{}.Log(), metadata)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// here makes a provider on a machine of its own in zone A.
func (c *cloud) here(t testing.TB, change ...func(*config)) *provider {
	t.Helper()
	conf := c.pool()
	for _, ch := range change {
		ch(&conf)
	}
	_, _, metadata := c.instance(t, zoneA)
	return c.open(t, conf, metadata)
}

// Host adds a machine.
func (c *cloud) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	name, m, metadata := c.instance(t, zoneA)
	return &blocktest.Host{
		ID: zoneA + "/" + name, Machine: m,
		Provider: func(t testing.TB) block.Provider { return c.open(t, c.pool(), metadata) },
		Terminate: func() {
			if _, err := c.sdk.Instances.Delete(project, zoneA, name).Do(); err != nil {
				t.Error(err)
			}
		},
	}
}

// get returns a disk by its ID.
func (c *cloud) get(t testing.TB, id string) *compute.Disk {
	t.Helper()
	zone, name := split(id)
	d, err := c.sdk.Disks.Get(project, zone, name).Do()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// File returns the file with the bytes of a disk.
func (c *cloud) File(t testing.TB, id string) string {
	t.Helper()
	return filepath.Join(c.dir, "disk-"+strconv.FormatUint(c.get(t, id).Id, 10)+".img")
}

// Foreign makes a disk as people do.
func (c *cloud) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	op, err := c.sdk.Disks.Insert(project, zoneA, &compute.Disk{Name: name, SizeGb: size / gib, Labels: map[string]string{"libstoragetag": "old"}}).Do()
	if err != nil {
		t.Fatal(err)
	}
	c.end(t, op)
	time.Sleep(50 * time.Millisecond) // until lists have it
	return zoneA + "/" + name
}

// end waits for an operation.
func (c *cloud) end(t testing.TB, op *compute.Operation) {
	t.Helper()
	op, err := c.sdk.ZoneOperations.Wait(project, last(op.Zone), op.Name).Do()
	if err != nil || op.Error != nil {
		t.Fatal(err, op)
	}
}
