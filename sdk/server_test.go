package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// kind is a plugin of one method.
type kind struct {
	name      string
	method    string
	handle    http.HandlerFunc
	activated atomic.Int32
}

func (k *kind) Implements() string               { return k.name }
func (k *kind) Methods() map[string]http.Handler { return map[string]http.Handler{k.method: k.handle} }
func (k *kind) Activated(context.Context)        { k.activated.Add(1) }

// volumes is a kind that answers at once.
func volumes() *kind {
	return &kind{name: wire.VolumeDriver, method: wire.VolumeList, handle: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"Volumes":[],"Err":""}`)
	}}
}

// socketDir is a directory whose path leaves room for a socket's name.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sdk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// over is a client that reaches every host through one unix socket.
func over(t *testing.T, socket string) *http.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func call(t *testing.T, c *http.Client, url string) (status int, body string, err error) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// serve serves plugins on a socket until stop, which returns what Serve did.
func serve(t *testing.T, o Options, l net.Listener, plugins ...Plugin) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- New(o, plugins...).Serve(ctx, l) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestActivationListsAllKinds(t *testing.T) {
	v := volumes()
	n := &kind{name: wire.NetworkDriver, method: "NetworkDriver.GetCapabilities", handle: http.NotFound}
	s := New(Options{}, v, n)
	for range 2 {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/Plugin.Activate", nil))
		if got := w.Body.String(); w.Code != http.StatusOK || got != `{"Implements":["VolumeDriver","NetworkDriver"]}`+"\n" ||
			w.Header().Get("Content-Type") != wire.MediaType {
			t.Errorf("Activate: %d %q", w.Code, got)
		}
	}
	if v.activated.Load() != 2 || n.activated.Load() != 2 {
		t.Errorf("plugins heard of %d and %d activations", v.activated.Load(), n.activated.Load())
	}
	if got := s.Implements(); !slices.Equal(got, []string{"VolumeDriver", "NetworkDriver"}) {
		t.Errorf("Implements: %q", got)
	}
}

func TestWhatIsNoMethod(t *testing.T) {
	s := New(Options{}, volumes())
	for _, tt := range []struct {
		verb, path string
		want       int
	}{
		{http.MethodPost, "/VolumeDriver.Snapshot", http.StatusNotFound},
		{http.MethodPost, "/", http.StatusNotFound},
		{http.MethodPost, "/volumedriver.list", http.StatusNotFound},
		{http.MethodPost, "/VolumeDriver.List/x", http.StatusNotFound},
		{http.MethodPost, "/" + strings.Repeat("x", 5000), http.StatusNotFound},
		{http.MethodGet, "/Plugin.Activate", http.StatusMethodNotAllowed},
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(tt.verb, tt.path, nil))
		var e wire.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != tt.want || e.Err == "" || len(e.Err) > 300 {
			t.Errorf("%s %.40s: %d %q, %v, want %d and JSON", tt.verb, tt.path, w.Code, w.Body, err, tt.want)
		}
	}
}

func TestSameKindTwicePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a server with two volume drivers")
		}
	}()
	New(Options{}, volumes(), volumes())
}

func TestServeWithoutListener(t *testing.T) {
	if err := New(Options{}).Serve(t.Context()); err == nil {
		t.Error("Serve without a listener succeeds")
	}
}

func TestServeOnABrokenListener(t *testing.T) {
	dir := socketDir(t)
	good := mustListen(t, UnixSocket{Path: filepath.Join(dir, "good.sock")})
	bad := mustListen(t, UnixSocket{Path: filepath.Join(dir, "bad.sock")})
	if err := bad.Close(); err != nil {
		t.Fatal(err)
	}
	if err := New(Options{}).Serve(t.Context(), good, bad); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "bad.sock") {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "good.sock")); err == nil {
		t.Error("the other listener is still open")
	}
}

// slow is a kind whose calls last until gate is closed.
func slow() (k *kind, entered, gate chan struct{}) {
	entered, gate = make(chan struct{}, 100), make(chan struct{})
	k = volumes()
	answer := k.handle
	k.handle = func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-gate
		answer(w, r)
	}
	return k, entered, gate
}

func TestStopIsGraceful(t *testing.T) {
	socket := filepath.Join(socketDir(t), "p.sock")
	k, entered, gate := slow()
	stop := serve(t, Options{Grace: 10 * time.Second}, mustListen(t, UnixSocket{Path: socket}), k)
	c := over(t, socket)
	var caller sync.WaitGroup
	caller.Go(func() {
		if status, body, err := call(t, c, "http://p/VolumeDriver.List"); status != http.StatusOK || err != nil {
			t.Errorf("call in flight: %d %q, %v", status, body, err)
		}
	})
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// The socket goes at once, so that a successor can listen while this one finishes.
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(socket); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("the socket is still there")
		}
	}
	if _, _, err := call(t, over(t, socket), "http://p/VolumeDriver.List"); err == nil {
		t.Error("a call after the stop is answered")
	}
	next := mustListen(t, UnixSocket{Path: socket})
	select {
	case err := <-stopped:
		t.Errorf("stopped with a call in flight: %v", err)
	default:
	}
	close(gate)
	caller.Wait()
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the successor's socket has gone: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestStopWhenGraceIsOver(t *testing.T) {
	for _, grace := range []time.Duration{20 * time.Millisecond, -1} {
		socket := filepath.Join(socketDir(t), "p.sock")
		k, entered, gate := slow()
		stop := serve(t, Options{Grace: grace}, mustListen(t, UnixSocket{Path: socket}), k)
		var caller sync.WaitGroup
		caller.Go(func() {
			if status, _, err := call(t, over(t, socket), "http://p/VolumeDriver.List"); err == nil {
				t.Errorf("grace %v: a call that did not end is answered with %d", grace, status)
			}
		})
		<-entered
		err := stop()
		if grace > 0 && (!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), grace.String())) {
			t.Errorf("grace %v: Serve: %v", grace, err)
		}
		if grace < 0 && err != nil {
			t.Errorf("without grace: Serve: %v", err)
		}
		caller.Wait()
		close(gate)
	}
}

func TestStopDoesNotCancelCallsInFlight(t *testing.T) {
	socket := filepath.Join(socketDir(t), "p.sock")
	k := volumes()
	entered, gate := make(chan struct{}), make(chan struct{})
	var ended error
	k.handle = func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-gate
		ended = r.Context().Err()
	}
	stop := serve(t, Options{}, mustListen(t, UnixSocket{Path: socket}), k)
	var caller sync.WaitGroup
	caller.Go(func() { _, _, _ = call(t, over(t, socket), "http://p/VolumeDriver.List") })
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	time.Sleep(10 * time.Millisecond)
	close(gate)
	if err := <-stopped; err != nil || ended != nil {
		t.Errorf("Serve: %v; the call's context: %v", err, ended)
	}
	caller.Wait()
}

// Ten thousand callers at once, whose calls are in flight as many together as the kernel
// queues for a listener, and rude ones among them.
func TestHammer(t *testing.T) {
	const calls, atOnce = 10_000, 2000
	socket := filepath.Join(socketDir(t), "p.sock")
	var inFlight atomic.Int64
	all := make(chan struct{})
	k := volumes()
	answer := k.handle
	k.handle = func(w http.ResponseWriter, r *http.Request) {
		if inFlight.Add(1) == atOnce {
			close(all)
		}
		<-all
		answer(w, r)
	}
	stop := serve(t, Options{Logger: slog.New(slog.DiscardHandler)}, mustListen(t, UnixSocket{Path: socket}), k)
	transport := &http.Transport{MaxConnsPerHost: atOnce, MaxIdleConnsPerHost: atOnce, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	var failed atomic.Int64
	var callers sync.WaitGroup
	for i := range calls {
		callers.Go(func() {
			status, body, err := call(t, c, "http://p/VolumeDriver.List")
			if (err != nil || status != http.StatusOK) && failed.Add(1) < 5 {
				t.Errorf("%d %q, %v", status, body, err)
			}
		})
		if i%1000 == 0 {
			callers.Go(func() {
				for _, text := range []string{"", "\x00\xff garbage\r\n\r\n", "POST /VolumeDriver.List HTTP/1.1\r\nContent-Length: 99\r\n\r\n{", "GET"} {
					rude(t, transport, text)
				}
			})
		}
	}
	callers.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d calls failed", n, calls)
	}
	transport.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// rude connects, sends what is no request, and hangs up.
func rude(t *testing.T, transport *http.Transport, text string) {
	conn, err := transport.DialContext(t.Context(), "", "")
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.WriteString(conn, text)
	_ = conn.Close()
}
