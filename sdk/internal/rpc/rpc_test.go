package rpc_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
	"github.com/remora-plugins/remora/sdk/internal/rpc"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

type request struct{ Name string }

type answer struct{ Got string }

// watched has a method that answers with what it was asked, or with err, and remembers
// the calls that were observed.
type watched struct {
	h     http.Handler
	err   error
	ran   int
	calls []sdk.Call
	log   bytes.Buffer
}

func watch(m rpc.Method) *watched {
	w := &watched{}
	if m.Name == "" {
		m.Name = "Some.Method"
	}
	hooks := rpc.Hooks{
		Logger:  slog.New(slog.NewTextHandler(&w.log, nil)),
		Observe: func(_ context.Context, c sdk.Call) { w.calls = append(w.calls, c) },
	}
	w.h = rpc.Handle(hooks, m, func(r *request) string { return r.Name }, func(_ context.Context, r *request) (answer, error) {
		w.ran++
		if r.Name == "panic" {
			panic("the driver's secret")
		}
		return answer{r.Name}, w.err
	})
	return w
}

// send makes one call and checks that the observer was told once.
func (w *watched) send(t *testing.T, method string, body io.Reader) *httptest.ResponseRecorder {
	t.Helper()
	before := len(w.calls)
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, httptest.NewRequest(method, "/Some.Method", body))
	if n := len(w.calls) - before; n != 1 {
		t.Errorf("the observer was told %d times", n)
	}
	return rec
}

// unsized is a body whose length is not known beforehand.
func unsized(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }

