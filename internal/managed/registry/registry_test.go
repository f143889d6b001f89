package registry

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/plugin"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/registry/registrytest"
	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err, class error, text string) {
	t.Helper()
	if err == nil || !errors.Is(err, class) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v, want %v with %q", err, class, text)
	}
}

func opened(t testing.TB) *store.Store {
	t.Helper()
	testenv.Require(t, testenv.Root)
	s := must[*store.Store](t)(store.Open(t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil))))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func ref(t testing.TB, text string) reference.Reference {
	t.Helper()
	return must[reference.Reference](t)(reference.Parse(text))
}

const config = `{"description":"d","entrypoint":["/p"],"network":{"type":"host"},"linux":{"capabilities":["CAP_SYS_ADMIN"]},"interface":{"types":["docker.volumedriver/1.0"],"socket":"p.sock"}}`

// bundle is what "plugin create" sends, with a program of random bytes of the size.
func bundle(t testing.TB, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	entry := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		h.ModTime = time.Unix(1e9, 0)
		check(t, w.WriteHeader(&h))
		_ = must[int](t)(w.Write(content))
	}
	program := make([]byte, size)
	for i := range program {
		program[i] = byte(i*i>>7 ^ i>>3) //nolint:gosec // anything
	}
	entry(tar.Header{Typeflag: tar.TypeReg, Name: "config.json", Mode: 0o644}, []byte(config))
	entry(tar.Header{Typeflag: tar.TypeDir, Name: "rootfs/", Mode: 0o755}, nil)
	entry(tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/p", Mode: 0o4755, Uid: 5, Gid: 6}, program)
	entry(tar.Header{Typeflag: tar.TypeLink, Name: "rootfs/q", Linkname: "rootfs/p", Mode: 0o4755, Uid: 5, Gid: 6}, nil)
	entry(tar.Header{Typeflag: tar.TypeSymlink, Name: "rootfs/l", Linkname: "/p", Mode: 0o777}, nil)
	entry(tar.Header{Typeflag: tar.TypeDir, Name: "rootfs/d/", Mode: 0o1777, Uid: 7}, nil)
	entry(tar.Header{Typeflag: tar.TypeFifo, Name: "rootfs/d/fifo", Mode: 0o600}, nil)
	check(t, w.Close())
	return b.Bytes()
}

func created(t testing.TB, s *store.Store, name string, size int) store.Record {
	t.Helper()
	return must[store.Record](t)(s.Create(t.Context(), name, bytes.NewReader(bundle(t, size))))
}

func client(t testing.TB) *Client {
	t.Helper()
	return must[*Client](t)(New(Options{}))
}

// all grants whatever is asked for.
func all(plugin.Privileges) error { return nil }

