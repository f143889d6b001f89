// Package authztest holds an authorizer to what an engine, and those who attack one,
// will ask of it. A test hooks up with examples of what must be denied and allowed:
//
//	func TestConformance(t *testing.T) {
//		authztest.Run(t, authztest.Config{
//			New:     func(*testing.T) authz.Authorizer { return readOnly{} },
//			Allowed: []authztest.Example{{Method: "GET", Target: "/containers/json"}},
//			Denied: []authztest.Example{{
//				Method: "POST", Target: "/containers/create", Body: `{"HostConfig":{"Privileged":true}}`,
//			}},
//		})
//	}
//
// The suite runs on the authorizer itself, and then through its Handler over a unix
// socket. There each example is sent in every spelling in which an engine takes it for
// the same request; each way in which an authorization plugin was got round before is a
// case by name.
package authztest

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/authz"
	"github.com/remora-plugins/remora/sdk/client"
)

// Config says what is tested.
type Config struct {
	// New makes the authorizer. It is called for each case.
	New func(t *testing.T) authz.Authorizer
	// Allowed and Denied are examples of requests that must be so; at least one of each.
	// A denied one whose denial lies in its body makes the most of the suite.
	Allowed, Denied []Example
	// Options are those of the Handler; Logger and Observe may stay nil.
	Options authz.Options
	// Deviates names cases that the authorizer fails on purpose, each with its reason,
	// with which it is skipped.
	Deviates map[string]string
}

// Example is a request to the API of an engine.
type Example struct {
	// User is the name in the client's certificate, "" for one on the unix socket.
	User string
	// Method is an HTTP method.
	Method string
	// Target is the path, without a version, and perhaps a query.
	Target string
	// Body is the JSON body, "" for none.
	Body string
}

func (e Example) String() string { return e.Method + " " + e.Target }

// slow bounds one decision about an example, and one about a request nobody waits for.
const slow = 5 * time.Second

// Run runs the suite.
func Run(t *testing.T, c Config) {
	t.Helper()
	if c.New == nil || len(c.Allowed) == 0 || len(c.Denied) == 0 {
		t.Fatal("authztest: New, Allowed and Denied are all needed")
	}
	if c.Options.Logger == nil {
		c.Options.Logger = logger(t)
	}
	direct := map[string]func(*testing.T, *suite){
		"Examples": examples, "Again": again, "UnknownRoute": unknownRoute, "UnknownMethod": unknownMethod, "EmptyRequest": emptyRequest,
		"Concurrent": concurrent, "Canceled": canceled, "RequestUnchanged": unchanged, "Message": message, "EmptyResponse": emptyResponse,
	}
	overWire := map[string]func(*testing.T, *suite){
		"Activate": activate, "Allowed": wireAllowed, "Denied": wireDenied, "PathSpellings": pathSpellings, "KeySpellings": keySpellings,
		"DuplicateKeys": duplicateKeys, "MissingBody": missingBody, "BodyAboveLimit": bodyAboveLimit, "ChunkedBody": chunkedBody,
		"ContentType": contentType, "FormBody": formBody, "TrailingJSON": trailingJSON, "FourMiB": fourMiB,
		"EmptyCall": emptyCall, "WireConcurrent": wireConcurrent,
	}
	for _, part := range []struct {
		name  string
		cases map[string]func(*testing.T, *suite)
	}{{"Direct", direct}, {"Wire", overWire}} {
		t.Run(part.name, func(t *testing.T) {
			for _, name := range slices.Sorted(maps.Keys(part.cases)) {
				t.Run(name, func(t *testing.T) {
					if reason, ok := c.Deviates[name]; ok {
						t.Skipf("deviates: %s", reason)
					}
					s := &suite{Config: c, authorizer: c.New(t)}
					if part.name == "Wire" {
						s.serve(t)
					}
					part.cases[name](t, s)
				})
			}
		})
	}
}

// suite is one case at work.
type suite struct {
	Config
	authorizer authz.Authorizer
	client     *client.Client // in the cases over the wire
}

// serve puts the authorizer behind its Handler on a socket.
func (s *suite) serve(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "authz") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s.sock")
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- sdk.Serve(ctx, l, authz.NewHandler(s.authorizer, s.Options)) }()
	s.client, err = client.New(client.Endpoint{Name: "authztest", Addr: "unix://" + socket}, client.Options{Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server did not stop: %v", err)
		}
	})
}