func TestRequests(t *testing.T) {
	large := `{"Name":"` + strings.Repeat("x", 100) + `"}`
	tests := []struct {
		name   string
		m      rpc.Method
		method string
		body   io.Reader
		status int
		text   string // of the answer, or of its Err
	}{
		{name: "right", body: strings.NewReader(`{"Name":"v"}` + "\n"), status: 200, text: `{"Got":"v"}` + "\n"},
		{name: "chunked", body: unsized(`{"Name":"v"}`), status: 200, text: `{"Got":"v"}` + "\n"},
		{name: "other case, unknown field", body: strings.NewReader(`{"name":"v","More":[1]}`), status: 200, text: `{"Got":"v"}` + "\n"},
		{name: "null", body: strings.NewReader("null"), status: 200, text: `{"Got":""}` + "\n"},
		{name: "GET", method: "GET", status: 405, text: `Some.Method: use POST, not "GET"`},
		{name: "a long word for a method", method: strings.Repeat("X", 99), status: 405, text: `Some.Method: use POST, not "XXXXXXXXXXXXXXXXXXXX"`},
		{name: "empty", status: 400, text: "Some.Method: request without a body, nothing was done (an engine repeats a call in this way when the answer was lost; try again)"},
		{name: "empty, chunked", body: unsized(""), status: 400, text: "Some.Method: request without a body, nothing was done (an engine repeats a call in this way when the answer was lost; try again)"},
		{name: "spaces", body: strings.NewReader(" \n"), status: 400, text: "Some.Method: request without a body, nothing was done (an engine repeats a call in this way when the answer was lost; try again)"},
		{name: "empty where there is no argument", m: rpc.Method{NoArgument: true}, status: 200, text: `{"Got":""}` + "\n"},
		{name: "an argument where none is needed", m: rpc.Method{NoArgument: true}, body: strings.NewReader("{}"), status: 200, text: `{"Got":""}` + "\n"},
		{name: "garbage", body: strings.NewReader("\x00\xff"), status: 400, text: `Some.Method: request is not the JSON of this method: invalid character '\x00' looking for beginning of value`},
		{name: "two values", body: strings.NewReader(`{"Name":"v"}{"Name":"w"}`), status: 400, text: "Some.Method: request is not the JSON of this method: invalid character '{' after top-level value"},
		{name: "wrong type", body: strings.NewReader(`{"Name":7}`), status: 400, text: "Some.Method: request is not the JSON of this method: json: cannot unmarshal number into Go struct field request.Name of type string"},
		{name: "as large as may be", m: rpc.Method{MaxBody: int64(len(large))}, body: unsized(large), status: 200, text: `{"Got":"` + strings.Repeat("x", 100) + `"}` + "\n"},
		{name: "larger", m: rpc.Method{MaxBody: int64(len(large)) - 1}, body: strings.NewReader(large), status: 413, text: "Some.Method: request is larger than 110 bytes"},
		{name: "larger, chunked", m: rpc.Method{MaxBody: int64(len(large)) - 1}, body: unsized(large), status: 413, text: "Some.Method: request is larger than 110 bytes"},
		{name: "larger than the default", body: unsized(`{"Name":"` + strings.Repeat("x", rpc.DefaultMaxBody) + `"}`), status: 413, text: "Some.Method: request is larger than 1048576 bytes"},
		{name: "breaks off", body: io.MultiReader(strings.NewReader(`{"Na`), broken{}), status: 400, text: "Some.Method: read request: the line broke"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := watch(tt.m)
			method := tt.method
			if method == "" {
				method = http.MethodPost
			}
			rec := w.send(t, method, tt.body)
			got := rec.Body.String()
			if tt.status != 200 {
				var e wire.Error
				if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil {
					t.Errorf("body %q: %v", got, err)
				}
				got = e.Err
				if c := rec.Header().Get(wire.ClassHeader); c != "invalid" {
					t.Errorf("class %q, want invalid", c)
				}
				if w.ran != 0 || !errors.Is(w.calls[0].Err, errdefs.ErrInvalid) {
					t.Errorf("ran %d times, observed %v", w.ran, w.calls[0].Err)
				}
			}
			if rec.Code != tt.status || got != tt.text {
				t.Errorf("status %d, want %d (-want +got):\n%s", rec.Code, tt.status, cmp.Diff(tt.text, got))
			}
			if ct, cl := rec.Header().Get("Content-Type"), rec.Header().Get("Content-Length"); ct != wire.MediaType || cl != fmt.Sprint(rec.Body.Len()) {
				t.Errorf("Content-Type %q, Content-Length %q of %d bytes", ct, cl, rec.Body.Len())
			}
			if (tt.status == 405) != (rec.Header().Get("Allow") == "POST") {
				t.Errorf("Allow: %q with status %d", rec.Header().Get("Allow"), tt.status)
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the line broke") }

func TestErrorsOfMethods(t *testing.T) {
	ipam := func(text string) any { return wire.IpamError{Error: text, Err: text} }
	tests := []struct {
		name  string
		m     rpc.Method
		err   error
		body  string
		class string
		level string
	}{
		{"no class", rpc.Method{}, errors.New("e"), `{"Err":"e"}`, "internal", "ERROR"},
		{"a class", rpc.Method{}, errdefs.Errorf(errdefs.ErrInUse, "held"), `{"Err":"held"}`, "in-use", "INFO"},
		{"out of reach", rpc.Method{}, errdefs.Errorf(errdefs.ErrUnavailable, "gone"), `{"Err":"gone"}`, "unavailable", "WARN"},
		{"late", rpc.Method{}, fmt.Errorf("late: %w", context.DeadlineExceeded), `{"Err":"late: context deadline exceeded"}`, "timeout", "WARN"},
		{"lines", rpc.Method{}, errors.New("mount:\r\n  bad\n\n superblock \n"), `{"Err":"mount:; bad; superblock"}`, "internal", "ERROR"},
		{"a hint stays here", rpc.Method{}, errdefs.Hint(errors.New("e"), "Pay the bill."), `{"Err":"e"}`, "internal", "ERROR"},
		{"hints go along", rpc.Method{Advise: true}, errdefs.Hint(errdefs.Hint(errors.New("e"), "or\nleave"), "pay"), `{"Err":"e; pay; or; leave"}`, "internal", "ERROR"},
		{"IPAM", rpc.Method{ErrorBody: ipam}, errors.New("e"), `{"Error":"e","Err":"e"}`, "internal", "ERROR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := watch(tt.m)
			w.err = tt.err
			rec := w.send(t, http.MethodPost, strings.NewReader(`{"Name":"v"}`))
			if rec.Code != 500 || rec.Body.String() != tt.body+"\n" || rec.Header().Get(wire.ClassHeader) != tt.class {
				t.Errorf("status %d, class %q, body %s; want 500, %q, %s", rec.Code, rec.Header().Get(wire.ClassHeader), rec.Body, tt.class, tt.body)
			}
			if c := w.calls[0]; c.Method != "Some.Method" || c.Object != "v" || !errors.Is(c.Err, tt.err) {
				t.Errorf("observed %+v", c)
			}
			log := w.log.String()
			if strings.Count(log, "\n") != 1 || !strings.Contains(log, "level="+tt.level) || !strings.Contains(log, "object=v") || !strings.Contains(log, "class="+tt.class) {
				t.Errorf("log: %s", log)
			}
			if hints := errdefs.Hints(tt.err); len(hints) > 0 && !strings.Contains(log, hints[0]) {
				t.Errorf("no hint in the log: %s", log)
			}
		})
	}
}

func TestPanic(t *testing.T) {
	w := watch(rpc.Method{})
	rec := w.send(t, http.MethodPost, strings.NewReader(`{"Name":"panic"}`))
	if rec.Code != 500 || rec.Body.String() != `{"Err":"Some.Method: internal error: the plugin panicked, its log says where"}`+"\n" {
		t.Errorf("status %d, body %s", rec.Code, rec.Body)
	}
	if log := w.log.String(); strings.Contains(log, "the driver's secret") || !strings.Contains(log, "panic=string") || !strings.Contains(log, "rpc_test.go") {
		t.Errorf("the log does not say where, or shows a secret: %s", log)
	}
	if rec := w.send(t, http.MethodPost, strings.NewReader(`{"Name":"v"}`)); rec.Code != 200 {
		t.Errorf("afterwards: status %d", rec.Code)
	}
}

// TestNoAnswer: the caller sees a connection that ends, and the observer an error.
func TestNoAnswer(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		m          rpc.Method
		err        error
	}{
		{"of the method", `{"Name":"v"}`, rpc.Method{}, fmt.Errorf("out of reach: %w", rpc.ErrNoAnswer)},
		{"a repetition", "", rpc.Method{EmptyIsLost: true}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := watch(tt.m)
			w.err = tt.err
			s := httptest.NewServer(w.h)
			resp, err := http.Post(s.URL, "", strings.NewReader(tt.body))
			if err == nil {
				resp.Body.Close()
				t.Errorf("status %d, want no answer", resp.StatusCode)
			}
			s.Close() // and the handler is done
			if len(w.calls) != 1 || !errors.Is(w.calls[0].Err, rpc.ErrNoAnswer) {
				t.Errorf("observed %+v", w.calls)
			}
		})
	}
}

func TestAnswersThatCannotBeEncoded(t *testing.T) {
	h := rpc.Handle(rpc.Hooks{}, rpc.Method{Name: "Some.Method", NoArgument: true}, nil,
		func(context.Context, *struct{}) (func(), error) { return nil, nil })
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", nil))
	if rec.Code != 500 || !strings.Contains(rec.Body.String(), "encode answer: json: unsupported type: func()") {
		t.Errorf("status %d, body %s", rec.Code, rec.Body)
	}
	h = rpc.Handle(rpc.Hooks{}, rpc.Method{Name: "Some.Method", NoArgument: true}, nil,
		func(context.Context, *struct{}) (rpc.Raw, error) { return rpc.Raw("[1]\n"), nil })
	rec = httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", nil))
	if rec.Code != 200 || rec.Body.String() != "[1]\n" {
		t.Errorf("raw: status %d, body %s", rec.Code, rec.Body)
	}
}

// listener hands out one end of a pipe and then waits until it is closed.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l listener) Close() error   { close(l.done); return nil }
func (l listener) Addr() net.Addr { return &net.UnixAddr{} }

// TestSlowBody: a caller that does not go on sending is told so after 30 seconds.
func TestSlowBody(t *testing.T) {
	for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		synctest.Test(t, func(t *testing.T) {
			w := watch(rpc.Method{})
			here, there := net.Pipe()
			l := listener{make(chan net.Conn, 1), make(chan struct{})}
			l.conns <- there
			s := &http.Server{Handler: w.h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
			go s.Serve(l)
			start := time.Now()
			go io.WriteString(here, "POST / HTTP/1.1\r\nHost: x\r\n"+length+"\r\n\r\n1\r\n{\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(here), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 400 || !strings.Contains(string(body), "Some.Method: read request: ") || !strings.Contains(string(body), "timeout") {
				t.Errorf("%s: status %d: %s", length, resp.StatusCode, body)
			}
			if took := time.Since(start); took != 30*time.Second {
				t.Errorf("%s: after %s, want 30s", length, took)
			}
			here.Close()
			s.Close()
		})
	}
}

// FuzzHandle feeds any method and body: the answer is always JSON with a status that fits,
// errors are on one line, and the driver runs only for what is JSON by POST.
func FuzzHandle(f *testing.F) {
	f.Add("POST", []byte(`{"Name":"v"}`), true)
	f.Add("POST", []byte("{\"Name\":\"\\u0000\\n\"}"), false)
	f.Add("GET", []byte{}, false)
	f.Add("DELETE", []byte("[[[["), true)
	f.Fuzz(func(t *testing.T, method string, body []byte, chunked bool) {
		r, err := http.NewRequest(method, "http://x/Some.Method", bytes.NewReader(body))
		if err != nil || strings.Contains(string(body), "panic") {
			return
		}
		if chunked {
			r.ContentLength = -1
		}
		for _, m := range []rpc.Method{{}, {NoArgument: true}, {MaxBody: 10}} {
			w := watch(m)
			rec := httptest.NewRecorder()
			w.h.ServeHTTP(rec, r.Clone(t.Context()))
			if !json.Valid(rec.Body.Bytes()) || rec.Code != 200 && rec.Code != 400 && rec.Code != 405 && rec.Code != 413 {
				t.Errorf("status %d, body %q", rec.Code, rec.Body)
			}
			if w.ran > 0 != (rec.Code == 200) || w.ran > 0 && r.Method != "POST" || len(w.calls) != 1 {
				t.Errorf("ran %d times with status %d after %s", w.ran, rec.Code, r.Method)
			}
			var e wire.Error
			if rec.Code != 200 && (json.Unmarshal(rec.Body.Bytes(), &e) != nil || e.Err == "" || strings.ContainsAny(e.Err, "\r\n")) {
				t.Errorf("error %q", rec.Body)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
	})
}

// TestLateAnswer: a caller is answered while its call is still in a driver that hangs, and
// told not to use the connection again.
func TestLateAnswer(t *testing.T) {
	release, ended := make(chan struct{}), make(chan error, 1)
	runner := &bounded.Runner{Limit: time.Nanosecond, Log: slog.New(slog.DiscardHandler)}
	var calls []sdk.Call
	hooks := rpc.Hooks{Observe: func(_ context.Context, c sdk.Call) { calls = append(calls, c) }}
	h := rpc.Handle(hooks, rpc.Method{Name: "Some.Method"}, nil, func(ctx context.Context, _ *request) (answer, error) {
		_, err := bounded.Run(ctx, runner, "", bounded.Verb[answer]{Name: "hang", Do: func(context.Context) (answer, error) {
			<-release
			return answer{"late"}, nil
		}})
		ended <- err
		return answer{}, err
	})
	s := httptest.NewServer(h)
	resp, err := http.Post(s.URL, "", strings.NewReader(`{"Name":"v"}`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := `{"Err":"hang: gave up after 1ns: the driver does not answer"}` + "\n"; err != nil || resp.StatusCode != 500 || string(body) != want {
		t.Errorf("status %d, %v (-want +got):\n%s", resp.StatusCode, err, cmp.Diff(want, string(body)))
	}
	if !resp.Close || resp.Header.Get(wire.ClassHeader) != "timeout" {
		t.Errorf("close %t, class %q", resp.Close, resp.Header.Get(wire.ClassHeader))
	}
	close(release)
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call ended with %v", err)
	}
	s.Close()
	if len(calls) != 1 || !errors.Is(calls[0].Err, context.DeadlineExceeded) {
		t.Errorf("observed %+v", calls)
	}
}