func TestPushAndPull(t *testing.T) {
	testenv.Require(t, testenv.Registry)
	for _, o := range []registrytest.Options{{}, {TLS: true}} {
		r := registrytest.Start(t, o)
		from, name := opened(t), r.Addr+"/lab/p:v1"
		rec := created(t, from, name, 300_000)
		var said []string
		told := func(id, status string, _, _ int64) { said = append(said, strings.TrimSpace(id+" "+status)) }
		c := client(t)
		pushed := must[Pushed](t)(c.Push(t.Context(), ref(t, name), from, rec, Auth{}, told))
		if pushed.Tag != "v1" || pushed.Digest != rec.Manifest || pushed.Size < 400 {
			t.Errorf("%+v", pushed)
		}
		layer, conf, manifest := store.ShortID(rec.Layers[0].Digest), store.ShortID(rec.ConfigDigest), store.ShortID(rec.Manifest)
		for _, want := range []string{"The push refers to repository [" + r.Addr + "/lab/p]", layer + " Preparing", layer + " Uploading", layer + " Upload complete", conf + " Upload complete", manifest + " Upload complete"} {
			if !slices.Contains(said, want) {
				t.Errorf("nobody said %q: %q", want, said)
			}
		}
		r.Asked()
		// A second push sends nothing.
		_ = must[Pushed](t)(c.Push(t.Context(), ref(t, name), from, rec, Auth{}, nil))
		if diff := cmp.Diff([]string{"HEAD blobs/" + layer[:6], "HEAD blobs/" + conf[:6], "HEAD manifests/v1"}, r.Asked()); diff != "" {
			t.Error(diff)
		}

		c, said = client(t), nil
		got := must[plugin.Privileges](t)(c.Privileges(t.Context(), ref(t, name), Auth{}))
		if diff := cmp.Diff(settings.Privileges(rec.Plugin.Config), got); diff != "" {
			t.Error(diff)
		}
		asked := r.Asked()
		if diff := cmp.Diff([]string{"HEAD manifests/v1", "GET manifests/" + manifest[:6], "GET blobs/" + conf[:6]}, asked[len(asked)-3:]); diff != "" {
			t.Error(diff)
		}
		to := opened(t)
		release := to.Hold()
		pulled := must[Pulled](t)(c.Pull(t.Context(), ref(t, name), to, Pull{Grant: all, Progress: told}))
		inst := must[store.Record](t)(to.Install(t.Context(), name, ref(t, name).String(), pulled.Image, nil, told))
		release()
		if diff := cmp.Diff([]string{"HEAD manifests/v1", "GET blobs/" + layer[:6]}, r.Asked()); diff != "" {
			t.Error(diff)
		}
		want := []string{"v1 Pulling from " + r.Addr + "/lab/p", "Digest: " + rec.Manifest.String(), layer + " Pulling fs layer", layer + " Downloading", layer + " Download complete", layer + " Extracting", layer + " Complete"}
		if got := slices.Compact(said); !cmp.Equal(want, got) {
			t.Error(cmp.Diff(want, got))
		}
		if diff := cmp.Diff(rec.Plugin.Config, inst.Plugin.Config); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(tree(t, from.Rootfs(rec)), tree(t, to.Rootfs(inst))); diff != "" {
			t.Error(diff)
		}
		// What is there is not fetched again, and what was pulled can be pushed.
		said = nil
		_ = must[Pulled](t)(c.Pull(t.Context(), ref(t, name), to, Pull{Grant: all, Progress: told}))
		if !slices.Contains(said, layer+" Already exists") {
			t.Errorf("%q", said)
		}
		again := must[Pushed](t)(c.Push(t.Context(), ref(t, r.Addr+"/other/p"), to, inst, Auth{}, nil))
		if again.Digest != pushed.Digest || again.Tag != "latest" {
			t.Errorf("%+v", again)
		}
	}
}

// tree says what is below a directory.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	check(t, filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s %v %d:%d", strings.TrimPrefix(path, dir), fi.Mode(), stat(fi).Uid, stat(fi).Gid)
		switch {
		case fi.Mode().IsRegular():
			text += fmt.Sprintf(" %d %d %s", stat(fi).Nlink, fi.ModTime().UnixNano(), digest.FromBytes(must[[]byte](t)(os.ReadFile(path))).Encoded()[:12])
		case fi.Mode()&os.ModeSymlink != 0:
			text += " " + must[string](t)(os.Readlink(path))
		}
		out = append(out, text)
		return nil
	}))
	return out
}

// The privileges are asked for before any layer is fetched, and nothing is left when they are not granted.
func TestPullAsksFirst(t *testing.T) {
	testenv.Require(t, testenv.Registry)
	r := registrytest.Start(t, registrytest.Options{})
	from, name := opened(t), r.Addr+"/p:v1"
	rec := created(t, from, name, 1000)
	_ = must[Pushed](t)(client(t).Push(t.Context(), ref(t, name), from, rec, Auth{}, nil))
	required := settings.Privileges(rec.Plugin.Config)
	other := slices.Clone(required)
	other[1].Value = []string{"CAP_OTHER"} // the first by name, which the engine does not look at
	to := opened(t)
	r.Asked()
	for what, grant := range map[string]func(plugin.Privileges) error{
		"nothing":  nil,
		"others":   func(p plugin.Privileges) error { return settings.Granted(p, other) },
		"the half": func(p plugin.Privileges) error { return settings.Granted(p, required[:1]) },
	} {
		release := to.Hold()
		_, err := client(t).Pull(t.Context(), ref(t, name), to, Pull{Grant: grant})
		release()
		if wants(t, err, errdefs.ErrDenied, "incorrect privileges"); err.Error() != "incorrect privileges" {
			t.Errorf("%s: %v", what, err)
		}
		for _, a := range r.Asked() {
			if a == "GET blobs/"+rec.Layers[0].Digest.Encoded()[:6] {
				t.Errorf("%s: the layer was fetched", what)
			}
		}
		if to.Has(rec.ConfigDigest) || to.Has(rec.Layers[0].Digest) {
			t.Errorf("%s: something is left", what)
		}
	}
	_ = must[Pulled](t)(client(t).Pull(t.Context(), ref(t, name), to, Pull{Grant: func(p plugin.Privileges) error { return settings.Granted(p, required) }}))
}