// ask asks the authorizer itself about an example.
func (s *suite) ask(t *testing.T, e Example) authz.Decision {
	t.Helper()
	r, err := authz.NewRequest(e.Method, e.Target, []byte(e.Body))
	if err != nil {
		t.Fatalf("%s: %v", e, err)
	}
	if r.User = e.User; e.User != "" {
		r.AuthMethod = "TLS"
	}
	start := time.Now()
	d, err := s.authorizer.Authorize(t.Context(), r)
	if took := time.Since(start); took > slow {
		t.Errorf("%s: decided after %v; every command of every user waits for that", e, took)
	}
	if err != nil {
		return authz.Deny(err.Error())
	}
	return d
}

// check asks about every example.
func (s *suite) check(t *testing.T) {
	t.Helper()
	for _, e := range s.Allowed {
		if d := s.ask(t, e); !d.Allowed() {
			t.Errorf("%s: denied: %s", e, d.Message())
		}
	}
	for _, e := range s.Denied {
		if s.ask(t, e).Allowed() {
			t.Errorf("%s: allowed", e)
		}
	}
}

func examples(t *testing.T, s *suite) { s.check(t) }

// again: nothing is decided by how often it was asked. An engine asks twice about a call
// whose answer was lost.
func again(t *testing.T, s *suite) {
	s.check(t)
	s.check(t)
}

// unknownRoute: an engine of tomorrow has routes that no rule of today knows.
func unknownRoute(t *testing.T, s *suite) {
	for _, e := range []Example{
		{Method: "POST", Target: "/remora-unknown", Body: "{}"},
		{Method: "GET", Target: "/remora-unknown"},
		{Method: "POST", Target: "/containers/x/remora-unknown", Body: "{}"},
		{Method: "DELETE", Target: "/remora-unknown/x"},
	} {
		if s.ask(t, e).Allowed() {
			t.Errorf("%s: allowed; list what is safe and deny the rest", e)
		}
	}
}

func unknownMethod(t *testing.T, s *suite) {
	for _, e := range s.Denied {
		e.Method = "REMORA"
		if s.ask(t, e).Allowed() {
			t.Errorf("%s: allowed", e)
		}
	}
}

func emptyRequest(t *testing.T, s *suite) {
	if d, err := s.authorizer.Authorize(t.Context(), &authz.Request{Query: url.Values{}, Headers: http.Header{}}); err == nil && d.Allowed() {
		t.Error("allowed")
	}
}

// concurrent is for the race detector, too.
func concurrent(t *testing.T, s *suite) {
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { s.check(t) })
	}
	wg.Wait()
}

// canceled: when nobody waits any more the authorizer stops soon.
func canceled(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := authz.NewRequest(s.Denied[0].Method, s.Denied[0].Target, []byte(s.Denied[0].Body))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 1)
	go func() {
		d, err := s.authorizer.Authorize(ctx, r)
		done <- err == nil && d.Allowed()
	}()
	select {
	case allowed := <-done:
		if allowed {
			t.Error("a request that is denied was allowed when its context had ended")
		}
	case <-time.After(slow):
		t.Errorf("still at work %v after the context ended", slow)
	}
}

// unchanged: the Handler shows the same request again beside the answer, and logs it.
func unchanged(t *testing.T, s *suite) {
	for _, e := range slices.Concat(s.Allowed, s.Denied) {
		var r [2]*authz.Request
		for i := range r {
			var err error
			if r[i], err = authz.NewRequest(e.Method, e.Target, []byte(e.Body)); err != nil {
				t.Fatal(err)
			}
			r[i].User = e.User
		}
		_, _ = s.authorizer.Authorize(t.Context(), r[0]) // Examples looks at the decision
		if !reflect.DeepEqual(r[0], r[1]) {
			t.Errorf("%s: the request was changed", e)
		}
	}
}

// message: whoever is denied should read why.
func message(t *testing.T, s *suite) {
	for _, e := range s.Denied {
		msg := s.ask(t, e).Message()
		if msg == "" || msg == (authz.Decision{}).Message() {
			t.Errorf("%s: denied without a reason", e)
		}
		if strings.ContainsAny(msg, "\r\n") {
			t.Errorf("%s: the reason is on several lines: %q", e, msg)
		}
	}
}

// emptyResponse is what is shown of an answer that is streaming already.
func emptyResponse(t *testing.T, s *suite) {
	a, ok := s.authorizer.(authz.ResponseAuthorizer)
	if !ok {
		return
	}
	for _, e := range slices.Concat(s.Allowed, s.Denied) {
		r, err := authz.NewRequest(e.Method, e.Target, []byte(e.Body))
		if err != nil {
			t.Fatal(err)
		}
		for _, answer := range []*authz.Response{{}, {Status: 200, Body: []byte(`{"Id":`)}, {Status: 500, Body: []byte("null")}} {
			_, _ = a.AuthorizeResponse(t.Context(), r, answer) // a panic fails
		}
	}
}
