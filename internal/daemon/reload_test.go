package daemon

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (h *host) reload(toml string) (control.Reload, error) {
	h.t.Helper()
	h.configure(toml)
	return h.control.Reload(h.t.Context())
}

// pools returns the names of the pools at work.
func (h *host) pools() []string {
	h.t.Helper()
	return poolNames(h.status())
}

func poolNames(s control.Status) (names []string) {
	for _, p := range s.Pools {
		names = append(names, p.Name)
	}
	return names
}

func TestReload(t *testing.T) {
	h := startHost(t, "[pool.a]\n[pool.b]\n")
	ctx := t.Context()
	for _, pool := range []string{"a", "b"} {
		h.must(h.plugin(pool).Create(ctx, "data", nil))
	}
	mountpoint, err := h.plugin("b").Mount(ctx, "data", "someone")
	h.must(err)

	got, err := h.reload("shutdown_timeout = \"1s\"\nlog.level = \"debug\"\n[pool.b]\nlinger = \"1h\"\n[pool.c]\n")
	h.must(err)
	want := control.Reload{Added: []string{"c"}, Changed: []string{"b"}, Removed: []string{"a"}, NeedRestart: []string{"shutdown_timeout", "log.level"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reload (-want +got):\n%s", diff)
	}
	if names := h.pools(); !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("pools are %v", names)
	}
	if _, err := os.Lstat(h.dir + "/p/a.sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket of the pool that went: %v", err)
	}
	h.must(h.plugin("c").Create(ctx, "data", nil))
	// The pool that changed knows who has mounted what, and its new key holds.
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "b", Name: "data"})
	h.must(err)
	if len(v.Mounts) != 1 || v.Mountpoint != mountpoint {
		t.Errorf("volume is %+v", v)
	}
	h.must(h.plugin("b").Unmount(ctx, "data", "someone"))

	// Back to the configuration of the start, nothing wants a restart any more.
	got, err = h.reload("[pool.a]\n[pool.b]\n")
	h.must(err)
	want = control.Reload{Added: []string{"a"}, Changed: []string{"b"}, Removed: []string{"c"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reload back (-want +got):\n%s", diff)
	}
	if _, err := h.plugin("a").Get(ctx, "data"); err != nil {
		t.Errorf("volume of the pool that came back: %v", err)
	}
	// And once more nothing has changed at all.
	got, err = h.control.Reload(ctx)
	h.must(err)
	if diff := cmp.Diff(control.Reload{}, got); diff != "" {
		t.Errorf("reload of the same (-want +got):\n%s", diff)
	}
}

func TestReloadRefused(t *testing.T) {
	h := startHost(t, "[pool.a]\n")
	h.must(h.plugin("a").Create(t.Context(), "data", nil))
	for name, tt := range map[string]struct{ toml, want string }{
		"syntax":       {"[pool", "remora.toml:1:"},
		"unknown key":  {"[pool.a]\npth = 1\n", `remora.toml:2:1: pool "a": unknown key "pth"`},
		"pool's key":   {"[pool.b]\n[pool.c]\npath = \"relative\"\n", `remora.toml:3:1: pool "c": key "path": "relative": not absolute`},
		"driver":       {"[pool.b]\n[pool.c]\ndriver = \"mount\"\ntype = \"bogus\"\n", `pool "c": key "type": `},
		"unknown word": {"log.level = \"loud\"\n", "log.level"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.reload(tt.toml)
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("reload: %v, want %q", err, tt.want)
			}
			s := h.status()
			if err != nil && s.ConfigError != err.Error() {
				t.Errorf("status says %q, reload said %q", s.ConfigError, err)
			}
			if names := poolNames(s); !slices.Equal(names, []string{"a"}) {
				t.Errorf("pools are %v", names)
			}
			if _, err := h.plugin("a").Get(t.Context(), "data"); err != nil {
				t.Error(err)
			}
			text, _, err := h.page("/metrics")
			if err != nil || !strings.Contains(text, "\nremora_config_last_reload_successful 0\n") {
				t.Errorf("metrics do not tell: %v", err)
			}
		})
	}
	if text, ok, _ := h.page("/readyz"); !ok {
		t.Errorf("readyz: %q", text)
	}
	_, err := h.reload("[pool.a]\n")
	h.must(err)
	if s := h.status(); s.ConfigError != "" {
		t.Errorf("status still says %q", s.ConfigError)
	}
}

// A pool that cannot be added does not keep the others from being changed, and is tried at
// the next reload although the configuration is the same.
func TestReloadPoolThatCannotStart(t *testing.T) {
	h := startHost(t, "[pool.a]\n")
	other, err := net.Listen("unix", h.dir+"/p/b.sock")
	h.must(err)
	defer other.Close()
	_, err = h.reload("[pool.a]\nlinger = \"1s\"\n[pool.b]\n")
	if !errors.Is(err, errdefs.ErrInUse) || !strings.HasPrefix(err.Error(), `pool "b": socket `) {
		t.Errorf("reload: %v", err)
	}
	if text, ok, _ := h.page("/readyz"); ok || text != "pool \"b\": not served\n" {
		t.Errorf("readyz: %v %q", ok, text)
	}
	if s := h.status(); s.ConfigError == "" || !slices.Equal(poolNames(s), []string{"a"}) {
		t.Errorf("status is %+v", s)
	}
	h.must(other.Close())
	got, err := h.control.Reload(t.Context())
	h.must(err)
	if diff := cmp.Diff(control.Reload{Added: []string{"b"}}, got); diff != "" {
		t.Errorf("reload (-want +got):\n%s", diff)
	}
	if text, ok, _ := h.page("/readyz"); !ok {
		t.Errorf("readyz: %q", text)
	}
}

