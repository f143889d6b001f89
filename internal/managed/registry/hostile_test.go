package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// liar is a registry that says what a test wants it to. What it is asked for is found by the last part of
// the path: a tag or a digest.
type liar struct {
	has  map[string]func(http.ResponseWriter, *http.Request)
	addr string
}

func newLiar(t testing.TB) *liar {
	l := &liar{has: map[string]func(http.ResponseWriter, *http.Request){}}
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	l.addr = s.Listener.Addr().String()
	return l
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if serve, ok := l.has[name]; ok {
		serve(w, r)
	} else if name != "" {
		http.NotFound(w, r)
	}
}

// serve answers with what it is, and says that it has the digest.
func serve(mediaType string, d digest.Digest, data []byte) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", d.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(data) // the client may have enough
		}
	}
}

func (l *liar) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.has[d.Digest.String()] = serve(mediaType, d.Digest, data)
	return d
}

// tag adds a manifest or index under a tag.
func (l *liar) tag(t testing.TB, tag, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	d := l.add(mediaType, must[[]byte](t)(json.Marshal(v)))
	l.has[tag] = l.has[d.Digest.String()]
	return d
}

func manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Manifest {
	m := ocispec.Manifest{MediaType: store.MediaTypeManifest, Config: config, Layers: layers}
	m.SchemaVersion = 2
	return m
}

