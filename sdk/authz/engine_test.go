package authz_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/authz"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
)

// record is an authorizer that denies privileged containers and a volume called
// "forbidden", hides the answer about the volume "hidden", and remembers what it was asked.
type record struct {
	mu    sync.Mutex
	asked []*authz.Request
}

func (a *record) Authorize(_ context.Context, r *authz.Request) (authz.Decision, error) {
	a.mu.Lock()
	a.asked = append(a.asked, r)
	a.mu.Unlock()
	var body struct {
		Name       string
		HostConfig *struct{ Privileged bool }
	}
	if len(r.Body) > 0 {
		if err := r.DecodeBody(&body); err != nil {
			return authz.Decision{}, err
		}
	}
	switch {
	case body.HostConfig != nil && body.HostConfig.Privileged:
		return authz.Deny("no privileged containers"), nil
	case body.Name == "forbidden" || r.Match("GET /volumes/forbidden"):
		return authz.Deny("no volume of that name"), nil
	case r.Match("GET /volumes/panic"):
		panic("asked to")
	}
	return authz.Allow(), nil
}

func (a *record) AuthorizeResponse(_ context.Context, r *authz.Request, answer *authz.Response) (authz.Decision, error) {
	if r.Match("GET /volumes/hidden") && answer.Status == http.StatusOK && strings.Contains(string(answer.Body), `"hidden"`) {
		return authz.Deny("this one is hidden"), nil
	}
	return authz.Allow(), nil
}

// count returns how many requests a was asked about that fit a pattern.
func (a *record) count(pattern string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.asked {
		if r.Match(pattern) {
			n++
		}
	}
	return n
}

// last returns the last request that fits a pattern.
func (a *record) last(pattern string) *authz.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.asked {
		if r := a.asked[len(a.asked)-1-i]; r.Match(pattern) {
			return r
		}
	}
	return &authz.Request{}
}

