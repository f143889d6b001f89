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
// The suite runs on the authorizer itself ("direct"), and then through its Handler over a
// unix socket ("wire"). There each example is sent in every spelling in which an engine takes it for
// the same request; each way in which an authorization plugin was got round before is a
// case by name. What needs nothing but the socket is in package check, for plugins by others
// too, and is called Check… here. A goroutine, a file descriptor or a mount that is left
// behind fails a case.
package authztest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/authz"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
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

// Run runs every case as a subtest of t. It must not run beside other tests of the same
// process, which could be taken for leaks.
func Run(t *testing.T, c Config) {
	t.Helper()
	if c.New == nil || len(c.Allowed) == 0 || len(c.Denied) == 0 {
		t.Fatal("authztest: New, Allowed and Denied are all needed")
	}
	if c.Options.Logger == nil {
		c.Options.Logger = logger(t)
	}
	direct := map[string]func(*testing.T, *subject){
		"Examples": examples, "Again": again, "UnknownRoute": unknownRoute, "UnknownMethod": unknownMethod, "EmptyRequest": emptyRequest,
		"Concurrent": concurrent, "Canceled": canceled, "RequestUnchanged": unchanged, "Message": message, "EmptyResponse": emptyResponse,
		"LongBody": longBody,
	}
	overWire := map[string]func(*testing.T, *subject){
		"Activate": activate, "Allowed": wireAllowed, "Denied": wireDenied, "PathSpellings": pathSpellings,
		"DuplicateKeys": duplicateKeys, "ContentType": contentType, "FormBody": formBody, "TrailingJSON": trailingJSON,
	}
	cases := suitetest.Suite[Config]{Name: "authztest", Direct: []suitetest.Cases[Config]{{}}, Wire: []suitetest.Cases[Config]{{}, checks()}}
	for name, run := range direct {
		cases.Direct[0][name] = func(t *testing.T, c Config) { run(t, &subject{Config: c, authorizer: c.New(t)}) }
	}
	for name, run := range overWire {
		cases.Wire[0][name] = func(t *testing.T, c Config) {
			s := &subject{Config: c, authorizer: c.New(t)}
			var stop func()
			s.client, stop = suitetest.Serve(t, suitetest.Socket(t), authz.NewHandler(s.authorizer, c.Options), c.Options.Logger, 30*time.Second)
			t.Cleanup(stop)
			run(t, s)
		}
	}
	cases.Run(t, c, c.Deviates)
}

// subject is what one case is about.
type subject struct {
	Config
	authorizer authz.Authorizer
	client     *client.Client // in the cases over the wire
}

// ask asks the authorizer itself about an example.
func (s *subject) ask(t *testing.T, e Example) authz.Decision {
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
func (s *subject) check(t *testing.T) {
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

// longBody: what a body asks for is not past its end, wherever an authorizer stops reading.
func longBody(t *testing.T, s *subject) {
	s.bodies(t, func(e Example, _ map[string]json.RawMessage) {
		for _, n := range []int{4 << 20, 4<<20 + 1} {
			behind, inFront := padded(e.Body, n)
			for where, body := range map[string]string{"behind it": behind, "in front of it": inFront} {
				long := e
				long.Body = body
				if s.ask(t, long).Allowed() {
					t.Errorf("%s, with padding to %d bytes %s: allowed", e, n, where)
				}
			}
		}
	})
}

func examples(t *testing.T, s *subject) { s.check(t) }

// again: nothing is decided by how often it was asked. An engine asks twice about a call
// whose answer was lost.
func again(t *testing.T, s *subject) {
	s.check(t)
	s.check(t)
}

// unknownRoute: an engine of tomorrow has routes that no rule of today knows.
func unknownRoute(t *testing.T, s *subject) {
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

func unknownMethod(t *testing.T, s *subject) {
	for _, e := range s.Denied {
		e.Method = "REMORA"
		if s.ask(t, e).Allowed() {
			t.Errorf("%s: allowed", e)
		}
	}
}

func emptyRequest(t *testing.T, s *subject) {
	if d, err := s.authorizer.Authorize(t.Context(), &authz.Request{Query: url.Values{}, Headers: http.Header{}}); err == nil && d.Allowed() {
		t.Error("allowed")
	}
}

// concurrent is for the race detector, too.
func concurrent(t *testing.T, s *subject) {
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { s.check(t) })
	}
	wg.Wait()
}

// canceled: when nobody waits any more the authorizer stops soon.
func canceled(t *testing.T, s *subject) {
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
func unchanged(t *testing.T, s *subject) {
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
func message(t *testing.T, s *subject) {
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
func emptyResponse(t *testing.T, s *subject) {
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
