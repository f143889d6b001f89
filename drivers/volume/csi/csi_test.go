package csi

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/catalog/catalogtest"
	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

func TestMain(m *testing.M) {
	if csitest.Main() || launched() || soaked() {
		return
	}
	if dir := os.Getenv(bridgeEnv); dir != "" {
		if err := bridge(dir); err != nil {
			fmt.Fprintln(os.Stderr, "bridge:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// quick makes a test wait for nothing that it need not.
var quick = pace{first: 2 * time.Millisecond, last: 50 * time.Millisecond, unsure: 3, away: 2 * time.Second}

// host is one host with a pool, as a test has it.
type host struct {
	t    testing.TB
	mock *csitest.Mock
	dir  string
	c    config

	lasting []string // in place of a driver's own
}

// newHost starts a CSI driver, and says how a pool of it is opened.
func newHost(t testing.TB, o csitest.Options, change ...func(*config)) *host {
	t.Helper()
	testenv.Require(t, testenv.Root)
	h := &host{t: t, dir: t.TempDir(), mock: csitest.Start(t, o)}
	h.unmounted(t)
	h.c = testConfig(h.mock.Endpoint)
	h.c.Controller = h.mock.Controller
	for _, f := range change {
		f(&h.c)
	}
	return h
}

// unmounted has nothing be mounted at the end of a test, not of one that failed either.
func (h *host) unmounted(t testing.TB) {
	t.Cleanup(func() {
		list, _ := mount.List(h.dir)
		for _, m := range slices.Backward(list) {
			_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
		}
	})
}

func testConfig(endpoint string) config {
	return config{Keys: launch.Keys{Endpoint: endpoint}, Namespace: "test", Size: 64 << 20, Reclaim: "delete", Detach: 20 * time.Millisecond, Wait: 500 * time.Millisecond}
}

func (h *host) env() catalog.Env {
	return catalog.Env{PoolName: "pool", StateDir: filepath.Join(h.dir, "state"), RunDir: filepath.Join(h.dir, "run")}
}

// open opens the pool, as a daemon does that is started.
func (h *host) open(t testing.TB) *driver {
	t.Helper()
	s, err := h.c.check()
	if err != nil {
		t.Fatal(err)
	}
	s.pace = quick
	d, err := start(t.Context(), h.c, s, h.env())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if h.lasting != nil {
		d.lasting = h.lasting
	}
	return d
}

func TestREADME(t *testing.T) { catalogtest.README(t, Driver()) }
