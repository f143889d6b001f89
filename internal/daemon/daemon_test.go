package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/remora-plugins/remora/drivers/all"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// childEnv makes the test binary a daemon below the directory that it names.
const childEnv = "DAEMON_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := Run(ctx, options(dir, slog.New(slog.NewTextHandler(os.Stderr, nil)), append(all.Volumes(), stuckDriver(nil, nil))))
		stop()
		if err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(testenv.Main(m))
}

// patience is how long a test waits for what takes milliseconds.
const patience = 20 * time.Second

// testCreateWait is how long the daemons of a test wait for a volume that is made of a backup.
var testCreateWait atomic.Int64

// options are those of a daemon with everything below dir.
func options(dir string, log *slog.Logger, drivers []catalog.Volume) Options {
	known := map[string]config.Driver{}
	for _, d := range drivers {
		c := config.Driver{Check: d.Check}
		for _, k := range d.Keys() {
			c.Keys = append(c.Keys, k.Name)
		}
		known[d.Name()] = c
	}
	return Options{
		Load: func() (*config.Config, error) {
			return config.Load(config.Source{
				File:    dir + "/remora.toml",
				Env:     []string{"REMORA_PLUGIN_DIR=" + dir + "/p", "REMORA_RUN_DIR=" + dir + "/run", "REMORA_STATE_DIR=" + dir + "/state"},
				Drivers: known,
			})
		},
		Drivers: drivers,
		Version: "v1.2.3", CreateWait: time.Duration(testCreateWait.Load()),
		Logger: func(*config.Config) *slog.Logger { return log },
	}
}

// host is a place for a daemon, and the one that runs there.
type host struct {
	t       *testing.T
	dir     string
	control *control.Client
	cancel  context.CancelFunc
	done    chan error
}

// newHost makes a place with a configuration; DIR in it is the place's directory.
func newHost(t *testing.T, toml string) *host {
	t.Helper()
	goleak.VerifyNone(t, goleak.IgnoreCurrent()) // nothing is left from the test before
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	dir, err := os.MkdirTemp("", "rmd") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeHost(t, dir) })
	h := &host{t: t, dir: dir, control: control.NewClient(dir + "/run/control.sock")}
	t.Cleanup(h.control.Close)
	h.configure(toml)
	return h
}

// startHost makes a place and runs a daemon there until the test ends.
func startHost(t *testing.T, toml string, drivers ...catalog.Volume) *host {
	t.Helper()
	h := newHost(t, toml)
	h.run(drivers...)
	return h
}

// run runs a daemon until the test ends.
func (h *host) run(drivers ...catalog.Volume) {
	h.t.Helper()
	h.start(drivers...)
	h.t.Cleanup(func() {
		if err := h.stop(); err != nil {
			h.t.Errorf("daemon: %v", err)
		}
	})
	h.await("ready", func() bool { _, _, err := h.page("/healthz"); return err == nil && h.served() })
}

func (h *host) start(drivers ...catalog.Volume) {
	ctx, cancel := context.WithCancel(h.t.Context())
	h.cancel, h.done = cancel, make(chan error, 1)
	o := options(h.dir, slog.New(slog.NewTextHandler(h.t.Output(), nil)), append(all.Volumes(), drivers...))
	go func() { h.done <- Run(ctx, o) }()
}

// stop stops the daemon, once, and returns what Run returned.
func (h *host) stop() error {
	h.cancel()
	select {
	case err := <-h.done:
		h.done <- nil
		return err
	case <-time.After(patience):
		return errors.New("does not stop")
	}
}