func TestLies(t *testing.T) {
	testenv.Require(t, testenv.Root)
	fine, layer := []byte(config), []byte(strings.Repeat("layer", 100))
	layerOf := func(size int64) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: store.MediaTypeLayerGzip, Digest: digest.FromBytes(layer), Size: size}
	}
	for name, tt := range map[string]struct {
		lie   func(t *testing.T, l *liar)
		class error
		text  string
	}{
		"layer has another digest": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(500)))
			l.has[layerOf(0).Digest.String()] = serve("", layerOf(0).Digest, bytes.ToUpper(layer))
		}, errdefs.ErrInvalid, "what came has the digest sha256:"},
		"layer is cut off": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(500)))
			l.has[layerOf(0).Digest.String()] = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(layer[:100]); flush(w) }
		}, errdefs.ErrUnavailable, "cut off after 100 of 500 bytes"},
		"layer breaks off": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(500)))
			l.has[layerOf(0).Digest.String()] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "500")
				_, _ = w.Write(layer[:100])
				flush(w)
				panic(http.ErrAbortHandler)
			}
		}, errdefs.ErrUnavailable, "unexpected EOF"},
		"layer is endless": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(500)))
			l.has[layerOf(0).Digest.String()] = func(w http.ResponseWriter, _ *http.Request) {
				for {
					if _, err := w.Write(layer); err != nil {
						return
					}
				}
			}
		}, errdefs.ErrInvalid, "longer than the 500 bytes that it was said to have"},
		"layer falls silent": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(500)))
			l.has[layerOf(0).Digest.String()] = func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write(layer[:100])
				flush(w)
				<-r.Context().Done()
			}
		}, errdefs.ErrUnavailable, "nothing has come or gone for 300ms"},
		"tag falls silent": {func(_ *testing.T, l *liar) {
			l.has["v1"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		}, errdefs.ErrUnavailable, "nothing has come or gone for 300ms"},
		"layer is another size": {func(t *testing.T, l *liar) {
			l.add("", layer)
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(499)))
		}, errdefs.ErrUnavailable, "mismatch Content-Length"},
		"layer is another size elsewhere": {func(t *testing.T, l *liar) {
			l.has[layerOf(0).Digest.String()] = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/store/signed?X-Amz-Signature=hunter2", http.StatusTemporaryRedirect)
			}
			l.has["signed"] = serve("", layerOf(0).Digest, layer)
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(499)))
		}, errdefs.ErrUnavailable, `/store/signed": mismatch Content-Length`},
		"layer is enormous": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(1<<40)))
		}, errdefs.ErrInvalid, "its layers are larger than 4096 MiB"},
		"layers are, together": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(3<<30), layerOf(3<<30)))
		}, errdefs.ErrInvalid, "its layers are larger than 4096 MiB"},
		"layer is less than nothing": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(-1)))
		}, errdefs.ErrInvalid, "its layers are larger than"},
		"no layer": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine)))
		}, errdefs.ErrInvalid, "it has 0 layers, and not from 1 to 128"},
		"many layers": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), make([]ocispec.Descriptor, 1000)...))
		}, errdefs.ErrInvalid, "it has 1000 layers"},
		"layer of another type": {func(t *testing.T, l *liar) {
			odd := layerOf(500)
			odd.MediaType = "application/vnd.oci.image.layer.v1.tar+zstd"
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), odd))
		}, errdefs.ErrUnsupported, `its media type "application/vnd.oci.image.layer.v1.tar+zstd" is not supported`},
		"layer with a path": {func(t *testing.T, l *liar) {
			odd := layerOf(500)
			odd.Digest = "sha256:../../../../etc/passwd"
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), odd))
		}, errdefs.ErrInvalid, "it is no sha256"},
		"config has another digest": {func(t *testing.T, l *liar) {
			c := l.add(store.MediaTypeConfig, fine)
			l.has[c.Digest.String()] = serve("", c.Digest, bytes.ToUpper(fine))
			l.tag(t, "v1", store.MediaTypeManifest, manifest(c, layerOf(500)))
		}, errdefs.ErrInvalid, "what came has"},
		"config is enormous": {func(t *testing.T, l *liar) {
			c := l.add(store.MediaTypeConfig, fine)
			c.Size = 1 << 40
			l.tag(t, "v1", store.MediaTypeManifest, manifest(c, layerOf(500)))
		}, errdefs.ErrInvalid, "longer than 256 KiB"},
		"config is none": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, []byte("no JSON")), layerOf(500)))
		}, errdefs.ErrInvalid, "failed to parse config: invalid character"},
		"config is not there": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", store.MediaTypeManifest, manifest(ocispec.Descriptor{MediaType: store.MediaTypeConfig, Digest: digest.FromString("x"), Size: 1}, layerOf(500)))
		}, errdefs.ErrNotFound, "not found"},
		"manifest has another digest": {func(t *testing.T, l *liar) {
			d := l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(500)))
			l.has[d.Digest.String()] = serve(store.MediaTypeManifest, d.Digest, bytes.Repeat([]byte("x"), int(d.Size)))
		}, errdefs.ErrInvalid, "what came has"},
		"manifest is none": {func(_ *testing.T, l *liar) {
			d := l.add(store.MediaTypeManifest, []byte("no JSON"))
			l.has["v1"] = l.has[d.Digest.String()]
		}, errdefs.ErrInvalid, "error unmarshaling image manifest: invalid character"},
		"manifest is enormous": {func(t *testing.T, l *liar) {
			d := l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, fine), layerOf(500)))
			l.has["v1"] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", store.MediaTypeManifest)
				w.Header().Set("Docker-Content-Digest", d.Digest.String())
				w.Header().Set("Content-Length", "1099511627776")
			}
		}, errdefs.ErrInvalid, "longer than 4096 KiB"},
		"manifest of another type": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", "application/vnd.docker.distribution.manifest.v1+json", map[string]any{})
		}, errdefs.ErrInvalid, "its media type \"application/vnd.docker.distribution.manifest.v1+json\" is not that of a manifest"},
		"index of itself": {func(t *testing.T, l *liar) {
			d := l.tag(t, "v1", ocispec.MediaTypeImageIndex, ocispec.Index{})
			again := must[[]byte](t)(json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{d}}))
			// The registry sends an index that has itself in it, which has no digest that is its own.
			l.has[d.Digest.String()] = serve(ocispec.MediaTypeImageIndex, d.Digest, again)
			l.has["v1"] = l.has[d.Digest.String()]
		}, errdefs.ErrInvalid, "what came has"},
		"indexes without end": {func(t *testing.T, l *liar) {
			d := l.add(ocispec.MediaTypeImageIndex, []byte("{}"))
			for range 10 {
				d.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
				d = l.tag(t, "v1", ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{d}})
			}
		}, errdefs.ErrInvalid, "its index leads to an index, more than 2 times"},
		"index of nothing": {func(t *testing.T, l *liar) {
			l.tag(t, "v1", mediaTypeList, ocispec.Index{})
		}, errdefs.ErrUnsupported, "there is none for linux/"},
		"page of HTML": {func(_ *testing.T, l *liar) {
			l.has["v1"] = func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, "<html>\nGo\naway\n"+strings.Repeat("!", 10000))
			}
		}, errdefs.ErrDenied, "the registry answers 403 Forbidden"},
		"login without end": {func(_ *testing.T, l *liar) {
			l.has["v1"] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		}, errdefs.ErrDenied, ""},
		"way without end": {func(_ *testing.T, l *liar) {
			l.has["v1"] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }
		}, errdefs.ErrUnavailable, "stopped after 10 redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := newLiar(t), opened(t)
			tt.lie(t, l)
			c := must[*Client](t)(New(Options{Stall: 300 * time.Millisecond}))
			release, began := s.Hold(), time.Now()
			_, err := c.Pull(t.Context(), ref(t, l.addr+"/p:v1"), s, Pull{Auth: Auth{Username: "u", Password: "hunter2"}, Grant: all})
			release()
			wants(t, err, tt.class, tt.text)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if err != nil && (len(err.Error()) > 1500 || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("%v", err)
			}
			for _, dir := range []string{"ingest", "tmp", "blobs/sha256"} {
				if left := must[[]os.DirEntry](t)(os.ReadDir(s.Rootfs(store.Record{}) + "/../" + dir)); len(left) > 0 {
					t.Errorf("left in %s: %v", dir, left)
				}
			}
		})
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// A registry that is gone is so at once, and whoever gives up is let go.
func TestGone(t *testing.T) {
	l := newLiar(t)
	gone := httptest.NewServer(nil)
	gone.Close()
	_, err := client(t).Privileges(t.Context(), ref(t, gone.Listener.Addr().String()+"/p"), Auth{})
	wants(t, err, errdefs.ErrUnavailable, "connection refused")
	l.has["v1"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = client(t).Privileges(ctx, ref(t, l.addr+"/p:v1"), Auth{})
	wants(t, err, context.DeadlineExceeded, "")
}

// A registry may have its tokens from another place, and docker's has a right of its own for plugins.
func TestToken(t *testing.T) {
	l := newLiar(t)
	var scopes []string
	l.has["token"] = func(w http.ResponseWriter, r *http.Request) {
		scopes = r.URL.Query()["scope"]
		if user, password, _ := r.BasicAuth(); user != "u" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"token":"let-me-in"}`)
	}
	l.tag(t, "v1", store.MediaTypeManifest, manifest(l.add(store.MediaTypeConfig, []byte(config)), l.add(store.MediaTypeLayer, []byte("x"))))
	for name, ordinary := range l.has {
		if name == "token" {
			continue
		}
		l.has[name] = func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer let-me-in" {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:p:pull"`, l.addr))
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			ordinary(w, r)
		}
	}
	_ = must[any](t)(client(t).Privileges(t.Context(), ref(t, l.addr+"/p:v1"), Auth{Username: "u", Password: "secret"}))
	if got := strings.Join(scopes, " "); !strings.Contains(got, "repository(plugin):p:pull") {
		t.Errorf("the scope is %s", got)
	}
	_, err := client(t).Privileges(t.Context(), ref(t, l.addr+"/p:v1"), Auth{Username: "u", Password: "hunter2"})
	wants(t, err, errdefs.ErrDenied, "the registry answers 401 Unauthorized")
}

