package engineapi_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/managed"
	"github.com/remora-plugins/remora/internal/managed/engineapi"
	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/managed/volumes"
)

// serve returns a server over a store of its own, without a plugin.
func serve(t *testing.T) *engineapi.Server {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	st, err := store.Open(filepath.Join(dir, "plugins"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	rt, err := runtime.Open(runtime.Options{Dir: filepath.Join(dir, "logs"), RunDir: filepath.Join(dir, "run"), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Close() })
	reg, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var v *volumes.Service
	m := managed.New(managed.Options{Store: st, Registry: reg, Runtime: rt, Log: log, Uses: func(name string) []string { return v.Of(name) }})
	m.Start(t.Context())
	if v, err = volumes.Open(filepath.Join(dir, "volumes"), none{m}, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return engineapi.New(engineapi.Options{Plugins: m, Volumes: v, Remora: "1.2.3", Root: dir, Life: t.Context(), Log: log, Drivers: func() []string { return nil }})
}

func bundle(t *testing.T) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct{ name, text string }{
		{"config.json", `{"entrypoint":["/x"],"interface":{"types":["docker.volumedriver/1.0"],"socket":"x.sock"},"env":[{"name":"A","settable":["value"],"value":"1"}]}`},
		{"rootfs/x", "x"},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// ask sends a request and returns the status, the message of an error, and the body.
func ask(t *testing.T, s *engineapi.Server, method, path string, body io.Reader, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, body)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if v := w.Header().Get("Api-Version"); v != engineapi.Version {
		t.Errorf("%s %s: API version %q", method, path, v)
	}
	var e struct{ Message string }
	if json.Unmarshal(w.Body.Bytes(), &e) == nil && e.Message != "" {
		return w.Code, e.Message
	}
	return w.Code, strings.TrimSpace(w.Body.String())
}

const asJSON = "application/json"

// TestRoutes wants of every route the status and text that dockerd has.
func TestRoutes(t *testing.T) {
	s := serve(t)
	for _, tt := range []struct {
		request string
		body    io.Reader
		status  int
		text    string
	}{
		{"GET /_ping", nil, 200, "OK"},
		{"HEAD /_ping", nil, 200, ""},
		{"GET /v1.41/version", nil, 200, `"ApiVersion":"1.41"`},
		{"GET /v1.24/info", nil, 200, `"ServerVersion":"1.2.3"`},
		{"GET /v1.99/info", nil, 400, "client version 1.99 is too new. Maximum supported API version is 1.41"},
		{"GET /v1.11/info", nil, 400, "client version 1.11 is too old. Minimum supported API version is 1.12"},
		{"GET /v99999999999999999999.1/info", nil, 400, "too new"},
		{"GET /plugins", nil, 200, "[]"},
		{"GET /plugins/nope/json", nil, 404, `plugin "nope" not found`},
		{"GET /plugins/a/b/c:1/json", nil, 404, `plugin "a/b/c:1" not found`},
		{"GET /plugins?filters=x", nil, 400, "invalid filters"},
		{"GET /plugins/privileges", nil, 500, "failed to parse reference"},
		{"POST /plugins/create?name=acme/disk:1", bundle(t), 204, ""},
		{"POST /plugins/create?name=acme/disk:1", bundle(t), 500, "plugin acme/disk:1 already exists"},
		{"POST /plugins/create?name=Acme", bundle(t), 500, "failed to parse reference"},
		{"POST /plugins/create?name=acme/x", strings.NewReader("no tar"), 500, ""},
		{"GET /plugins/acme/disk:1/json", nil, 200, `"Name":"acme/disk:1"`},
		{`GET /plugins?filters={"enabled":{"true":true}}`, nil, 200, "[]"},
		{`GET /plugins?filters={"enabled":["false"]}`, nil, 200, `"acme/disk:1"`},
		{`GET /plugins?filters={"capability":["volumedriver","networkdriver"]}`, nil, 200, "[]"},
		{`GET /plugins?filters={"enabled":["maybe"]}`, nil, 400, "Invalid filter 'enabled=[maybe]'"},
		{`GET /plugins?filters={"nope":["x"]}`, nil, 400, "Invalid filter 'nope'"},
		{"POST /plugins/acme/disk:1/enable", nil, 500, "timeout"},
		{"POST /plugins/nope/enable?timeout=0", nil, 404, `plugin "nope" not found`},
		{"POST /plugins/acme/disk:1/disable", nil, 409, "plugin is already disabled: plugin acme/disk:1 found but disabled"},
		{"POST /plugins/acme/disk:1/set", strings.NewReader(`["A=2"]`), 204, ""},
		{"POST /plugins/acme/disk:1/set", strings.NewReader(`["B=2"]`), 500, `setting "B" not found in the plugin configuration`},
		{"POST /plugins/acme/disk:1/set", strings.NewReader(``), 400, "got EOF while reading request body"},
		{"POST /plugins/acme/disk:1/set", strings.NewReader(`{`), 400, "invalid JSON"},
		{"POST /plugins/nope/set", strings.NewReader(`["A=2"]`), 404, `plugin "nope" not found`},
		{"POST /plugins/nope/push", nil, 404, `plugin "nope" not found`},
		{"POST /plugins/nope/upgrade?remote=x", strings.NewReader(`[]`), 404, `plugin "nope" not found`},
		{"POST /plugins/pull?remote=acme/disk", strings.NewReader(`{`), 500, "failed to parse privileges"},
		{"POST /plugins/pull?remote=acme/disk", strings.NewReader(`[] []`), 500, "invalid privileges"},
		{"POST /plugins/pull?remote=acme/disk:1", strings.NewReader(`[]`), 409, "plugin acme/disk:1 already exists"},
		{"GET /volumes", nil, 200, `"Volumes":[]`},
		{"GET /volumes/nope", nil, 404, "get nope: no such volume"},
		{`GET /volumes?filters={"nope":["x"]}`, nil, 400, "Invalid filter 'nope'"},
		{"POST /volumes/create", strings.NewReader(`{"Name":"v","Driver":"none"}`), 404, `create v: error looking up volume plugin none: plugin "none" not found`},
		{"POST /volumes/create", strings.NewReader(`{"Name":"v","Driver":"acme/disk:1"}`), 409, "create v: error looking up volume plugin acme/disk:1: plugin acme/disk:1 found but disabled"},
		{"POST /volumes/create", strings.NewReader(`nope`), 400, "invalid JSON"},
		{"DELETE /volumes/nope", nil, 404, "get nope: no such volume"},
		{"DELETE /volumes/nope?force=1", nil, 204, ""},
		{"POST /volumes/prune", nil, 200, `"SpaceReclaimed":0`},
		{"GET /containers/nope/json", nil, 404, "No such container: nope"},
		{"GET /containers/json", nil, 501, "it has no containers"},
		{"GET /nope", nil, 404, "page not found"},
		{"DELETE /plugins/nope", nil, 404, `plugin "nope" not found`},
		{"DELETE /plugins/acme/disk:1", nil, 200, ""},
		{"GET /events?since=x", nil, 400, "is not a time"},
		{`GET /events?since=1&until=2&filters={"type":["plugin"]}`, nil, 200, ""},
	} {
		method, path, _ := strings.Cut(tt.request, " ")
		path = strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D").Replace(path)
		status, text := ask(t, s, method, path, tt.body, "Content-Type", asJSON)
		if status != tt.status || !strings.Contains(text, tt.text) {
			t.Errorf("%s: %d %s, want %d %s", tt.request, status, text, tt.status, tt.text)
		}
	}
	status, text := ask(t, s, "POST", "/volumes/create", strings.NewReader(`{"Name":"v"}`), "Content-Type", "text/plain")
	if status != http.StatusBadRequest || !strings.Contains(text, "must be 'application/json'") {
		t.Errorf("another content type: %d %s", status, text)
	}
}

// TestEvents wants what has happened told in order, in the form that the docker command reads.
func TestEvents(t *testing.T) {
	s := serve(t)
	ask(t, s, http.MethodPost, "/plugins/create?name=acme/disk:1", bundle(t))
	ask(t, s, http.MethodDelete, "/plugins/acme/disk:1", nil)
	until := strconv.FormatInt(time.Now().Unix()+1, 10)
	_, text := ask(t, s, http.MethodGet, "/events?since=1&until="+until+"&filters=%7B%22type%22:%5B%22plugin%22%5D%7D", nil)
	var got []string
	for line := range strings.Lines(text) {
		var e managed.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Type+" "+e.Action+" "+e.Actor.Attributes["name"])
	}
	if diff := cmp.Diff([]string{"plugin create acme/disk:1", "plugin remove acme/disk:1"}, got); diff != "" {
		t.Error(diff)
	}
}

// none are the drivers where there are no pools.
type none struct{ m *managed.Manager }

func (n none) Find(_ context.Context, name string) (volumes.Named, error) {
	d, err := n.m.VolumeDriver(name)
	return volumes.Named{Name: name, Driver: d}, err
}

func (none) All(context.Context) []volumes.Named { return nil }
