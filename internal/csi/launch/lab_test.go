package launch

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv("REMORA_TEST_FUSE") != "":
		serveFUSE(os.Getenv("REMORA_TEST_FUSE"))
	case os.Getenv("REMORA_TEST_DRIVER") != "":
		driver()
	case os.Getenv("REMORA_TEST_DAEMON") != "":
		daemon(os.Getenv("REMORA_TEST_DAEMON"))
	default:
		os.Exit(m.Run())
	}
}

// driver is this binary as a CSI driver: the strict one of package csitest, with a FUSE file system where FUSE_AT says.
func driver() {
	fmt.Println("driver of", os.Args[1:])
	if os.Getenv("REMORA_TEST_DRIVER") == "broken" {
		fmt.Fprintln(os.Stderr, "the account is wrong")
		os.Exit(3)
	}
	if at := os.Getenv("FUSE_AT"); at != "" {
		startFUSE(at)
	}
	state := os.Getenv("STATE")
	if err := os.MkdirAll(state, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(state, "env"), []byte(strings.Join(append(os.Environ(), os.Args...), "\n")), 0o600)
		if err == nil {
			o := csitest.Options{Stage: true, NodeID: os.Getenv("NODE_ID"), SharedOnly: true}
			err = csitest.Serve(o, state, strings.TrimPrefix(os.Getenv("CSI_ENDPOINT"), "unix://"), "")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// lab is the directories of a pool.
type lab struct {
	dir string
	log *buffer
}

type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newLab(t *testing.T) *lab {
	t.Helper()
	testenv.Require(t, testenv.Root)
	// The path of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "launch")
	noErr(t, err)
	dir, err = filepath.EvalSymlinks(dir)
	noErr(t, err)
	l := &lab{dir, &buffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", l.log)
		}
		l.clean(t)
	})
	return l
}

// clean takes away what drivers mounted, and fails the test where anything else is left.
func (l *lab) clean(t *testing.T) {
	t.Helper()
	l.unmount(t)
	id := idOf(l.dir + "/run")
	dirs, err := filepath.Glob("/sys/fs/cgroup/*/remora-" + id + "*")
	noErr(t, err)
	more, err := filepath.Glob("/sys/fs/cgroup/remora-" + id + "*")
	noErr(t, err)
	for _, dir := range append(dirs, more...) {
		until(t, "the end of what is in "+dir, func() bool {
			endServers(t, dir)
			return unix.Rmdir(dir) == nil || os.IsNotExist(unix.Access(dir, 0))
		})
	}
	mounts, err := mount.List(l.dir)
	noErr(t, err)
	for _, m := range mounts {
		t.Errorf("left: mount %s", m.Mountpoint)
	}
	if len(mounts) == 0 {
		noErr(t, os.RemoveAll(l.dir))
	}
}

// endServers kills what serves a FUSE file system: it goes on after the unmount where somebody else's mount namespace, made meanwhile,
// has the mount too.
func endServers(t *testing.T, dir string) {
	t.Helper()
	if !strings.HasSuffix(dir, ".serves") {
		return
	}
	pids, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for pid := range strings.FieldsSeq(string(pids)) {
		if n, err := strconv.Atoi(pid); err == nil {
			_ = unix.Kill(n, unix.SIGKILL)
		}
	}
}

func (l *lab) unmount(t *testing.T) {
	t.Helper()
	mounts, err := mount.List(l.dir + "/mounts")
	noErr(t, err)
	for i := range mounts {
		_ = unix.Unmount(mounts[len(mounts)-1-i].Mountpoint, unix.MNT_DETACH)
	}
}

func (l *lab) config(keys Keys) Config {
	extra := Extra{Env: []string{"KUBERNETES_SERVICE_HOST=127.0.0.1", "NODE_ID=nor this"}}
	if keys.Image != "" {
		if _, err := os.Stat(l.dir + "/account"); err == nil {
			extra.Binds = append(extra.Binds, l.dir+"/account:/var/run/secrets/kubernetes.io/serviceaccount:ro")
		}
	}
	return Config{
		Extra: extra, Keys: keys, Pool: "fast", Dir: l.dir + "/lib", RunDir: l.dir + "/run", Mounts: l.dir + "/mounts",
		Log: slog.New(slog.NewTextHandler(l.log, nil)).With("pool", "fast"),
	}
}

// start starts a driver that is stopped at the test's end.
func (l *lab) start(t *testing.T, keys Keys) *Process {
	t.Helper()
	p, err := Start(t.Context(), l.config(keys))
	noErr(t, err)
	t.Cleanup(func() {
		_ = p.Close()
		q, err := Start(context.WithoutCancel(t.Context()), l.config(keys))
		noErr(t, err)
		noErr(t, q.Stop(context.WithoutCancel(t.Context())))
		noErr(t, q.Close())
	})
	return p
}

func (l *lab) ready(t *testing.T, p *Process) State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	noErr(t, p.Ready(ctx))
	return p.State()
}

// hosts are what this binary needs of the host where it is in an image, unless it is static.
var hosts = []string{"/lib:/lib:ro", "/lib64:/lib64:ro", "/usr:/usr:ro"}

// pushImage sends an image with this binary as /driver to a registry, and returns its reference by digest.
func pushImage(t *testing.T, registry, tag string, config ocispec.ImageConfig) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	noErr(t, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{"lib", "lib64", "usr", "var/run", "tmp"} {
		noErr(t, w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}))
	}
	noErr(t, w.WriteHeader(&tar.Header{Name: "driver", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(self))}))
	_, err = w.Write(self)
	noErr(t, err)
	noErr(t, w.Close())
	repo, err := remote.NewRepository(registry + "/vendor/driver")
	noErr(t, err)
	repo.PlainHTTP = true
	push := func(mediaType string, data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		there, err := repo.Blobs().Exists(t.Context(), d)
		noErr(t, err)
		if !there {
			noErr(t, repo.Blobs().Push(t.Context(), d, bytes.NewReader(data)))
		}
		return d
	}
	layerDesc := push(ocispec.MediaTypeImageLayer, layer.Bytes())
	data, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: goruntime.GOARCH}, Config: config,
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDesc.Digest}},
	})
	noErr(t, err)
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: push(ocispec.MediaTypeImageConfig, data), Layers: []ocispec.Descriptor{layerDesc},
	})
	noErr(t, err)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	noErr(t, repo.Manifests().PushReference(t.Context(), d, bytes.NewReader(manifest), tag))
	return registry + "/vendor/driver@" + d.Digest.String()
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails the test unless err is one line with every part.
func wants(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q lacks %q", err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	noErr(t, err)
	defer f.Close()
	data, err := io.ReadAll(f)
	noErr(t, err)
	return string(data)
}