func TestLogin(t *testing.T) {
	testenv.Require(t, testenv.Registry)
	r := registrytest.Start(t, registrytest.Options{Login: true})
	from, name := opened(t), r.Addr+"/p:v1"
	rec := created(t, from, name, 1000)
	right := Auth{Username: registrytest.User, Password: registrytest.Password}
	for what, a := range map[string]Auth{"nobody": {}, "wrong": {Username: "user", Password: "hunter2"}} {
		_, err := client(t).Push(t.Context(), ref(t, name), from, rec, a, nil)
		wants(t, err, errdefs.ErrDenied, "error pushing plugin: "+name+": ")
		_, err2 := client(t).Privileges(t.Context(), ref(t, name), a)
		wants(t, err2, errdefs.ErrDenied, "error resolving plugin reference: "+name+": ")
		if h := errdefs.Hints(err); !slices.Contains(h, "docker login "+r.Addr) || strings.Contains(err.Error()+err2.Error(), "hunter2") {
			t.Errorf("%s: %v, %q", what, err, h)
		}
	}
	_ = must[Pushed](t)(client(t).Push(t.Context(), ref(t, name), from, rec, right, nil))
	dir := t.TempDir()
	auths := fmt.Sprintf(`{"auths":{%q:{"auth":"dXNlcjpzZWNyZXQ="}}}`, r.Addr)
	helper := fmt.Sprintf(`{"auths":{%q:{}},"credsStore":"remora-test"}`, r.Addr)
	script := fmt.Sprintf("#!/bin/sh\nread server\n[ \"$1 $server\" = \"get %s\" ] || { echo credentials not found in native keychain; exit 1; }\necho '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"secret\"}'\n", r.Addr)
	check(t, os.WriteFile(dir+"/docker-credential-remora-test", []byte(script), 0o700)) //nolint:gosec // a program
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, text := range []string{auths, helper} {
		check(t, os.WriteFile(dir+"/config.json", []byte(text), 0o600))
		a := must[Auth](t)(FindAuth(t.Context(), dir+"/config.json", ref(t, name)))
		if a != right {
			t.Errorf("%v for %s", a, text)
		}
		_ = must[plugin.Privileges](t)(client(t).Privileges(t.Context(), ref(t, name), a))
		t.Setenv("DOCKER_CONFIG", dir)
		if a := must[Auth](t)(FindAuth(t.Context(), "", ref(t, "elsewhere.example/p"))); a != (Auth{}) {
			t.Errorf("elsewhere it is %v", a)
		}
	}
	header := right.Encode()
	a := must[Auth](t)(DecodeAuth(header))
	_ = must[plugin.Privileges](t)(client(t).Privileges(t.Context(), ref(t, name), a))
}

