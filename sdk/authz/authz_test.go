package authz

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// always decides alike about everything.
func always(d Decision, err error) Func {
	return func(context.Context, *Request) (Decision, error) { return d, err }
}

// both decides about requests and answers by two functions.
type both struct {
	Func
	response func(context.Context, *Request, *Response) (Decision, error)
}

func (b both) AuthorizeResponse(ctx context.Context, r *Request, a *Response) (Decision, error) {
	return b.response(ctx, r, a)
}

// call sends one call to h and returns status and answer as an engine reads them.
func send(ctx context.Context, t *testing.T, h *Handler, method string, body any) (int, wire.AuthZResponse) {
	t.Helper()
	b, ok := body.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+method, bytes.NewReader(b))
	w := httptest.NewRecorder()
	h.Methods()[method].ServeHTTP(w, r)
	var a wire.AuthZResponse
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("status %d, answer %q: %v", w.Code, w.Body, err)
	}
	return w.Code, a
}

func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

var ping = wire.AuthZRequest{RequestMethod: "GET", RequestURI: "/_ping"}

// TestAnswers has a row for each thing that can come of a question, and what an engine
// makes of the answer: 200 with Allow passes, 200 without is shown as 403 with Msg,
// another status as 500 with Err. Only the first lets a request through.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		a      Authorizer
		req    any
		status int
		want   wire.AuthZResponse
	}{
		{"allow", always(Allow(), nil), ping, 200, wire.AuthZResponse{Allow: true}},
		{"deny", always(Deny("only on Fridays"), nil), ping, 200, wire.AuthZResponse{Msg: "only on Fridays"}},
		{"deny without a reason", always(Deny(""), nil), ping, 200, wire.AuthZResponse{Msg: "not allowed"}},
		{"zero decision", always(Decision{}, nil), ping, 200, wire.AuthZResponse{Msg: "not allowed"}},
		{"error", always(Decision{}, errors.New("database is away")), ping, 500, wire.AuthZResponse{Err: "database is away"}},
		{"error beside an allow", always(Allow(), errors.New("database is away")), ping, 500, wire.AuthZResponse{Err: "database is away"}},
		{"error that denies", always(Allow(), errdefs.Errorf(errdefs.ErrDenied, "not you")), ping, 200, wire.AuthZResponse{Msg: "not you"}},
		{"error that finds the request wrong", always(Allow(), errdefs.Errorf(errdefs.ErrInvalid, "body: missing")), ping, 200, wire.AuthZResponse{Msg: "body: missing"}},
		{
			"panic", Func(func(context.Context, *Request) (Decision, error) { panic("oh") }), ping,
			500,
			wire.AuthZResponse{Err: "internal error: the authorizer panicked, its log says where"},
		},
		{
			"goroutine ended", Func(func(context.Context, *Request) (Decision, error) { runtime.Goexit(); return Allow(), nil }), ping,
			500,
			wire.AuthZResponse{Err: "internal error: the authorizer ended its goroutine"},
		},
		{"nil function", Func(nil), ping, 500, wire.AuthZResponse{Err: "internal error: the authorizer panicked, its log says where"}},
		{"message on several lines", always(Deny("a\r\nb\x1b[31mc\x00"), nil), ping, 200, wire.AuthZResponse{Msg: "a; b [31mc "}},
		{"password in a message", always(Deny(`ask https://u:s3cret@opa/x`), nil), ping, 200, wire.AuthZResponse{Msg: "ask https://REDACTED@opa/x"}},
		{
			"password in an error", always(Decision{}, errors.New(`Get "https://u:s3cret@opa/x": refused`)), ping,
			500,
			wire.AuthZResponse{Err: `Get "https://REDACTED@opa/x": refused`},
		},
		{"no method", always(Allow(), nil), wire.AuthZRequest{RequestURI: "/info"}, 200, wire.AuthZResponse{Msg: "request: no method"}},
		{
			"no target", always(Allow(), nil),
			wire.AuthZRequest{RequestMethod: "GET"},
			200,
			wire.AuthZResponse{Msg: "request target: not a URL path"},
		},
		{
			"empty body, as of a retry", always(Allow(), nil),
			[]byte{},
			400,
			wire.AuthZResponse{Err: "AuthZPlugin.AuthZReq: request without a body, nothing was done (an engine repeats a call in this way when the answer was lost; try again)"},
		},
		{"null", always(Allow(), nil), []byte("null"), 200, wire.AuthZResponse{Msg: "request: no method"}},
		{"unknown fields", always(Allow(), nil), []byte(`{"RequestMethod":"GET","RequestUri":"/info","New":{}}`), 200, wire.AuthZResponse{Allow: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := NewHandler(tt.a, Options{Logger: logTo(t.Output())})
			status, got := send(t.Context(), t, h, wire.AuthZReq, tt.req)
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLongMessageIsCut(t *testing.T) {
	_, got := send(t.Context(), t, NewHandler(always(Deny(strings.Repeat("é", 4096)), nil), Options{}), wire.AuthZReq, ping)
	if len(got.Msg) > maxMessage+len("…") || !strings.HasSuffix(got.Msg, "é…") {
		t.Errorf("message of %d bytes ends in %q", len(got.Msg), got.Msg[len(got.Msg)-8:])
	}
}

func TestResponses(t *testing.T) {
	res := ping
	res.ResponseStatusCode, res.ResponseBody = 200, []byte(`{"ID":"x"}`)
	res.ResponseHeaders = map[string]string{"Api-Version": "1.41"}

	t.Run("without a ResponseAuthorizer every answer passes", func(t *testing.T) {
		_, got := send(t.Context(), t, NewHandler(always(Deny("no"), nil), Options{}), wire.AuthZRes, res)
		if !got.Allow {
			t.Errorf("denied: %q", got.Msg)
		}
	})
	t.Run("what it is shown", func(t *testing.T) {
		var r *Request
		var a *Response
		h := NewHandler(both{always(Allow(), nil), func(_ context.Context, req *Request, answer *Response) (Decision, error) {
			r, a = req, answer
			return Deny("hidden"), nil
		}}, Options{})
		_, got := send(t.Context(), t, h, wire.AuthZRes, res)
		if got.Allow || got.Msg != "hidden" {
			t.Errorf("answered %+v", got)
		}
		if r.Path != "/_ping" || a.Status != 200 || string(a.Body) != `{"ID":"x"}` || a.Headers.Get("api-version") != "1.41" {
			t.Errorf("was shown %+v and %+v", r, a)
		}
	})
	t.Run("panic", func(t *testing.T) {
		h := NewHandler(both{always(Allow(), nil), func(context.Context, *Request, *Response) (Decision, error) { panic("oh") }}, Options{})
		if status, got := send(t.Context(), t, h, wire.AuthZRes, res); status != 500 || got.Allow {
			t.Errorf("status %d, answer %+v", status, got)
		}
	})
}

func TestTimeoutDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over time.Duration
		start := time.Now()
		h := NewHandler(Func(func(ctx context.Context, _ *Request) (Decision, error) {
			<-ctx.Done()
			over = time.Since(start)
			time.Sleep(time.Hour) // deaf to what was said
			return Allow(), nil
		}), Options{})
		status, got := send(t.Context(), t, h, wire.AuthZReq, ping)
		if took := time.Since(start); took != DefaultTimeout {
			t.Errorf("answered after %v", took)
		}
		if status != 500 || got.Allow || got.Err != "no decision within 10s" {
			t.Errorf("status %d, answer %+v", status, got)
		}
		time.Sleep(2 * time.Hour) // until the goroutine is over
		synctest.Wait()
		if over != DefaultTimeout {
			t.Errorf("context ended after %v", over)
		}
	})
}

func TestEngineHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := NewHandler(Func(func(context.Context, *Request) (Decision, error) {
			cancel()
			time.Sleep(time.Second) // deaf to what was said
			return Allow(), nil
		}), Options{})
		start := time.Now()
		status, got := send(ctx, t, h, wire.AuthZReq, ping)
		if status != 500 || got.Err != "the engine hung up: context canceled" {
			t.Errorf("status %d, answer %+v", status, got)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("went on for %v", took)
		}
		time.Sleep(time.Minute) // until the goroutine is over
	})
}

func TestObserver(t *testing.T) {
	var calls []sdk.Call
	observe := func(_ context.Context, c sdk.Call) { calls = append(calls, c) }
	for _, tt := range []struct {
		a     Func
		class error
	}{
		{always(Allow(), nil), nil},
		{always(Deny("no"), nil), errdefs.ErrDenied},
		{always(Decision{}, errdefs.Errorf(errdefs.ErrUnavailable, "away")), errdefs.ErrUnavailable},
	} {
		calls = nil
		send(t.Context(), t, NewHandler(tt.a, Options{Observe: observe}), wire.AuthZReq,
			wire.AuthZRequest{RequestMethod: "GET", RequestURI: "/v1.41/containers/json?all=1"})
		if len(calls) != 1 {
			t.Fatalf("%d calls were observed", len(calls))
		}
		if c := calls[0]; c.Method != wire.AuthZReq || c.Object != "GET /containers/json" || !errors.Is(errdefs.Class(c.Err), tt.class) {
			t.Errorf("observed %+v", c)
		}
	}
}