// serve serves a on a socket of the host until the test ends.
func serve(t *testing.T, h *enginetest.Host, name string, a authz.Authorizer) {
	t.Helper()
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: filepath.Join(h.Run, "docker/plugins", name+".sock")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	go func() {
		done <- sdk.New(sdk.Options{Logger: log}, recorder(t, authz.NewHandler(a, authz.Options{Logger: log}))).Serve(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// ask sends a request to the engine and returns the status and the answer.
func ask(t *testing.T, e *enginetest.Engine, method, target string, body io.Reader, kinds ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://docker"+target, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Content-Type"] = kinds
	if body != nil {
		r.Header.Set("Expect", "100-continue") // a denial comes before the body was read
	}
	resp, err := e.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestEngine(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd)
	a := &record{}
	h := enginetest.NewHost(t)
	serve(t, h, "guard", a)
	e := h.Start(t, "--authorization-plugin=guard")
	chunked := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	const asJSON, asForm = "application/json", "application/x-www-form-urlencoded"

	for _, tt := range []struct {
		name, method, target string
		body                 io.Reader
		kinds                []string
		status               int
		answer               string // a part of it
	}{
		{name: "allowed", method: "GET", target: "/v1.41/info", status: 200, answer: `"Authorization":["guard"]`},
		{name: "no version", method: "GET", target: "/info", status: 200},
		{name: "create", method: "POST", target: "/v1.41/volumes/create", body: strings.NewReader(`{"Name":"fine"}`), kinds: []string{asJSON}, status: 201},
		{name: "create hidden", method: "POST", target: "/v1.41/volumes/create", body: strings.NewReader(`{"Name":"hidden"}`), kinds: []string{asJSON}, status: 201},
		{
			name: "denied by the body", method: "POST", target: "/v1.41/volumes/create", body: strings.NewReader(`{"Name":"forbidden"}`), kinds: []string{asJSON},
			status: 403, answer: "authorization denied by plugin guard: no volume of that name",
		},
		{
			name: "denied by the path", method: "GET", target: "/v1.41/volumes/%66orbidden",
			status: 403, answer: "authorization denied by plugin guard: no volume of that name",
		},
		{
			name: "lower case", method: "POST", target: "/v1.41/volumes/create", body: strings.NewReader(`{"name":"forbidden"}`), kinds: []string{asJSON},
			status: 403, answer: "no volume of that name",
		},
		{
			name: "twice", method: "POST", target: "/v1.41/volumes/create", body: strings.NewReader(`{"Name":"fine","name":"forbidden"}`), kinds: []string{asJSON},
			status: 403, answer: `key \"name\" is there more than once`,
		},
		{
			name: "privileged", method: "POST", target: "/v1.41/containers/create", body: strings.NewReader(`{"Image":"x","HostConfig":{"Privileged":true}}`),
			kinds: []string{asJSON + "; charset=utf-8"}, status: 403, answer: "no privileged containers",
		},
		{
			name: "privileged, chunked", method: "POST", target: "/v1.41/containers/create", body: chunked(`{"Image":"x","HostConfig":{"Privileged":true}}`),
			kinds: []string{asJSON}, status: 403, answer: "authorization denied by plugin guard",
		},
		{
			name: "privileged, above 1 MiB", method: "POST", target: "/v1.41/containers/create",
			body:  strings.NewReader(`{"Image":"x","HostConfig":{"Privileged":true},"Labels":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`),
			kinds: []string{asJSON}, status: 403, answer: "authorization denied by plugin guard",
		},
		{
			name: "privileged, above 1 MiB and chunked", method: "POST", target: "/v1.41/containers/create",
			body:  chunked(`{"Image":"x","HostConfig":{"Privileged":true},"Labels":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`),
			kinds: []string{asJSON}, status: 403, answer: "authorization denied by plugin guard",
		},
		{
			name: "old start with a HostConfig, chunked", method: "POST", target: "/v1.23/containers/x/start",
			body: chunked(`{"Privileged":true,"x":"` + strings.Repeat("x", 1<<20) + `"}`), kinds: []string{asJSON},
			status: 403, answer: "did not pass on the body",
		},
		{
			name: "other type", method: "POST", target: "/v1.41/volumes/create", body: strings.NewReader(`{"Name":"forbidden"}`), kinds: []string{"text/plain"},
			status: 403, answer: "did not pass on the body",
		},
		{
			name: "form before the query", method: "POST", target: "/v1.41/images/create?fromImage=127.0.0.1:1/good", body: strings.NewReader("fromImage=127.0.0.1:1/evil"),
			kinds: []string{asForm}, status: 403, answer: "a form in the body",
		},
		{
			name: "form before the query, chunked", method: "POST", target: "/v1.41/images/create?fromImage=127.0.0.1:1/good", body: chunked("fromImage=127.0.0.1:1/evil"),
			kinds: []string{asForm}, status: 403, answer: "a form in the body",
		},
		{
			name: "form under another last type, chunked", method: "POST", target: "/v1.41/images/create?fromImage=127.0.0.1:1/good",
			body: chunked("fromImage=127.0.0.1:1/evil"), kinds: []string{asForm, "application/x-tar"}, status: 403, answer: "takes no body",
		},
		{name: "answer denied", method: "GET", target: "/v1.41/volumes/hidden", status: 403, answer: "this one is hidden"},
		{name: "answer allowed", method: "GET", target: "/v1.41/volumes/fine", status: 200, answer: `"fine"`},
		{name: "panic", method: "GET", target: "/v1.41/volumes/panic", status: 500, answer: "AuthZPlugin.AuthZReq: internal error: the authorizer panicked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := ask(t, e, tt.method, tt.target, tt.body, tt.kinds...)
			if status != tt.status || !strings.Contains(answer, tt.answer) {
				t.Errorf("status %d, want %d; answer %.400s", status, tt.status, answer)
			}
		})
	}

	t.Run("the password of a login", func(t *testing.T) {
		// Nothing listens there; that the engine asked is enough.
		ask(t, e, "POST", "/v1.41/auth", strings.NewReader(`{"username":"u","password":"s3cret","serveraddress":"127.0.0.1:1"}`), asJSON)
		if a.count("POST /auth") != 1 || len(a.last("POST /auth").Body) != 0 {
			t.Errorf("asked %d times, body of %d bytes", a.count("POST /auth"), len(a.last("POST /auth").Body))
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				want, name := 201, fmt.Sprintf("v%d", i)
				if i%2 == 0 {
					want, name = 403, "forbidden"
				}
				if status, answer := ask(t, e, "POST", "/v1.41/volumes/create", strings.NewReader(`{"Name":"`+name+`"}`), asJSON); status != want {
					t.Errorf("%s: status %d: %s", name, status, answer)
				}
			})
		}
		wg.Wait()
	})
	t.Run("restart of the engine", func(t *testing.T) {
		e.Restart(t)
		if status, _ := ask(t, e, "GET", "/v1.41/volumes/fine", nil); status != 200 {
			t.Errorf("status %d", status)
		}
		if status, _ := ask(t, e, "GET", "/v1.41/volumes/forbidden", nil); status != 403 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("docker cli", func(t *testing.T) {
		testenv.Require(t, testenv.DockerCLI, testenv.Busybox)
		busybox, err := testenv.BusyboxPath()
		if err != nil {
			t.Fatal(err)
		}
		e.ImportBusybox(t, busybox)
		if out, err := e.Docker(t.Context(), "run", "--rm", "--network=none", enginetest.Image, "echo", "hello"); err != nil || out != "hello" {
			t.Errorf("run: %v: %s", err, out)
		}
		out, err := e.Docker(t.Context(), "run", "--rm", "--privileged", "--network=none", enginetest.Image, "echo", "hello")
		if err == nil || !strings.Contains(out, "authorization denied by plugin guard: no privileged containers") {
			t.Errorf("run --privileged: %v: %s", err, out)
		}
		for _, args := range [][]string{
			{"create", "--name=one", "--network=none", enginetest.Image, "sleep", "100"},
			{"start", "one"},
			{"exec", "one", "echo", "x"},
			{"cp", "one:/bin/busybox", filepath.Join(t.TempDir(), "bb")},
			{"cp", os.Args[0], "one:/x"},
			{"commit", "one", "img:1"},
			{"tag", "img:1", "img:2"},
			{"save", "-o", filepath.Join(t.TempDir(), "tar"), "img:1"},
			{"pause", "one"},
			{"unpause", "one"},
			{"rename", "one", "two"},
			{"update", "--cpu-shares=10", "two"},
			{"kill", "two"},
			{"rm", "two"},
			{"image", "rm", "img:1", "img:2"},
			{"volume", "prune", "-f"},
			{"container", "prune", "-f"},
			{"network", "ls"},
			{"system", "df"},
		} {
			if out, err := e.Docker(t.Context(), args...); err != nil {
				t.Errorf("docker %s: %v: %s", strings.Join(args, " "), err, out)
			}
		}
	})
}

// TestEngineReadsForms shows what the rule on forms is for: without a plugin, the engine
// pulls what the body says.
func TestEngineReadsForms(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd)
	e := enginetest.NewHost(t).Start(t)
	for _, kinds := range [][]string{{"application/x-www-form-urlencoded"}, {"application/x-www-form-urlencoded", "application/x-tar"}} {
		body := io.MultiReader(strings.NewReader("fromImage=127.0.0.1:2/evil"))
		_, answer := ask(t, e, "POST", "/v1.41/images/create?fromImage=127.0.0.1:1/good", body, kinds...)
		if !strings.Contains(answer, "127.0.0.1:2/v2/") {
			t.Errorf("%q: it did not pull what the form says: %s", kinds, answer)
		}
	}
}

// TestEngineWithoutPlugin: an engine that cannot reach its plugin does not start, and one
// whose plugin is gone lets nothing through.
func TestEngineWithoutPlugin(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd)
	h := enginetest.NewHost(t)
	start := time.Now()
	log := h.TryStart(t, "--authorization-plugin=absent")
	if !strings.Contains(log, `authorization plugin: plugin "absent" not found`) {
		t.Errorf("after %v it said: %s", time.Since(start), log)
	}
}