func (h *host) configure(toml string) {
	h.t.Helper()
	text := strings.ReplaceAll(toml, "DIR", h.dir)
	if err := os.WriteFile(h.dir+"/remora.toml", []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// await waits for what another process or goroutine does.
func (h *host) await(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) { // another process has no clock to fake
		if time.Now().After(end) {
			h.t.Fatalf("%s: waited in vain", what)
		}
	}
}

func (h *host) page(path string) (string, bool, error) { return h.control.Page(h.t.Context(), path) }

// served tells whether every pool of the configuration is served.
func (h *host) served() bool {
	text, _, err := h.page("/readyz")
	return err == nil && !strings.Contains(text, "starting") && !strings.Contains(text, "not served")
}

// plugin calls the plugin as a new engine does, with a connection of its own.
func (h *host) plugin(pool string) client.Volume {
	h.t.Helper()
	c, err := client.New(h.endpoint(pool), client.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c.Volume()
}

func (h *host) endpoint(pool string) client.Endpoint {
	return client.Endpoint{Name: pool, Addr: "unix://" + h.dir + "/p/" + pool + ".sock"}
}

func (h *host) status() control.Status {
	h.t.Helper()
	s, err := h.control.Status(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestTwoPools(t *testing.T) {
	h := startHost(t, "[pool.fast]\n[pool.slow]\nlinger = \"1h\"\n")
	ctx := t.Context()
	h.must(h.plugin("fast").Create(ctx, "data", nil))
	p, err := h.plugin("fast").Mount(ctx, "data", "someone")
	h.must(err)
	if want := h.dir + "/state/volumes/fast/data/data"; p != want {
		t.Errorf("mountpoint is %q, want %q", p, want)
	}
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "fast", Name: "data"})
	h.must(err)
	if v.Pool != "fast" || v.Driver != "dir" || !v.Mounted || len(v.Mounts) != 1 || v.Mounts[0].ID != "someone" || v.Mounts[0].Count != 1 {
		t.Errorf("volume is %+v", v)
	}
	// The pools do not see each other's volumes.
	if _, err := h.plugin("slow").Get(ctx, "data"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("slow: %v", err)
	}
	h.must(h.plugin("slow").Create(ctx, "data", nil))
	list, err := h.control.Volumes().List(ctx, control.VolumeListRequest{})
	h.must(err)
	var names []string
	for _, v := range list {
		names = append(names, v.Pool+"/"+v.Name)
	}
	if !slices.Equal(names, []string{"fast/data", "slow/data"}) {
		t.Errorf("volumes are %v", names)
	}
	// With two pools, none of which is the default one, none can be meant.
	if _, err := h.control.Volumes().Path(ctx, control.VolumeRequest{Name: "data"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("no pool named: %v", err)
	}
	for _, req := range []control.VolumeMountRequest{{Pool: "fast", Name: "data"}, {Pool: "fast", Name: "data", ID: ""}} {
		if _, err := h.control.Volumes().Mount(ctx, req); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("mount without an ID: %v", err)
		}
		if err := h.control.Volumes().Unmount(ctx, req); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("unmount without an ID: %v", err)
		}
	}
	s := h.status()
	if s.Version != "v1.2.3" || s.PID != os.Getpid() || s.ConfigFile != h.dir+"/remora.toml" || len(s.Pools) != 2 {
		t.Errorf("status is %+v", s)
	}
	want := control.Pool{Name: "fast", Driver: "dir", Socket: h.dir + "/p/fast.sock", Volumes: 1, Mounted: 1, Reachable: true, Trash: true}
	if a := s.Pools[0].Advice; a == nil || !strings.Contains(a.Text, "project quota is o") {
		t.Errorf("advice is %+v", a)
	}
	s.Pools[0].Advice = nil
	if s.Pools[0] != want {
		t.Errorf("pool is %+v, want %+v", s.Pools[0], want)
	}
	h.must(h.stop())
	for _, socket := range []string{"/p/fast.sock", "/p/slow.sock", "/run/control.sock"} {
		if _, err := os.Lstat(h.dir + socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after the stop: %s: %v", socket, err)
		}
	}
}

func TestReconcile(t *testing.T) {
	h := startHost(t, "[pool.bad]\npath = \"DIR/bad\"\n[pool.good]\n")
	h.must(h.plugin("good").Create(t.Context(), "data", nil))
	h.must(os.RemoveAll(h.dir + "/state/volumes/good/data"))
	if _, err := h.plugin("good").Get(t.Context(), "data"); err != nil {
		t.Errorf("a volume that memory has: %v", err)
	}
	var seen []control.Progress
	_, err := h.control.Reconcile(t.Context(), func(p control.Progress) { seen = append(seen, p) })
	if err == nil || !strings.HasPrefix(err.Error(), `pool "bad": `) || strings.Contains(err.Error(), "\n") {
		t.Errorf("reconcile: %v", err)
	}
	if len(seen) != 2 || seen[0] != (control.Progress{Object: "bad", Total: 2}) || seen[1] != (control.Progress{Object: "good", Done: 1, Total: 2}) {
		t.Errorf("progress is %+v", seen)
	}
	// The pool that answers is in order although the other does not.
	if _, err := h.plugin("good").Get(t.Context(), "data"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a volume that went: %v", err)
	}
	h.must(os.Mkdir(h.dir+"/bad", 0o700))
	r, err := h.control.Reconcile(t.Context(), func(control.Progress) {})
	h.must(err)
	if r.Volumes != 0 {
		t.Errorf("reconcile: %+v", r)
	}
}

func TestStorageMissing(t *testing.T) {
	h := startHost(t, "[pool.disk]\npath = \"DIR/disk\"\n[pool.good]\n")
	text, ok, err := h.page("/readyz")
	if err != nil || ok || !strings.HasPrefix(text, `pool "disk": `) || strings.Contains(text, "good") {
		t.Errorf("readyz: %v %q %v", ok, text, err)
	}
	if text, ok, _ := h.page("/healthz"); !ok || text != "ok\n" {
		t.Errorf("healthz: %v %q", ok, text)
	}
	s := h.status()
	if p := s.Pools[0]; p.Reachable || !strings.Contains(p.Error, "no such file or directory") || !s.Pools[1].Reachable {
		t.Errorf("pools are %+v", s.Pools)
	}
	if err := h.plugin("disk").Create(t.Context(), "data", nil); err == nil {
		t.Error("made a volume where no disk is")
	}
	if _, err := os.Stat(h.dir + "/disk"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the place of the disk: %v", err)
	}
	h.must(h.plugin("good").Create(t.Context(), "data", nil))
	h.must(os.Mkdir(h.dir+"/disk", 0o700))
	h.must(h.plugin("disk").Create(t.Context(), "data", nil))
	if text, ok, _ := h.page("/readyz"); !ok {
		t.Errorf("readyz with the disk: %q", text)
	}
	if !h.status().Pools[0].Reachable {
		t.Error("status does not see the disk")
	}
}

func TestStopWaitsForCalls(t *testing.T) {
	slow, gate := slowDriver()
	h := startHost(t, "shutdown_timeout = \"1m\"\n[pool.slow]\ndriver = \"slow\"\n", slow)
	plugin, made := h.plugin("slow"), make(chan error, 2)
	go func() { made <- plugin.Create(t.Context(), "engine", nil) }()
	<-gate.entered
	go func() {
		_, err := h.control.Volumes().Create(t.Context(), control.VolumeCreateRequest{Name: "person"})
		made <- err
	}()
	<-gate.entered
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	h.await("stopping", func() bool {
		_, err := h.control.Volumes().List(t.Context(), control.VolumeListRequest{Pool: "slow"})
		return errors.Is(err, errdefs.ErrUnavailable)
	})
	if _, err := h.control.Reload(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("reload while it stops: %v", err)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped while calls were in flight: %v", err)
	default:
	}
	close(gate.open)
	for range 2 {
		h.must(<-made)
	}
	h.must(<-stopped)
}

func TestStopGivesUp(t *testing.T) {
	for _, timeout := range []string{"0s", "20ms"} {
		t.Run(timeout, func(t *testing.T) {
			slow, gate := slowDriver()
			h := newHost(t, "shutdown_timeout = \""+timeout+"\"\n[pool.slow]\ndriver = \"slow\"\n")
			h.start(slow)
			h.await("ready", func() bool { _, _, err := h.page("/healthz"); return err == nil && h.served() })
			plugin, made := h.plugin("slow"), make(chan error, 1)
			go func() { made <- plugin.Create(t.Context(), "data", nil) }()
			<-gate.entered
			if err := h.stop(); err == nil || !strings.Contains(err.Error(), "running") || strings.Contains(err.Error(), "\n") {
				t.Errorf("stop: %v", err)
			}
			if err := <-made; !errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("the call that was cut short: %v", err)
			}
			close(gate.open)
		})
	}
}