// A pool whose change fails when it is too late comes back as it was, and no driver is
// left open.
func TestReloadRollsBack(t *testing.T) {
	fickle, open := fickleDriver()
	h := startHost(t, "[pool.a]\ndriver = \"fickle\"\n", fickle)
	before, err := os.Lstat(h.dir + "/p/a.sock")
	h.must(err)
	_, err = h.reload("[pool.a]\ndriver = \"fickle\"\nbreak = true\n")
	if err == nil || !strings.HasPrefix(err.Error(), `pool "a": mount root`) {
		t.Errorf("reload: %v", err)
	}
	h.must(h.plugin("a").Create(t.Context(), "data", nil))
	if n := open(); n != 1 {
		t.Errorf("%d drivers are open", n)
	}
	if s := h.status(); s.ConfigError == "" || len(s.Pools) != 1 || !s.Pools[0].Reachable {
		t.Errorf("status is %+v", s)
	}
	got, err := h.reload("[pool.a]\ndriver = \"fickle\"\ntext = \"other\"\n")
	h.must(err)
	if diff := cmp.Diff(control.Reload{Changed: []string{"a"}}, got); diff != "" {
		t.Errorf("reload (-want +got):\n%s", diff)
	}
	after, err := os.Lstat(h.dir + "/p/a.sock")
	h.must(err)
	if !os.SameFile(before, after) {
		t.Error("the socket is another one")
	}
	if n := open(); n != 1 {
		t.Errorf("%d drivers are open", n)
	}
}

// While a pool is changed, engines and people wait, and none sees an error.
func TestReloadUnderLoad(t *testing.T) {
	h := startHost(t, "[pool.a]\n")
	h.must(h.plugin("a").Create(t.Context(), "data", nil))
	stop := make(chan struct{})
	calls := make(chan int, 4)
	var wg sync.WaitGroup
	for range cap(calls) {
		wg.Go(func() {
			n := 0
			defer func() { calls <- n }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				n++
				c, err := client.New(h.endpoint("a"), client.Options{})
				if err == nil {
					_, err = c.Volume().Mount(t.Context(), "data", "engine")
					err = errors.Join(err, c.Close(), c.Volume().Unmount(t.Context(), "data", "engine"), c.Close())
				}
				if err != nil {
					t.Errorf("engine: %v", err)
					return
				}
				if _, err := h.control.Volumes().Inspect(t.Context(), control.VolumeRequest{Pool: "a", Name: "data"}); err != nil {
					t.Errorf("person: %v", err)
					return
				}
			}
		})
	}
	for i := range 20 {
		toml := "[pool.a]\n"
		if i%2 == 0 {
			toml += "linger = \"1ms\"\n"
		}
		got, err := h.reload(toml)
		h.must(err)
		if !slices.Equal(got.Changed, []string{"a"}) {
			t.Errorf("reload %d: %+v", i, got)
		}
	}
	close(stop)
	wg.Wait()
	for range cap(calls) {
		if <-calls == 0 {
			t.Error("somebody was never served")
		}
	}
	h.await("unmounted", func() bool { return h.status().Pools[0].Mounted == 0 })
}

// A call that is in flight when its pool is changed ends as if nothing were.
func TestReloadWaitsForCalls(t *testing.T) {
	slow, gate := slowDriver()
	h := startHost(t, "[pool.a]\ndriver = \"slow\"\n", slow)
	plugin, made := h.plugin("a"), make(chan error, 3)
	go func() { made <- plugin.Create(t.Context(), "engine", nil) }()
	<-gate.entered
	go func() {
		_, err := h.control.Volumes().Create(t.Context(), control.VolumeCreateRequest{Name: "person"})
		made <- err
	}()
	<-gate.entered
	reloaded := make(chan error, 1)
	h.configure("[pool.a]\ndriver = \"slow\"\nlinger = \"1s\"\n")
	go func() {
		_, err := h.control.Reload(t.Context())
		reloaded <- err
	}()
	// One who comes while the pool is changed waits for the new one.
	late := h.plugin("a")
	go func() { made <- late.Create(t.Context(), "late", nil) }()
	select {
	case err := <-reloaded:
		t.Fatalf("reloaded over calls in flight: %v", err)
	default:
	}
	go func() { <-gate.entered }() // the third
	close(gate.open)
	for range 3 {
		h.must(<-made)
	}
	h.must(<-reloaded)
	list, err := h.plugin("a").List(t.Context())
	h.must(err)
	if len(list) != 3 {
		t.Errorf("volumes are %v", list)
	}
}