// push puts a manifest or index into a registry as it is.
func put(t testing.TB, addr, name, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	raw := must[[]byte](t)(json.Marshal(v))
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+addr+"/v2/"+name, bytes.NewReader(raw)))
	req.Header.Set("Content-Type", mediaType)
	resp := must[*http.Response](t)(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s: %s", name, resp.Status, must[[]byte](t)(io.ReadAll(resp.Body)))
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

func TestIndexAndPin(t *testing.T) {
	testenv.Require(t, testenv.Registry)
	r := registrytest.Start(t, registrytest.Options{})
	from := opened(t)
	mine, other := created(t, from, "mine:latest", 1000), created(t, from, "other:latest", 2000)
	c := client(t)
	p1 := must[Pushed](t)(c.Push(t.Context(), ref(t, r.Addr+"/p:mine"), from, mine, Auth{}, nil))
	p2 := must[Pushed](t)(c.Push(t.Context(), ref(t, r.Addr+"/p:other"), from, other, Auth{}, nil))
	index := func(tag, mediaType string, entries ...ocispec.Descriptor) ocispec.Descriptor {
		return put(t, r.Addr, "p/manifests/"+tag, mediaType, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: entries})
	}
	entry := func(p Pushed, os, arch, variant string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: store.MediaTypeManifest, Digest: p.Digest, Size: p.Size, Platform: &ocispec.Platform{OS: os, Architecture: arch, Variant: variant}}
	}
	both := index("both", mediaTypeList, entry(p2, "linux", "s390x", ""), entry(p2, "windows", runtime.GOARCH, ""), entry(p1, "linux", runtime.GOARCH, ""))
	index("oci", ocispec.MediaTypeImageIndex, entry(p2, "linux", "s390x", ""), entry(p1, "linux", runtime.GOARCH, ""))
	index("none", mediaTypeList, entry(p2, "linux", "s390x", ""), entry(p2, "windows", runtime.GOARCH, ""))
	index("nested", ocispec.MediaTypeImageIndex, both)
	to := opened(t)
	for _, what := range []string{":both", ":oci", ":nested", ":mine@" + p1.Digest.String(), "@" + p1.Digest.String(), "@" + both.Digest.String()} {
		got := must[Pulled](t)(client(t).Pull(t.Context(), ref(t, r.Addr+"/p"+what), to, Pull{Grant: all}))
		if got.Image.Manifest.Digest != p1.Digest {
			t.Errorf("%s is %s", what, got.Image.Manifest.Digest)
		}
	}
	_, err := c.Privileges(t.Context(), ref(t, r.Addr+"/p:none"), Auth{})
	wants(t, err, errdefs.ErrUnsupported, "there is none for linux/"+runtime.GOARCH+"; there is linux/s390x, windows/"+runtime.GOARCH)
	for _, pin := range []digest.Digest{p1.Digest, both.Digest} {
		_ = must[Pulled](t)(c.Pull(t.Context(), ref(t, r.Addr+"/p:both"), to, Pull{Grant: all, Pin: pin}))
	}
	release := to.Hold()
	_, err = c.Pull(t.Context(), ref(t, r.Addr+"/p:other"), to, Pull{Grant: all, Pin: p1.Digest})
	wants(t, err, errdefs.ErrDenied, "its digest is "+p2.Digest.String()+", and not the pinned "+p1.Digest.String())
	release()
	if to.Has(other.Layers[0].Digest) {
		t.Error("something of it is left")
	}
	_, err = c.Pull(t.Context(), ref(t, r.Addr+"/p@sha256:"+strings.Repeat("0", 64)), to, Pull{Grant: all})
	wants(t, err, errdefs.ErrNotFound, "not found")
}

// An image is no plugin.
func TestImageIsNoPlugin(t *testing.T) {
	testenv.Require(t, testenv.Registry)
	r := registrytest.Start(t, registrytest.Options{})
	from := opened(t)
	rec := created(t, from, "p:latest", 1000)
	c := client(t)
	_ = must[Pushed](t)(c.Push(t.Context(), ref(t, r.Addr+"/p"), from, rec, Auth{}, nil))
	img, _, err := from.Image(rec)
	check(t, err)
	img.Config.MediaType = "application/vnd.docker.container.image.v1+json"
	put(t, r.Addr, "p/manifests/image", store.MediaTypeManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: store.MediaTypeManifest, Config: img.Config, Layers: img.Layers})
	_, err = c.Privileges(t.Context(), ref(t, r.Addr+"/p:image"), Auth{})
	wants(t, err, errdefs.ErrInvalid, "did not find plugin config for specified reference "+r.Addr+"/p:image")
	_, err = c.Privileges(t.Context(), ref(t, r.Addr+"/p:none"), Auth{})
	wants(t, err, errdefs.ErrNotFound, "error resolving plugin reference: "+r.Addr+"/p:none: not found")
}