func TestStartFails(t *testing.T) {
	for name, tt := range map[string]struct{ toml, want string }{
		"configuration": {"bogus = 1\n", `unknown key "bogus"`},
		"driver":        {"[pool.x]\npath = \"relative\"\n", `pool "x": key "path": "relative": not absolute`},
		"second pool":   {"[pool.a]\n[pool.b]\ndriver = \"mount\"\ntype = \"bogus\"\n", `pool "b": key "type": `},
		"group":         {"socket.group = \"no-such-group\"\n", `"no-such-group"`},
		"long path":     {"run_dir = \"/tmp/" + strings.Repeat("x", 120) + "\"\n", "longer than the 107 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.toml)
			o := options(h.dir, slog.New(slog.NewTextHandler(t.Output(), nil)), all.Volumes())
			if name == "long path" {
				load := o.Load
				o.Load = func() (*config.Config, error) {
					c, err := load()
					if err == nil {
						c.RunDir = "/tmp/" + strings.Repeat("x", 120)
					}
					return c, err
				}
			}
			err := Run(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("run: %v, want %q", err, tt.want)
			}
			left, err := filepath.Glob(h.dir + "/*/*.sock")
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// A stopped daemon says in its JSON what a person needs; times of nobody are not zero years.
func TestStatusJSON(t *testing.T) {
	h := startHost(t, "")
	b, err := json.Marshal(h.status())
	h.must(err)
	if strings.Contains(string(b), "0001-01-01") || strings.Contains(string(b), "null") {
		t.Errorf("status is %s", b)
	}
}
