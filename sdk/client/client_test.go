package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
	"github.com/remora-plugins/remora/sdk/volume"
)

// serve runs h on a unix socket and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc, o Options) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "x.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c, err := New(Endpoint{Name: "x", Addr: "unix://" + l.Addr().String()}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// seen is a request as it arrived.
type seen struct {
	Line, Host, Body string
	Header           http.Header
}

// recorder answers every call with answer and remembers what it was.
func recorder(answer string) (http.HandlerFunc, func() seen) {
	var mu sync.Mutex
	var last seen
	h := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		last = seen{r.Method + " " + r.RequestURI, r.Host, string(body), r.Header}
		mu.Unlock()
		io.WriteString(w, answer)
	}
	return h, func() seen {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

func TestRequestsOfEachEngine(t *testing.T) {
	const answer = `{"Implements":["VolumeDriver"],"Volume":{"Name":"v"},"Mountpoint":"/m","Capabilities":{"Scope":"Global"}}`
	tests := []struct {
		name           string
		call           func(context.Context, *Client) error
		docker, podman string
	}{
		{"/Plugin.Activate", func(ctx context.Context, c *Client) error { _, err := c.Activate(ctx); return err }, "", ""},
		{
			"/VolumeDriver.Create",
			func(ctx context.Context, c *Client) error { return c.Volume().Create(ctx, "v", nil) },
			`{"Name":"v","Opts":null}` + "\n", `{"Name":"v"}`,
		},
		{
			"/VolumeDriver.Create",
			func(ctx context.Context, c *Client) error {
				return c.Volume().Create(ctx, "v", map[string]string{"b": "<2>", "a": ""})
			},
			`{"Name":"v","Opts":{"a":"","b":"\u003c2\u003e"}}` + "\n", `{"Name":"v","Opts":{"a":"","b":"\u003c2\u003e"}}`,
		},
		{
			"/VolumeDriver.Mount",
			func(ctx context.Context, c *Client) error { _, err := c.Volume().Mount(ctx, "v", "1"); return err },
			`{"Name":"v","ID":"1"}` + "\n", `{"Name":"v","ID":"1"}`,
		},
		{"/VolumeDriver.List", func(ctx context.Context, c *Client) error { _, err := c.Volume().List(ctx); return err }, "{}\n", ""},
		{
			"/VolumeDriver.Get",
			func(ctx context.Context, c *Client) error { _, err := c.Volume().Get(ctx, "v"); return err },
			`{"Name":"v"}` + "\n", `{"Name":"v"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, last := recorder(answer)
			if err := tt.call(t.Context(), serve(t, h, Options{})); err != nil {
				t.Fatal(err)
			}
			want := seen{"POST " + tt.name, "plugin.moby.localhost", tt.docker, http.Header{
				"Accept": {"application/vnd.docker.plugins.v1.2+json"}, "User-Agent": {"Go-http-client/1.1"}, "Content-Length": {fmt.Sprint(len(tt.docker))},
			}}
			if diff := cmp.Diff(want, last()); diff != "" {
				t.Errorf("docker (-want +got):\n%s", diff)
			}
			h, last = recorder(answer)
			if err := tt.call(t.Context(), serve(t, h, Options{Engine: Podman})); err != nil {
				t.Fatal(err)
			}
			want = seen{"POST " + tt.name, "plugin", tt.podman, http.Header{
				"Content-Type": {"application/vnd.docker.plugins.v1.1+json"}, "User-Agent": {"Go-http-client/1.1"}, "Content-Length": {fmt.Sprint(len(tt.podman))},
			}}
			if diff := cmp.Diff(want, last()); diff != "" {
				t.Errorf("podman (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnswersOfVolumes(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, map[string]string{
			"/Plugin.Activate":           `{"implements":["VolumeDriver","authz"]}`,
			"/VolumeDriver.Get":          `{"Volume":{"Name":"v","Mountpoint":"/m","CreatedAt":"2026-01-02T03:04:05Z","Status":{"k":[1]}},"Err":""}`,
			"/VolumeDriver.List":         `{"Volumes":[{"Name":"v"},{"Name":"w","Mountpoint":"/w"}]}`,
			"/VolumeDriver.Mount":        `{"Mountpoint":"/m"} and what follows`,
			"/VolumeDriver.Path":         `{"Mountpoint":""}`,
			"/VolumeDriver.Unmount":      `null`,
			"/VolumeDriver.Remove":       `{"Err":""}`,
			"/VolumeDriver.Capabilities": `{"Capabilities":{"Scope":"GLOBAL"}}`,
		}[r.URL.Path])
	}
	c := serve(t, h, Options{})
	ctx := t.Context()
	if kinds, err := c.Activate(ctx); err != nil || !cmp.Equal(kinds, []string{"VolumeDriver", "authz"}) {
		t.Errorf("Activate: %q, %v", kinds, err)
	}
	want := volume.Info{Name: "v", Mountpoint: "/m", CreatedAt: created, Status: map[string]any{"k": []any{1.0}}}
	if got, err := c.Volume().Get(ctx, "v"); err != nil || !cmp.Equal(got, want) {
		t.Errorf("Get: %v, %v", got, err)
	}
	if got, err := c.Volume().List(ctx); err != nil || !cmp.Equal(got, []volume.Info{{Name: "v"}, {Name: "w", Mountpoint: "/w"}}) {
		t.Errorf("List: %v, %v", got, err)
	}
	if m, err := c.Volume().Mount(ctx, "v", "1"); err != nil || m != "/m" {
		t.Errorf("Mount: %q, %v", m, err)
	}
	if m, err := c.Volume().Path(ctx, "v"); err != nil || m != "" {
		t.Errorf("Path: %q, %v", m, err)
	}
	if err := errors.Join(c.Volume().Unmount(ctx, "v", "1"), c.Volume().Remove(ctx, "v")); err != nil {
		t.Error(err)
	}
	if s, err := c.Volume().Scope(ctx); err != nil || s != "global" {
		t.Errorf("Scope: %q, %v", s, err)
	}
}

func TestErrors(t *testing.T) {
	get := func(ctx context.Context, c *Client) error { _, err := c.Volume().Get(ctx, "v"); return err }
	create := func(ctx context.Context, c *Client) error { return c.Volume().Create(ctx, "v", nil) }
	raw := func(method string) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error { return c.Call(ctx, method, nil, nil) }
	}
	tests := []struct {
		name   string
		call   func(context.Context, *Client) error
		status int
		class  string
		body   string
		want   error // nil is an error without a class
		text   string
		podman string // "" if Podman sees the same error, "ok" if none
	}{
		{"text in 200", create, 200, "", `{"Err":"refused"}`, nil, `plugin "x": VolumeDriver.Create: refused`, "ok"},
		{"text in 500", create, 500, "", `{"Err":"refused"}`, nil, `plugin "x": VolumeDriver.Create: refused`, ""},
		{"plain 500", create, 500, "", "plain\ntext\n", nil, `plugin "x": VolumeDriver.Create: plain text`, ""},
		{"201 is no success", create, 201, "", `{"Err":""}`, nil, `plugin "x": VolumeDriver.Create: {"Err":""}`, ""},
		{"204 is no success", create, 204, "", ``, nil, `plugin "x": VolumeDriver.Create: no content`, ""},
		{"redirect", create, 307, "", ``, nil, `plugin "x": VolumeDriver.Create: temporary redirect`, ""},
		{"empty 200", create, 200, "", ``, nil, `plugin "x": VolumeDriver.Create: answer is not the JSON of this method: empty`, "ok"},
		{"garbage 200", create, 200, "", `not json`, nil, `plugin "x": VolumeDriver.Create: answer is not the JSON of this method: invalid character 'o' in literal null (expecting 'u')`, "ok"},
		{"class of 500", create, 500, "in-use", `{"Err":"held"}`, errdefs.ErrInUse, `plugin "x": VolumeDriver.Create: held`, ""},
		{"class of timeout", create, 500, "timeout", `{"Err":"late"}`, context.DeadlineExceeded, `plugin "x": VolumeDriver.Create: late`, ""},
		{"class of 200", get, 200, "unavailable", `{"Err":"no such volume, or so it seems"}`, errdefs.ErrUnavailable, `plugin "x": VolumeDriver.Get: no such volume, or so it seems`, "ok"},
		{"internal beats the text", get, 500, "internal", `{"Err":"no such volume"}`, nil, `plugin "x": VolumeDriver.Get: no such volume`, ""},
		{"unknown class", create, 500, "teapot", `{"Err":"e"}`, nil, `plugin "x": VolumeDriver.Create: e`, ""},
		{"gone by text", get, 500, "", `{"Err":"Volume v Not Found"}`, errdefs.ErrNotFound, `plugin "x": VolumeDriver.Get: Volume v Not Found`, ""},
		{"gone by null", get, 200, "", `{"Volume":null}`, errdefs.ErrNotFound, `plugin "x": volume "v": not found`, ""},
		{"other text is not gone", get, 500, "", `{"Err":"disk is on fire"}`, nil, `plugin "x": VolumeDriver.Get: disk is on fire`, ""},
		{"not found elsewhere is not gone", create, 500, "", `{"Err":"mount.nfs: not found"}`, nil, `plugin "x": VolumeDriver.Create: mount.nfs: not found`, ""},
		{"no method", create, 404, "", "404 page not found\n", errdefs.ErrUnsupported, `plugin "x": VolumeDriver.Create: 404 page not found`, ""},
		{"404 with a text of its own", get, 404, "", `{"Err":"no such volume"}`, errdefs.ErrNotFound, `plugin "x": VolumeDriver.Get: no such volume`, ""},
		{"no method, as Get", get, 404, "", "404 page not found\n", errdefs.ErrUnsupported, `plugin "x": VolumeDriver.Get: 404 page not found`, ""},
		{"forbidden", create, 403, "", ``, errdefs.ErrDenied, `plugin "x": VolumeDriver.Create: forbidden`, ""},
		{"busy", create, 503, "", ``, errdefs.ErrUnavailable, `plugin "x": VolumeDriver.Create: service unavailable`, ""},
		{"bad time", get, 200, "", `{"Volume":{"Name":"v","CreatedAt":"today"}}`, nil, `plugin "x": VolumeDriver.Get: volume "v": CreatedAt "today" is not a time of RFC 3339, and an engine refuses the whole answer`, ""},
		{"network text", raw("NetworkDriver.Join"), 200, "", `{"Err":"no"}`, nil, `plugin "x": NetworkDriver.Join: no`, "ok"},
		{"ipam text", raw("IpamDriver.RequestPool"), 200, "", `{"Error":"no"}`, nil, `plugin "x": IpamDriver.RequestPool: no`, "ok"},
		{"ipam text in the wrong field", raw("IpamDriver.RequestPool"), 200, "", `{"Err":"no"}`, nil, "", "ok"},
		{"authz text does not count", raw("AuthZPlugin.AuthZReq"), 200, "", `{"Err":"no","Allow":true}`, nil, "", "ok"},
		{"no method name", raw("a/b"), 200, "", ``, errdefs.ErrInvalid, `plugin "x": method "a/b": not the name of a method`, ""},
	}
	for _, tt := range tests {
		h := func(w http.ResponseWriter, _ *http.Request) {
			if tt.class != "" {
				w.Header().Set(wire.ClassHeader, tt.class)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}
		check := func(t *testing.T, err error, text string) {
			t.Helper()
			if text == "" {
				if err != nil {
					t.Errorf("error %v, want none", err)
				}
				return
			}
			if err == nil || err.Error() != text {
				t.Errorf("error %v, want %s", err, text)
			}
			if got := errdefs.Class(err); got != tt.want { //nolint:errorlint // a class itself
				t.Errorf("class %v, want %v", got, tt.want)
			}
		}
		t.Run(tt.name, func(t *testing.T) {
			check(t, tt.call(t.Context(), serve(t, h, Options{})), tt.text)
		})
		t.Run(tt.name+", podman", func(t *testing.T) {
			err := tt.call(t.Context(), serve(t, h, Options{Engine: Podman}))
			if tt.podman == "ok" {
				// What Podman cannot read in an answer that it does read is still an error.
				if _, ok := errors.AsType[*Error](err); ok {
					t.Errorf("error %v, want the success that Podman sees in any 200", err)
				}
				return
			}
			check(t, err, tt.text)
		})
	}
}

func TestErrorTellsWhatThePluginSaid(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
		io.WriteString(w, `{"Err":"two\nlines"}`)
	}, Options{})
	err := c.Volume().Remove(t.Context(), "v")
	got, ok := errors.AsType[*Error](err)
	if want := (Error{"x", "VolumeDriver.Remove", 500, "two lines"}); !ok || *got != want {
		t.Errorf("error %+v, want %+v", got, want)
	}
}

func TestLargeAnswers(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Err":"`+strings.Repeat("é", 5000)+`"}`)
	}, Options{})
	err := c.Volume().Remove(t.Context(), "v")
	if err == nil || len(err.Error()) > maxText+100 {
		t.Errorf("error of %d bytes, want it cut", len(fmt.Sprint(err)))
	}
	c.opts.MaxAnswer = 100
	err = c.Volume().Remove(t.Context(), "v")
	if want := `plugin "x": VolumeDriver.Remove: answer is larger than 100 bytes`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var opened atomic.Int32
	d := net.Dialer{}
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }, Options{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			opened.Add(1)
			return d.DialContext(ctx, network, addr)
		},
	})
	for range 10 {
		if err := c.Volume().Remove(t.Context(), "v"); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for ten calls one after the other, want 1", n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Volume().Remove(t.Context(), "v"); err != nil || opened.Load() != 2 {
		t.Errorf("after Close: %v, %d connections, want a second one", err, opened.Load())
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := c.Volume().Create(t.Context(), fmt.Sprint(i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestNothingListens(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone.sock")
	c, err := New(Endpoint{Name: "x", Addr: "unix://" + gone}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Activate(t.Context())
	want := `plugin "x": Plugin.Activate: dial unix ` + gone + `: connect: no such file or directory`
	if err == nil || err.Error() != want || !errors.Is(err, errdefs.ErrUnavailable) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("error %v of class %v, want %s", err, errdefs.Class(err), want)
	}
}

func TestCallKeepsTheAnswer(t *testing.T) {
	h, last := recorder(`{"A":1}`)
	c := serve(t, h, Options{})
	var got struct{ A int }
	if err := c.Call(t.Context(), "LogDriver.StartLogging", json.RawMessage(`{"File":"f"}`), &got); err != nil || got.A != 1 {
		t.Errorf("answer %+v, %v", got, err)
	}
	if last().Body != `{"File":"f"}`+"\n" {
		t.Errorf("sent %q", last().Body)
	}
	if err := c.Call(t.Context(), "X.Y", func() {}, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("request that is no JSON: %v, want ErrInvalid", err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(`{"Volume":{"Name":"v","CreatedAt":"2026-01-02T03:04:05Z","Status":{"a":null}},"Err":""}`))
	f.Add(200, []byte(`{"Volumes":[{"Name":"v"}],"Err":"x"}`))
	f.Add(200, []byte(`{"Implements":["VolumeDriver"],"Mountpoint":"/m"}`))
	f.Add(500, []byte("{\"Err\":\"a\\nb\"}"))
	f.Add(404, []byte("404 page not found\n"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 999 {
			return
		}
		c, err := New(Endpoint{Name: "x", Addr: "unix:///x.sock"}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		c.http.Transport = answer{status, body}
		ctx := t.Context()
		_, e1 := c.Activate(ctx)
		_, e2 := c.Volume().Get(ctx, "v")
		_, e3 := c.Volume().List(ctx)
		_, e4 := c.Volume().Mount(ctx, "v", "1")
		scope, e5 := c.Volume().Scope(ctx)
		e6 := c.Call(ctx, "IpamDriver.RequestPool", struct{}{}, &struct{ PoolID string }{})
		for i, err := range []error{e1, e2, e3, e4, e5, e6} {
			if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error %d has more than one line: %q", i, err)
			}
			if err == nil && status != 200 {
				t.Errorf("call %d took status %d for success", i, status)
			}
		}
		if scope != "local" && scope != "global" {
			t.Errorf("scope %q", scope)
		}
	})
}

// answer is a transport that gives one answer to everything.
type answer struct {
	status int
	body   []byte
}

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.WriteHeader(a.status)
	w.Write(a.body)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}
