package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/plugin"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/registry/registrytest"
	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/testenv"
)

// engine is a dockerd that nobody else sees: it has its own /run and /etc/docker.
type engine struct {
	t   testing.TB
	dir string
}

func startEngine(t testing.TB) *engine {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Dockerd, testenv.DockerCLI, testenv.Registry)
	if testing.Short() {
		t.Skip("short: it starts an engine")
	}
	dir := must[string](t)(os.MkdirTemp("", "interop")) // a short one, for the paths of sockets
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	check(t, errors.Join(os.Mkdir(dir+"/run", 0o755), os.Mkdir(dir+"/etc", 0o755)))
	if os.Mkdir("/etc/docker", 0o755) == nil { // a place to mount on
		t.Cleanup(func() { _ = os.Remove("/etc/docker") })
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount --bind "$0/run" /run && mount --bind "$0/etc" /etc/docker && exec dockerd --host=unix:///run/docker.sock --data-root="$0/data" --exec-root="$0/exec" --pidfile="$0/pid" --bridge=none --iptables=false`, dir)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	check(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("dockerd does not end")
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	e := &engine{t, dir}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if resp, err := e.http().Get("http://docker/_ping"); err == nil {
			_ = resp.Body.Close()
			return e
		}
		select {
		case <-ended:
			t.Fatal("dockerd ended")
		default:
		}
		if time.Now().After(end) {
			t.Fatal("dockerd does not answer")
		}
	}
}

func (e *engine) http() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.dir+"/run/docker.sock")
	}}}
}

// create sends the engine a bundle as it is; the docker command would make its own of a directory.
func (e *engine) create(name string, bundle []byte) error {
	e.t.Helper()
	resp := must[*http.Response](e.t)(e.http().Post("http://docker/plugins/create?name="+name, "application/x-tar", bytes.NewReader(bundle)))
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	return fmt.Errorf("%s", must[[]byte](e.t)(io.ReadAll(resp.Body)))
}

func (e *engine) docker(args ...string) string {
	e.t.Helper()
	cmd := exec.CommandContext(e.t.Context(), "docker", append([]string{"--host=unix://" + e.dir + "/run/docker.sock"}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+e.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("docker %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (e *engine) inspect(name string) plugin.Plugin {
	e.t.Helper()
	var all []plugin.Plugin
	check(e.t, json.Unmarshal([]byte(e.docker("plugin", "inspect", name)), &all))
	return all[0]
}

// rootfs is what the engine unpacked of a plugin.
func (e *engine) rootfs(p plugin.Plugin) []string {
	e.t.Helper()
	return below(e.t, filepath.Join(e.dir, "data/plugins", p.ID, "rootfs"))
}

// below is tree without the top, which the engine gives to root alone, whatever the layer says of it; here
// a process of the plugin that is not root's can enter.
func below(t testing.TB, dir string) []string { t.Helper(); return tree(t, dir)[1:] }

// A plugin that the engine made and pushed is installed here, and the other way round; what both make of
// one bundle is the same to the last byte of its layer.
func TestInteropWithEngine(t *testing.T) {
	e := startEngine(t)
	r := registrytest.Start(t, registrytest.Options{})
	s, c := opened(t), client(t)
	raw := bundle(t, 100_000)
	theirs, ours := r.Addr+"/engine/p:v1", r.Addr+"/here/p:v1"
	check(t, e.create(theirs, raw))
	rec := must[store.Record](t)(s.Create(t.Context(), ours, bytes.NewReader(raw)))
	p := e.inspect(theirs)
	if diff := cmp.Diff(p.Config.Rootfs, rec.Plugin.Config.Rootfs); diff != "" {
		t.Error("the layer is another", diff)
	}
	if diff := cmp.Diff(p.Config, rec.Plugin.Config); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(p.Settings, rec.Plugin.Settings); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(e.rootfs(p), below(t, s.Rootfs(rec))); diff != "" {
		t.Error("the rootfs is another", diff)
	}

	// Theirs, here.
	e.docker("plugin", "push", theirs)
	release := s.Hold()
	pulled := must[Pulled](t)(c.Pull(t.Context(), ref(t, theirs), s, Pull{Grant: func(required plugin.Privileges) error {
		return settings.Granted(required, settings.Privileges(p.Config))
	}}))
	inst := must[store.Record](t)(s.Install(t.Context(), theirs, theirs, pulled.Image, nil, nil))
	release()
	if diff := cmp.Diff(p.Config, inst.Plugin.Config) + cmp.Diff(p.Settings, inst.Plugin.Settings); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(e.rootfs(p), below(t, s.Rootfs(inst))); diff != "" {
		t.Error("the rootfs is another", diff)
	}
	img, manifest, err := s.Image(inst)
	check(t, err)
	made := must[[]byte](t)(store.BuildManifest(img.Config, img.Layers))
	if !bytes.Equal(manifest, made) {
		t.Errorf("the engine's manifest is\n%s\nand ours\n%s", manifest, made)
	}

	// Ours, there.
	pushed := must[Pushed](t)(c.Push(t.Context(), ref(t, ours), s, rec, Auth{}, nil))
	out := e.docker("plugin", "install", "--disable", "--grant-all-permissions", ours)
	if !strings.Contains(out, "Installed plugin "+ours) {
		t.Errorf("%s", out)
	}
	q := e.inspect(ours)
	if diff := cmp.Diff(q.Config, rec.Plugin.Config) + cmp.Diff(q.Settings, rec.Plugin.Settings); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(e.rootfs(q), below(t, s.Rootfs(rec))); diff != "" {
		t.Error("the rootfs is another", diff)
	}
	// What was pulled from the engine goes back as it came, and is the plugin that it was.
	back := must[Pushed](t)(c.Push(t.Context(), ref(t, r.Addr+"/back/p:v1"), s, inst, Auth{}, nil))
	if back.Digest != pulled.Digest || back.Digest == pushed.Digest {
		t.Errorf("%s came and %s went", pulled.Digest, back.Digest)
	}
	e.docker("plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", ours, r.Addr+"/back/p:v1")
	if got := e.inspect(ours); !strings.HasSuffix(got.PluginReference, "/back/p:v1") {
		t.Errorf("%+v", got)
	}
	if !slices.ContainsFunc(img.Layers, func(l ocispec.Descriptor) bool { return l.Digest == rec.Layers[0].Digest }) {
		t.Error("the layers are two")
	}
}

// What the engine says of a bundle that is none, is said here.
func TestInteropErrors(t *testing.T) {
	e, s := startEngine(t), opened(t)
	fine := bundle(t, 100)
	for name, body := range map[string][]byte{
		"empty":        {},
		"no-tar":       []byte(strings.Repeat("no tar", 1000)),
		"wrong-config": bytes.Replace(fine, []byte(`{"desc`), []byte(`["desc`), 1),
		"no-config":    bytes.Replace(fine, []byte("config.json"), []byte("config.jsoN"), 1),
	} {
		theirs := e.create(name, body)
		_, ours := s.Create(t.Context(), name+":latest", bytes.NewReader(body))
		if theirs == nil || ours == nil {
			t.Errorf("%s: %v and %v", name, theirs, ours)
			continue
		}
		if !strings.Contains(theirs.Error(), strings.ReplaceAll(ours.Error(), `"`, `\"`)) {
			t.Errorf("%s: the engine says %v, and we %v", name, theirs, ours)
		}
	}
}
