package check_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
)

// The models are whole plugins, one of each kind, that are right unless they are told to make
// one mistake. They use nothing of the SDK, which could not make most of them.

type object = map[string]any

// bug is the mistake of a model, empty for none.
type bug string

// failure is an answer that is no success.
type failure struct {
	status int
	body   string
}

func (f failure) Error() string { return f.body }

func refuse(text string) failure {
	b, _ := json.Marshal(object{"Err": text, "Error": text})
	return failure{http.StatusInternalServerError, string(b)}
}

// model answers the methods of one plugin.
type model struct {
	bug       bug
	kinds     []string
	call      func(method string, req object) (any, error)
	activate  func() // called with mu held
	mu        sync.Mutex
	activated int
	current   int
	poisoned  bool
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		m.mu.Lock()
		m.poisoned = m.bug == "dies of callers that hang up"
		m.mu.Unlock()
		return
	}
	m.mu.Lock()
	m.current++
	current, poisoned := m.current, m.poisoned
	m.mu.Unlock()
	defer func() { m.mu.Lock(); m.current--; m.mu.Unlock() }()
	switch {
	case poisoned:
		panic(http.ErrAbortHandler)
	case m.bug == "wants a host" && r.Host == "":
		http.Error(w, "no host", http.StatusBadRequest)
		return
	case m.bug == "8 at once":
		time.Sleep(20 * time.Millisecond)
		if current > 8 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
	}
	method := strings.TrimPrefix(r.URL.Path, "/")
	answer, err := m.answer(method, body, r.Header)
	if f, ok := err.(failure); ok { //nolint:errorlint // nothing wraps it
		w.WriteHeader(f.status)
		_, _ = io.WriteString(w, f.body)
		return
	}
	b, err := json.Marshal(answer)
	if raw, ok := answer.(string); ok {
		b = []byte(raw)
	} else if err != nil {
		panic(err)
	}
	if m.bug == "closes without a word" {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: "+jsonText(len(b))+"\r\n\r\n"+string(b))
		conn.Close()
		return
	}
	_, _ = w.Write(b)
}

func jsonText(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func (m *model) answer(method string, body []byte, header http.Header) (any, error) {
	if method == "Plugin.Activate" {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.activated++
		if m.activate != nil {
			m.activate()
		}
		switch {
		case m.bug == "is nothing":
			return object{"Implements": []string{}}, nil
		case m.bug == "activates for Docker alone" && header.Get("Content-Type") != "":
			return nil, failure{http.StatusUnsupportedMediaType, "no"}
		}
		return object{"Implements": m.kinds}, nil
	}
	req := object{}
	noBody := len(body) == 0
	if err := json.Unmarshal(body, &req); err != nil && !noBody {
		if m.bug != "reads anything" {
			return nil, failure{http.StatusBadRequest, "not JSON"}
		}
		req = object{"Name": "garbage", "ID": "x"}
	}
	argument := !strings.HasSuffix(method, ".List") && !strings.Contains(method, "Capabilities") && !strings.HasSuffix(method, "Spaces") && !strings.HasSuffix(method, "Metrics")
	switch {
	case noBody && argument && m.bug == "takes no body for success":
		return object{"Address": "198.18.1.9/24"}, nil
	case noBody && argument && m.bug != "allows the empty call" && m.bug != "takes no name for all":
		return nil, refuse("no body")
	case noBody && m.bug == "wants a body":
		return nil, refuse("no body")
	}
	answer, err := m.call(method, req)
	if f, ok := err.(failure); ok { //nolint:errorlint // nothing wraps it
		switch {
		case m.bug == "errors are 200":
			return f.body, nil
		case m.bug == "Err beside 200" && f.status == http.StatusInternalServerError:
			return object{"Err": "no"}, nil
		}
	}
	if answer == nil && err == nil {
		if m.bug == "knows every method" {
			return object{}, nil
		}
		return nil, failure{http.StatusNotFound, "404 page not found"}
	}
	return answer, err
}

// serve serves a model on a socket and returns where that is.
func serve(t *testing.T, m *model) client.Endpoint {
	t.Helper()
	dir, err := os.MkdirTemp("", "check")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "p.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if m.bug == "one connection" {
		l = &single{Listener: l, free: make(chan struct{}, 1)}
	}
	s := &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return client.Endpoint{Name: "model", Addr: "unix://" + path}
}

// single is a listener that has one connection at a time.
type single struct {
	net.Listener
	free chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	select {
	case s.free <- struct{}{}:
	case <-time.After(30 * time.Second):
	}
	c, err := s.Listener.Accept()
	return &freeing{Conn: c, s: s}, err
}

type freeing struct {
	net.Conn
	once sync.Once
	s    *single
}

func (f *freeing) Close() error {
	f.once.Do(func() { <-f.s.free })
	return f.Conn.Close()
}

// mutants are the mistakes of a kind, each with the cases that must find it.
type mutants map[bug][]string

// check wants a model without a mistake to pass all cases, but for those that must be skipped,
// and each mistake to be found by its cases, of which each case of the kind has one.
func (all mutants) check(t *testing.T, kind string, make func(*testing.T, bug) *model, o check.Options, skipped ...string) {
	t.Helper()
	run := func(t *testing.T, b bug, only []string) *check.Report {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		opts := o
		opts.Engine = true
		if only != nil {
			opts.Only = only
		}
		r, err := check.Run(ctx, serve(t, make(t, b)), opts)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Run("right", func(t *testing.T) {
		t.Parallel()
		r := run(t, "", nil)
		if r.Verdict != check.Conforms || len(r.Left()) > 0 {
			t.Errorf("%s, left %q", r.Summary(), r.Left())
		}
		for _, result := range r.Results {
			if result.Outcome != check.Pass && (result.Outcome != check.Skipped || !slices.Contains(skipped, result.ID)) {
				t.Errorf("%s: %s: %q, %v", result.ID, result.Outcome, result.Reasons, result.Evidence)
			}
		}
	})
	found := map[string]bool{}
	for _, b := range slices.Sorted(maps.Keys(all)) {
		for _, id := range all[b] {
			found[id] = true
		}
		t.Run(strings.ReplaceAll(string(b), " ", "_"), func(t *testing.T) {
			t.Parallel()
			r := run(t, b, all[b])
			if len(r.Results) != len(all[b]) || r.Verdict == check.Conforms {
				t.Errorf("%d results for %d cases, verdict %s", len(r.Results), len(all[b]), r.Verdict)
			}
			for _, result := range r.Results {
				if result.Outcome != check.Fail && result.Outcome != check.Broken {
					t.Errorf("%s does not find it: %s %q", result.ID, result.Outcome, result.Reasons)
				} else if len(result.Evidence) == 0 {
					t.Errorf("%s shows no call: %q", result.ID, result.Reasons)
				}
			}
		})
	}
	for _, c := range check.Cases() {
		if c.Kind == kind && !found[c.ID] {
			t.Errorf("no mistake is made that case %s must find", c.ID)
		}
	}
}

func text(req object, key string) string {
	s, _ := req[key].(string)
	return s
}
