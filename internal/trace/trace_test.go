package trace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// asTrace is set in the environment of a test program that is to trace, and asGuard is its
// first argument where it is to be the guard of one.
const (
	asTrace = "REMORA_TEST_AS_TRACE"
	asGuard = "guard"
)

func TestMain(m *testing.M) {
	var err error
	switch socket := os.Getenv(asTrace); {
	case len(os.Args) > 2 && os.Args[1] == asGuard:
		err = Guard(os.Stdin, os.Args[2])
	case socket != "":
		o := Options{Show: func(c Call) { fmt.Println(c.Method) }, Say: func(string) {}}
		if os.Getenv("UNGUARDED") == "" {
			o.Guard = []string{os.Args[0], asGuard}
		}
		err = Run(context.Background(), socket, o)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// echo is a plugin that answers with what it is asked.
type echo struct{ answer string }

func (echo) Implements() string { return "Echo" }

func (e echo) Methods() map[string]http.Handler {
	return map[string]http.Handler{
		"Echo.Say":  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, e.answer) }),
		"Echo.Fail": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"Err":"no"}`, 500) }),
		"Echo.Cut":  http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	}
}

// start serves a plugin until stop is called, or the test ends.
func start(t *testing.T, socket, answer string) (stop func()) {
	t.Helper()
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: socket, Mode: 0o640})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- sdk.Serve(ctx, l, echo{answer}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// place returns a path for a socket; those of t.TempDir may be too long.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "trace")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "p.sock")
}

// call calls the plugin as an engine does, on a connection of its own.
func call(t *testing.T, socket, method, body string) (string, error) {
	t.Helper()
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := c.Post("http://plugin/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var b strings.Builder
	_, err = bufio.NewReader(resp.Body).WriteTo(&b)
	return b.String(), err
}

// calls are those that a trace has shown.
type calls struct {
	mu   sync.Mutex
	all  []Call
	said []string
}

func (c *calls) options() Options {
	return Options{
		Show: func(x Call) { c.mu.Lock(); defer c.mu.Unlock(); c.all = append(c.all, x) },
		Say:  func(s string) { c.mu.Lock(); defer c.mu.Unlock(); c.said = append(c.said, s) },
	}
}

func (c *calls) list() ([]Call, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Call{}, c.all...), append([]string{}, c.said...)
}

// run traces until stop is called.
func run(t *testing.T, socket string) (c *calls, stop func()) {
	t.Helper()
	c = &calls{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, socket, c.options()) }()
	until(t, "the trace begins", func() bool { return traced(socket) })
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// traced tells whether a trace has taken the name of a socket.
func traced(socket string) bool {
	at, err := os.Lstat(socket)
	own, ownErr := os.Lstat(filepath.Join(filepath.Dir(socket), asideDir, filepath.Base(socket)))
	return err == nil && ownErr == nil && !os.SameFile(at, own)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// clean fails the test where something is left beside the socket.
func clean(t *testing.T, socket string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(socket))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("in the directory are %q, want %q", names, want)
	}
}

// TestLongPath: the path of a managed plugin's socket leaves no room for a longer one.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(filepath.Dir(place(t)), strings.Repeat("f", 64))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, strings.Repeat("p", 105-len(dir)-len("/.sock"))+".sock")
	start(t, socket, `{}`)
	c, stop := run(t, socket)
	if _, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Errorf("after the trace: %v", err)
	}
	if all, said := c.list(); len(all) != 1 || len(said) != 1 {
		t.Errorf("calls are %+v, said %q", all, said)
	}
	clean(t, socket, filepath.Base(socket))
	killed(t, socket, "UNGUARDED=1")
	if err := Mend(socket); err != nil {
		t.Error(err)
	}
	if _, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Errorf("after Mend: %v", err)
	}
}

func TestRun(t *testing.T) {
	socket := place(t)
	start(t, socket, `{"Answer":1}`)
	before, err := os.Lstat(socket)
	if err != nil {
		t.Fatal(err)
	}
	c, stop := run(t, socket)
	during, err := os.Lstat(socket)
	if err != nil || during.Mode() != before.Mode() {
		t.Errorf("the socket is %v while it is traced, %v; want %v", during.Mode(), err, before.Mode())
	}
	if got, err := call(t, socket, "Echo.Say", `{"Name":"a","Opts":{"o":"user=u,password=hunter2,ro","password":"hunter2","n":12345678901234567890}}`); got != `{"Answer":1}` {
		t.Errorf("the caller gets %q, %v", got, err)
	}
	if _, err := call(t, socket, "Echo.Fail", ``); err != nil {
		t.Error(err)
	}
	if got, err := call(t, socket, "Echo.Cut", `{}`); err == nil {
		t.Errorf("a plugin that breaks the connection answers %q", got)
	}
	if err := Run(t.Context(), socket, Options{}); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("a second trace: %v, want ErrInUse", err)
	}
	if left := Left(filepath.Dir(socket)); len(left) > 0 {
		t.Errorf("left: %q, while the trace is at work", left)
	}
	stop()
	after, err := os.Lstat(socket)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the socket is not the plugin's own again: %v", err)
	}
	clean(t, socket, "p.sock")
	if got, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Errorf("after the trace: %q, %v", got, err)
	}
	all, _ := c.list()
	if len(all) != 3 {
		t.Fatalf("calls are %+v, want three", all)
	}
	if all[0].Method != "Echo.Say" || all[0].Status != 200 || all[0].Duration <= 0 || all[0].Response != `{"Answer":1}` ||
		all[0].Request != `{"Name":"a","Opts":{"n":12345678901234567890,"o":"user=u,password=REDACTED,ro","password":"REDACTED"}}` {
		t.Errorf("the first call is %+v", all[0])
	}
	if all[1].Status != 500 || all[1].Response != `{"Err":"no"}` {
		t.Errorf("the second call is %+v", all[1])
	}
	if all[2].Status != 0 || all[2].Error == "" {
		t.Errorf("the third call is %+v", all[2])
	}
}

// TestNoCallIsLost has engines call while a trace comes and goes.
func TestNoCallIsLost(t *testing.T) {
	socket := place(t)
	start(t, socket, `{}`)
	ctx, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c, err := client.New(client.Endpoint{Name: "p", Addr: "unix://" + socket}, client.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for ctx.Err() == nil {
				if err := c.Call(context.WithoutCancel(ctx), "Echo.Say", map[string]string{"a": "b"}, nil); err != nil {
					t.Errorf("a call fails: %v", err)
					return
				}
				if _, err := call(t, socket, "Echo.Say", `{}`); err != nil {
					t.Errorf("a call on a connection of its own fails: %v", err)
					return
				}
			}
		})
	}
	for range 8 {
		c, stop := run(t, socket)
		until(t, "calls are seen", func() bool { all, _ := c.list(); return len(all) > 20 })
		stop()
		all, _ := c.list()
		for _, x := range all {
			if x.Error != "" {
				t.Errorf("a call is cut off: %+v", x)
			}
		}
	}
	end()
	wg.Wait()
	clean(t, socket, "p.sock")
}

// TestPluginRestarts: the next plugin can start while the last one's socket is traced.
func TestPluginRestarts(t *testing.T) {
	socket := place(t)
	end := start(t, socket, `{"Answer":1}`)
	c, stop := run(t, socket)
	end()
	until(t, "it is said", func() bool { _, said := c.list(); return len(said) == 2 })
	clean(t, socket, asideDir)
	start(t, socket, `{"Answer":2}`)
	until(t, "it is traced again", func() bool { return traced(socket) })
	if got, err := call(t, socket, "Echo.Say", ``); got != `{"Answer":2}` {
		t.Errorf("the new plugin says %q, %v", got, err)
	}
	stop()
	if all, said := c.list(); len(all) != 1 || len(said) != 3 {
		t.Errorf("calls are %+v, said %q", all, said)
	}
	clean(t, socket, "p.sock")
}

// TestNameTaken: a plugin that takes its name whoever has it keeps it.
func TestNameTaken(t *testing.T) {
	socket := place(t)
	start(t, socket, `{"Answer":1}`)
	_, stop := run(t, socket)
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	start(t, socket, `{"Answer":2}`)
	until(t, "the trace lets go, and takes the new one", func() bool { return traced(socket) })
	stop()
	if got, err := call(t, socket, "Echo.Say", ``); got != `{"Answer":2}` {
		t.Errorf("the new plugin says %q, %v", got, err)
	}
	clean(t, socket, "p.sock")
}

// killed starts a trace in a process of its own, and kills it.
func killed(t *testing.T, socket string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), asTrace+"="+socket), env...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the trace begins", func() bool { return traced(socket) })
	if _, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
}

func TestKilled(t *testing.T) {
	socket := place(t)
	start(t, socket, `{}`)
	before, err := os.Lstat(socket)
	if err != nil {
		t.Fatal(err)
	}
	killed(t, socket)
	until(t, "the guard has mended it", func() bool {
		at, err := os.Lstat(socket)
		return err == nil && os.SameFile(at, before)
	})
	if _, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Error(err)
	}
	until(t, "the guard has ended", func() bool {
		_, err := os.Lstat(filepath.Join(filepath.Dir(socket), asideDir))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// TestKilledWithItsGuard: the next trace, or Mend, puts right what is left.
func TestKilledWithItsGuard(t *testing.T) {
	socket := place(t)
	end := start(t, socket, `{}`)
	killed(t, socket, "UNGUARDED=1")
	if _, err := call(t, socket, "Echo.Say", ``); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("the trace is not dead: %v", err)
	}
	if left := Left(filepath.Dir(socket)); len(left) != 1 || left[0] != socket {
		t.Errorf("left are %q, want %q", left, socket)
	}
	if err := Mend(socket); err != nil {
		t.Error(err)
	}
	if _, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Error(err)
	}
	clean(t, socket, "p.sock")

	killed(t, socket, "UNGUARDED=1")
	_, stop := run(t, socket)
	stop()
	if _, err := call(t, socket, "Echo.Say", ``); err != nil {
		t.Error(err)
	}
	clean(t, socket, "p.sock")

	killed(t, socket, "UNGUARDED=1")
	end()
	if err := Mend(socket); err != nil {
		t.Error(err)
	}
	clean(t, socket)
}

func TestNothingToTrace(t *testing.T) {
	socket := place(t)
	if err := Run(t.Context(), socket, Options{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no socket: %v, want ErrNotFound", err)
	}
	if err := Run(t.Context(), filepath.Join(socket, "x", "y.sock"), Options{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no directory: %v, want ErrNotFound", err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), socket, Options{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a file: %v, want ErrInvalid", err)
	}
	clean(t, socket, "p.sock")
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), socket, Options{}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a socket on which nobody listens: %v, want ErrUnavailable", err)
	}
	clean(t, socket, "p.sock")
}

func TestRedact(t *testing.T) {
	text := func(s string) *body { b := &body{}; _, _ = b.Write([]byte(s)); return b }
	for _, tt := range []struct{ request, response, wantRequest, wantResponse string }{
		{"", "", "", ""},
		{
			`{"Opts":{"password":"p4ss word"}}`, `{"Err":"login with p4ss word failed, key=k1k1k1k1"}`,
			`{"Opts":{"password":"REDACTED"}}`, `{"Err":"login with REDACTED failed, key=REDACTED"}`,
		},
		{
			`{"Opts":{"device":"https://u:geheim@host/x","token":""}}`, `{"Tokens":3,"Secret":["aaaa"]}`,
			`{"Opts":{"device":"https://REDACTED@host/x","token":""}}`, `{"Secret":"REDACTED","Tokens":3}`,
		},
		{
			`{"RequestBody":"c2VjcmV0","RequestHeaders":{"X-Registry-Auth":"x"},"UserAuthNMethod":"TLS"}`, "binary\x00",
			`{"RequestBody":"(8 bytes in base64)","RequestHeaders":{"X-Registry-Auth":"REDACTED"},"UserAuthNMethod":"TLS"}`, "(7 bytes that are no JSON)",
		},
		{strings.Repeat("x", shown+1), "[1,2]", "(65537 bytes)", "[1,2]"},
		{
			`{"Opts":{"conf":"{\"keys\":[\"one1\",\"two2\"],\"n\":1}","args":["--password","three3","-v","--token=four4"]}}`, `{"Err":"Authorization: Bearer five5 is refused"}`,
			`{"Opts":{"args":["--password","REDACTED","-v","--token=REDACTED"],"conf":"{\"keys\":\"REDACTED\",\"n\":1}"}}`, `{"Err":"Authorization: REDACTED is refused"}`,
		},
		{
			`{"Err":"answer was {\"password\": \"six6\"}, secret = seven7"}`, `{"Url":"/x?token=eight8&a=b","Host":"https://auth.example.com:443/v eight8"}`,
			`{"Err":"answer was {\"password\": REDACTED}, secret = REDACTED"}`, `{"Host":"https://auth.example.com:443/v REDACTED","Url":"/x?token=REDACTED"}`,
		},
	} {
		var r redactor
		if req, resp, _ := r.redact(text(tt.request), text(tt.response), ""); req != tt.wantRequest || resp != tt.wantResponse {
			t.Errorf("shown are\n%s\n%s, want\n%s\n%s", req, resp, tt.wantRequest, tt.wantResponse)
		}
	}
}

// TestSecretsOfEarlierCalls: an error quotes what another call was given.
func TestSecretsOfEarlierCalls(t *testing.T) {
	text := func(s string) *body { b := &body{}; _, _ = b.Write([]byte(s)); return b }
	var r redactor
	r.redact(text(`{"Opts":{"password":"hunter2","key":"no"}}`), text(`{}`), "")
	_, resp, why := r.redact(text(`{}`), text(`{"Err":"no: hunter2 is wrong"}`), `malformed answer "hunter2", passwd=hunter3`)
	if want := `{"Err":"no: REDACTED is wrong"}`; resp != want {
		t.Errorf("shown is %s, want %s", resp, want)
	}
	if want := `malformed answer "REDACTED", passwd=REDACTED`; why != want {
		t.Errorf("shown is %s, want %s", why, want)
	}
}