func TestCallsRunAtTheSameTime(t *testing.T) {
	const n = 64
	var all sync.WaitGroup
	all.Add(n)
	h := NewHandler(Func(func(context.Context, *Request) (Decision, error) {
		all.Done()
		all.Wait() // ends only when all are here
		return Allow(), nil
	}), Options{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, got := send(t.Context(), t, h, wire.AuthZReq, ping); !got.Allow {
				t.Errorf("denied: %+v", got)
			}
		})
	}
	wg.Wait()
}

// TestNothingSecretIsLogged sends secrets wherever a client may put them, and reads
// everything that the Handler says to anybody but the Authorizer.
func TestNothingSecretIsLogged(t *testing.T) {
	const secret = "s3cret"
	for _, a := range []Func{
		always(Allow(), nil), always(Deny("no"), nil), always(Decision{}, errors.New("away")),
		func(_ context.Context, r *Request) (Decision, error) {
			var v struct{ Password int }
			return Allow(), r.DecodeBody(&v)
		},
		func(_ context.Context, r *Request) (Decision, error) {
			return Decision{}, fmt.Errorf("post http://u:%s@opa/: refused", secret)
		},
	} {
		for _, r := range []wire.AuthZRequest{
			jsonPost("/auth", `{"username":"u","password":"s3cret"}`),
			jsonPost("/v1.41/auth", `{"password":"s3cret"`),
			jsonPost("/containers/create?name=s3cret", `{"password":"s3cret"}`),
			jsonPost("/containers/create?x=%zzs3cret", `{"Env":["P=s3cret"],"Env":[]}`),
			jsonPost("/containers/create", `s3cret`),
			jsonPost("/s3cret%zz", `{}`),
		} {
			r.RequestHeaders["X-Token"] = secret
			var log bytes.Buffer
			h := NewHandler(a, Options{Logger: logTo(&log), Observe: func(_ context.Context, c sdk.Call) { fmt.Fprint(&log, c) }})
			_, got := send(t.Context(), t, h, wire.AuthZReq, r)
			if said := log.String() + got.Msg + got.Err; strings.Contains(said, secret) {
				t.Errorf("%s: a secret got out: %s", r.RequestURI, said)
			}
		}
	}
}

func TestRequestLogsWithoutSecrets(t *testing.T) {
	var log bytes.Buffer
	r := &Request{Method: "POST", Path: "/build", URI: "/build?remote=s3cret", Body: []byte("s3cret"), Headers: http.Header{"A": {"s3cret"}}}
	logTo(&log).InfoContext(t.Context(), "asked", "request", r, "answer", &Response{Status: 200, Body: []byte("s3cret")})
	if said := log.String(); strings.Contains(said, "s3cret") || !strings.Contains(said, "request.path=/build") || !strings.Contains(said, "answer.status=200") {
		t.Error(said)
	}
}

func jsonPost(target, body string) wire.AuthZRequest {
	return wire.AuthZRequest{
		RequestMethod: "POST", RequestURI: target, RequestBody: []byte(body),
		RequestHeaders: map[string]string{"Content-Type": "application/json", "Content-Length": fmt.Sprint(len(body))},
	}
}
