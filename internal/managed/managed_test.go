package managed

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const config = `{"interface":{"types":["docker.volumedriver/1.0"],"socket":"x.sock"},"env":[{"name":"A","settable":["value"],"value":"1"}]}`

// newManager returns a manager over a store in a directory. Its plugins have no entrypoint, and so never run.
func newManager(t *testing.T, dir string, o Options) *Manager {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(filepath.Join(dir, "store"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	run, err := os.MkdirTemp("", "rmm") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	rt, err := runtime.Open(runtime.Options{Dir: run + "/logs", RunDir: run + "/run", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Close() })
	reg, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Store, o.Runtime, o.Registry, o.Log, o.Discovery = st, rt, reg, log, run+"/found"
	m := New(o)
	t.Cleanup(m.Close)
	return m
}

// bundle is a tar with config.json and a rootfs.
func bundle(t *testing.T) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{"config.json": config, "rootfs/x": "x"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// enabled makes a plugin whose record says that it is to run.
func enabled(t *testing.T, m *Manager, name string) store.Record {
	t.Helper()
	if err := m.Create(t.Context(), name, bundle(t)); err != nil {
		t.Fatal(err)
	}
	r, err := m.o.Store.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	r.Plugin.Enabled = true
	if err := m.o.Store.Save(r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPathsOfPlugins: what a plugin says of where a volume is never is anywhere else than in the plugin.
func TestPathsOfPlugins(t *testing.T) {
	testenv.Require(t, testenv.Root)
	m := newManager(t, t.TempDir(), Options{})
	r := enabled(t, m, "a")
	rootfs, propagated := m.o.Store.Rootfs(r), m.o.Store.PropagatedMount(r)
	for path, want := range map[string]string{
		"": "", "/": rootfs, "/mnt/v": rootfs + "/mnt/v", "mnt/v": rootfs + "/mnt/v", "/../../../../../etc": rootfs + "/etc", "../../etc": rootfs + "/etc",
		"/data": propagated, "/data/v": propagated + "/v", "/data/../../../etc": rootfs + "/etc", "/data/v/../../data/w": propagated + "/w",
		"/database": rootfs + "/database", "/mnt/../data/v": propagated + "/v",
	} {
		r.Plugin.Config.PropagatedMount = "/data"
		if got := m.inPlugin(r, path); got != want {
			t.Errorf("%q is %q on the host, want %q", path, got, want)
		}
	}
	r.Plugin.Config.PropagatedMount = ""
	if got := m.inPlugin(r, "/../../data/v"); got != rootfs+"/data/v" {
		t.Errorf("without a propagated mount it is %q", got)
	}
}

// TestStartBesideOthers: a plugin that somebody disables while the daemon starts is neither run nor published.
func TestStartBesideOthers(t *testing.T) {
	testenv.Require(t, testenv.Root)
	m := newManager(t, t.TempDir(), Options{})
	r := enabled(t, m, "a")
	unlock, err := m.locks.Lock(t.Context(), r.Plugin.ID) // as Disable has it
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() { defer close(started); m.Start(t.Context()) }()
	select {
	case <-started:
		t.Error("the start did not wait")
	case <-time.After(200 * time.Millisecond):
	}
	r.Plugin.Enabled = false
	if err := m.o.Store.Save(r); err != nil {
		t.Fatal(err)
	}
	unlock()
	<-started
	if f := m.fronts[r.Plugin.ID]; f != nil {
		t.Error("a plugin that is disabled is published")
	}
}

// TestRemoveForgets: volumes of a plugin that is removed by force are given up.
func TestRemoveForgets(t *testing.T) {
	testenv.Require(t, testenv.Root)
	var forgotten []string
	m := newManager(t, t.TempDir(), Options{
		Uses:   func(string) []string { return []string{"data"} },
		Forget: func(name string) error { forgotten = append(forgotten, name); return nil },
	})
	enabled(t, m, "a")
	if err := m.Remove(t.Context(), "a", false); !errors.Is(err, errdefs.ErrInUse) || forgotten != nil {
		t.Errorf("without force: %v, forgotten are those of %q", err, forgotten)
	}
	if err := m.Remove(t.Context(), "a", true); err != nil {
		t.Fatal(err)
	}
	if len(forgotten) != 1 || forgotten[0] != "a:latest" {
		t.Errorf("forgotten are those of %q", forgotten)
	}
}

// TestRemoveOnFullDisk: what is removed to make room can be removed.
func TestRemoveOnFullDisk(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	m := newManager(t, dir, Options{})
	r := enabled(t, m, "a")
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	r.Plugin.Enabled = false
	if err := m.o.Store.Save(r); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("a record fits: %v", err)
	}
	if err := m.Remove(t.Context(), "a", true); err != nil {
		t.Errorf("it is not removed: %v", err)
	}
	if all := m.List(); len(all) > 0 {
		t.Errorf("left: %v", all)
	}
}

// serve is a registry with a plugin under p:v1. It counts how often its layer is asked for.
func serve(t *testing.T) (addr string, layers *atomic.Int32) {
	t.Helper()
	blobs := map[string][]byte{}
	add := func(mediaType string, data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		blobs[d.String()] = data
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	layer := add(store.MediaTypeLayer, bundle(t).Bytes())
	manifest := ocispec.Manifest{MediaType: store.MediaTypeManifest, Config: add(store.MediaTypeConfig, []byte(config)), Layers: []ocispec.Descriptor{layer}}
	manifest.SchemaVersion = 2
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	tag := add(store.MediaTypeManifest, raw)
	layers = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if name == layer.Digest.String() {
			layers.Add(1)
		}
		if name == "v1" {
			name = tag.Digest.String()
		}
		if data, ok := blobs[name]; ok {
			w.Header().Set("Content-Type", store.MediaTypeManifest)
			w.Header().Set("Docker-Content-Digest", name)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data) // of HEAD it is left out
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), layers
}

// TestWrongSettingsComeFirst: a setting that the plugin does not have is told before its layers are fetched.
func TestWrongSettingsComeFirst(t *testing.T) {
	testenv.Require(t, testenv.Root)
	addr, layers := serve(t)
	m := newManager(t, t.TempDir(), Options{})
	install := func(set string, secrets map[string]string) error {
		_, err := m.Install(t.Context(), InstallOptions{
			Source: Source{Reference: addr + "/p:v1"}, Settings: []string{set}, Secrets: secrets,
		}, func(Progress) {})
		return err
	}
	for _, err := range []error{install("B=1", nil), install("A=1", map[string]string{"B": "/x"}), install("A=1", map[string]string{"A": "x"})} {
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("wrong settings: %v", err)
		}
	}
	if n := layers.Load(); n > 0 {
		t.Errorf("%d layers were fetched", n)
	}
	if err := install("A=2", map[string]string{"A": "/x"}); err != nil || layers.Load() != 1 {
		t.Errorf("right settings: %v, and %d layers", err, layers.Load())
	}
}

// TestAtOnce has all verbs done to few plugins at once: each is done or refused, and nothing of those that are gone is left.
func TestAtOnce(t *testing.T) {
	testenv.Require(t, testenv.Root)
	addr, _ := serve(t)
	dir := t.TempDir()
	m := newManager(t, dir, Options{})
	m.Start(t.Context())
	quiet := func(Progress) {}
	from := InstallOptions{Source: Source{Reference: addr + "/p:v1"}}
	verbs := []func(ctx context.Context, name string) error{
		func(ctx context.Context, name string) error {
			o := from
			o.Name = name
			_, err := m.Install(ctx, o, quiet)
			return err
		},
		func(ctx context.Context, name string) error { return m.Create(ctx, name, bundle(t)) },
		func(ctx context.Context, name string) error { return m.Upgrade(ctx, name, from, quiet) },
		func(ctx context.Context, name string) error { return m.Set(ctx, name, []string{"A=2"}, nil) },
		func(ctx context.Context, name string) error { return m.Enable(ctx, name, 0) },
		func(ctx context.Context, name string) error { return m.Disable(ctx, name, true) },
		func(ctx context.Context, name string) error { return m.Remove(ctx, name, true) },
		func(_ context.Context, name string) error { _, err := m.Inspect(name); return err },
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for seed := range uint64(8) {
		wg.Go(func() {
			chance := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's dice
			for ctx.Err() == nil {
				err := verbs[chance.IntN(len(verbs))](ctx, []string{"a", "b"}[chance.IntN(2)])
				if err != nil && errdefs.Class(err) == nil {
					t.Errorf("an error without a class: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, p := range m.List() {
		if err := m.Remove(t.Context(), p.ID, true); err != nil {
			t.Error(err)
		}
	}
	for _, sub := range []string{"plugins", "tmp", "ingest", "blobs/sha256"} {
		if left, err := os.ReadDir(filepath.Join(dir, "store", sub)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", sub, left, err)
		}
	}
}