func TestDecodeAuth(t *testing.T) {
	for text, want := range map[string]Auth{
		"":                                  {},
		`{}`:                                {},
		`{"username":"u","password":"p?>"}`: {Username: "u", Password: "p?>"},
		`{"auth":"dTpwOnE="}`:               {Username: "u", Password: "p:q"},
		`{"identitytoken":"i"}`:             {IdentityToken: "i"},
		`{"registrytoken":"r","serveraddress":"x"}`: {RegistryToken: "r"},
	} {
		for _, enc := range encodings {
			header := ""
			if text != "" {
				header = enc.EncodeToString([]byte(text))
			}
			if got, err := DecodeAuth(header); err != nil || got != want {
				t.Errorf("%s: %+v, %v", text, got, err)
			}
		}
	}
	for _, wrong := range []string{"!", "e30=e30=!", encodings[0].EncodeToString([]byte(`{"password":"hunter2"`)), encodings[0].EncodeToString([]byte(`{"auth":"hunter2"}`))} {
		if _, err := DecodeAuth(wrong); err == nil || err.Error() != "invalid X-Registry-Auth header" {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	secret := Auth{Username: "u", Password: "hunter2", IdentityToken: "hunter2", RegistryToken: "hunter2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, secret) + fmt.Sprintf(format, []Auth{secret}); strings.Contains(text, "hunter2") {
			t.Errorf("%s prints %s", format, text)
		}
	}
}

var encodings = []*base64.Encoding{base64.URLEncoding, base64.StdEncoding, base64.RawURLEncoding}

func FuzzDecodeAuth(f *testing.F) {
	f.Add(Auth{Username: "u", Password: "p"}.Encode())
	f.Fuzz(func(t *testing.T, header string) {
		a, err := DecodeAuth(header)
		if err != nil {
			return
		}
		if again, err := DecodeAuth(a.Encode()); err != nil || again != a {
			t.Fatal("it is another")
		}
	})
}

func FuzzManifest(f *testing.F) {
	m := must[[]byte](f)(json.Marshal(manifest(ocispec.Descriptor{MediaType: store.MediaTypeConfig}, ocispec.Descriptor{MediaType: store.MediaTypeLayer, Size: 5})))
	f.Add(m)
	f.Fuzz(func(t *testing.T, raw []byte) {
		img, err := parseManifest(ocispec.Descriptor{}, raw)
		if err != nil {
			return
		}
		var total int64
		for _, l := range img.Layers {
			if total += l.Size; l.Size < 0 || total > maxLayer {
				t.Fatalf("%d bytes", total)
			}
		}
		if len(img.Layers) == 0 {
			t.Fatalf("%+v", img)
		}
	})
}