// A download that breaks off goes on where it broke.
func TestPullResumes(t *testing.T) {
	testenv.Require(t, testenv.Registry)
	r := registrytest.Start(t, registrytest.Options{})
	from, name := opened(t), r.Addr+"/p:v1"
	rec := created(t, from, name, 2<<20)
	_ = must[Pushed](t)(client(t).Push(t.Context(), ref(t, name), from, rec, Auth{}, nil))
	var broken atomic.Int32
	r.Break = func(w http.ResponseWriter, req *http.Request, next http.Handler) bool {
		if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, rec.Layers[0].Digest.String()) || broken.Add(1) > 2 {
			return false
		}
		next.ServeHTTP(&cut{ResponseWriter: w, left: rec.Layers[0].Size / 4}, req)
		panic(http.ErrAbortHandler)
	}
	to := opened(t)
	_ = must[Pulled](t)(client(t).Pull(t.Context(), ref(t, name), to, Pull{Grant: all}))
	if !to.Has(rec.Layers[0].Digest) || broken.Load() != 3 {
		t.Errorf("asked %d times", broken.Load())
	}
}

// A registry that does not want a plugin says so, and one that has no room too.
func TestPushRefused(t *testing.T) {
	testenv.Require(t, testenv.Registry)
	r := registrytest.Start(t, registrytest.Options{})
	s, name := opened(t), r.Addr+"/p:v1"
	rec := created(t, s, name, 1000)
	for _, tt := range []struct {
		method string
		status int
		class  error
	}{
		{http.MethodPost, http.StatusForbidden, errdefs.ErrDenied},
		{http.MethodPut, http.StatusInsufficientStorage, errdefs.ErrUnavailable},
		{http.MethodHead, http.StatusUnauthorized, errdefs.ErrDenied},
	} {
		r.Break = func(w http.ResponseWriter, req *http.Request, _ http.Handler) bool {
			if req.Method != tt.method {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"not\nhere"}]}`)
			return true
		}
		_, err := client(t).Push(t.Context(), ref(t, name), s, rec, Auth{}, nil)
		wants(t, err, tt.class, fmt.Sprintf("error pushing plugin: %s: the registry answers %d", name, tt.status))
		if tt.method != http.MethodHead && (err == nil || !strings.Contains(err.Error(), "not; here")) {
			t.Errorf("%v", err)
		}
	}
	r.Break = nil
	_ = must[Pushed](t)(client(t).Push(t.Context(), ref(t, name), s, rec, Auth{}, nil))
	release := s.Hold()
	defer release()
	check(t, s.Remove(rec.Plugin.ID))
	check(t, os.Remove(s.Rootfs(store.Record{})+"/../blobs/sha256/"+rec.Layers[0].Digest.Encoded()))
	_, err := client(t).Push(t.Context(), ref(t, r.Addr+"/q"), s, rec, Auth{}, nil) // its layer is lost
	wants(t, err, errdefs.ErrNotFound, "blob "+rec.Layers[0].Digest.String()+": not found")
}

// cut lets so many bytes through.
type cut struct {
	http.ResponseWriter
	left int64
}

func (c *cut) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *cut) Write(p []byte) (int, error) {
	n := min(int64(len(p)), c.left)
	c.left -= n
	if _, err := c.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		return int(n), errors.New("cut")
	}
	return len(p), nil
}

func TestInsecure(t *testing.T) {
	c := must[*Client](t)(New(Options{Insecure: []string{"registry.lan", "other.lan:5000", "10.0.0.0/8"}}))
	for registry, want := range map[string]bool{
		"docker.io": false, "127.0.0.1:5000": true, "127.9.9.9": true, "localhost:5000": true, "[::1]:5000": true, "localhost.example.com": false,
		"registry.lan": true, "registry.lan:443": true, "other.lan:5000": true, "other.lan:5001": false, "other.lan": false, "10.1.2.3:80": true, "11.1.2.3": false,
	} {
		if got := c.lax(registry); got != want {
			t.Errorf("%s: %v", registry, got)
		}
	}
	_, err := New(Options{Insecure: []string{"10.0.0.0/x"}})
	wants(t, err, errdefs.ErrInvalid, `insecure registry "10.0.0.0/x": neither a host nor a CIDR`)
}
