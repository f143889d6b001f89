package check

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/remora-plugins/remora/sdk/client"
)

const mobyAuthz = "moby pkg/authorization/authz.go"

func authzCases() []Case {
	return ofKind(AuthZ, []Case{
		{
			ID: "authz/answers", Basic: true, run: authzAnswers,
			Asserts: "AuthZReq and AuthZRes are answered with a decision.",
			Source:  docAuthz + ", API schema and implementation; moby pkg/authorization/api.go, Response",
		},
		{
			ID: "authz/allowed", run: allowedStays,
			Asserts: "What is allowed is allowed each time that it is asked.",
			Source:  mobyAuthz + ", AuthZRequest; " + mobyClient + ", callWithRetry",
		},
		{
			ID: "authz/denied", run: deniedStays,
			Asserts: "What is denied is denied each time, by a decision with a message for the user, not by a failure.",
			Source:  docAuthz + ", AuthZPlugin.AuthZReq (Allow, Msg); " + mobyAuthz + ", AuthZRequest",
		},
		{
			ID: "authz/path-spellings", run: pathSpellings,
			Asserts: "The decision is about the route, however its path is written: with another version or none, with escapes, or as a whole URL.",
			Source:  docAuthz + ", AuthZPlugin.AuthZReq (RequestUri); moby daemon/server/server.go, CreateMux (gorilla/mux matches the path when its escapes are gone)",
		},
		{
			ID: "authz/at-once", run: authzAtOnce,
			Asserts: "Requests that are asked about at once get the decisions that they get one by one.",
			Source:  docAuthz + ", Basic architecture (each request of the API asks the plugin)",
		},
		{
			ID: "authz/empty-call", run: emptyCall,
			Asserts: "A call without a body is not allowed: it is how an engine repeats a call after its connection broke.",
			Source:  mobyClient + ", callWithRetry",
		},
		{
			ID: "authz/streaming-answer", run: streamingAnswer,
			Asserts: "AuthZRes is answered also when status, headers and body of the answer are not there, or only a part of it is, as they are for what streams.",
			Source:  "moby pkg/authorization/response.go, responseModifier; " + mobyAuthz + ", AuthZResponse",
		},
	})
}

// probes are what most plugins have an opinion about. What each one thinks of them is asked.
var probes = []Request{
	{Method: "GET", Target: "/_ping"},
	{Method: "GET", Target: "/version"},
	{Method: "GET", Target: "/containers/json?all=1"},
	{Method: "GET", Target: "/images/json"},
	{Method: "POST", Target: "/containers/create", Body: `{"Image":"busybox","HostConfig":{"Privileged":true}}`},
	{Method: "POST", Target: "/containers/create", Body: `{"Image":"busybox","HostConfig":{"Binds":["/:/host"]}}`},
	{Method: "POST", Target: "/containers/create", Body: `{"Image":"busybox","HostConfig":{"PidMode":"host","CapAdd":["ALL"]}}`},
	{Method: "POST", Target: "/volumes/create", Body: `{"Name":"x","Driver":"local"}`},
	{Method: "POST", Target: "/containers/x/exec", Body: `{"Cmd":["sh"],"Privileged":true}`},
	{Method: "DELETE", Target: "/containers/x?force=1"},
	{Method: "POST", Target: "/containers/x/stop"},
	{Method: "POST", Target: "/images/create?fromImage=busybox&tag=latest"},
}

// examples returns what is allowed and denied: what the options say, or what the plugin says
// of the probes.
func (t *T) examples() (allow, deny []Request) {
	o := t.p.options
	if len(o.Allow)+len(o.Deny) > 0 {
		return o.Allow, o.Deny
	}
	for _, r := range probes {
		allowed, msg, err := t.ask(r.call())
		switch {
		case unanswered(err):
			t.Fatalf("%s: %w", r, err)
		case allowed:
			allow = append(allow, r)
		case err == nil && msg != "":
			deny = append(deny, r)
		}
	}
	return allow, deny
}

// denials are the examples that are denied; without one there is nothing to be held to.
func (t *T) denials() []Request {
	_, deny := t.examples()
	if len(deny) == 0 {
		t.Skipf("the plugin denies none of the requests that were tried; name one that it denies")
	}
	return deny
}

// call is the request as an engine describes it.
func (r Request) call() client.APIRequest {
	a := client.APIRequest{
		User: r.User, Method: r.Method, URI: "/v1.41" + r.Target, Body: []byte(r.Body), Headers: map[string]string{"User-Agent": "remora-check"},
	}
	if r.User != "" {
		a.AuthMethod = "TLS"
	}
	if r.Body != "" {
		a.Headers["Content-Type"], a.Headers["Content-Length"] = "application/json", strconv.Itoa(len(r.Body))
	} else if r.Method == http.MethodPost || r.Method == http.MethodPut {
		a.Headers["Content-Type"], a.Headers["Content-Length"] = "text/plain", "0" // as docker's own client does
	}
	return a
}

// decision is what an engine reads of an answer.
type decision struct {
	Allow bool
	Msg   string
	Err   string
}

// ask returns the decision. An error is a failure, which an engine takes for a denial.
func (t *T) ask(r client.APIRequest) (allowed bool, msg string, err error) {
	var d decision
	err = t.c.Call(t.ctx, "AuthZPlugin.AuthZReq", apiRequest(r), &d)
	return err == nil && d.Allow, d.Msg, err
}

// apiRequest is a request in the engine's own words (moby pkg/authorization/api.go).
func apiRequest(r client.APIRequest) map[string]any {
	m := map[string]any{"RequestMethod": r.Method, "RequestUri": r.URI}
	if len(r.Headers) > 0 {
		m["RequestHeaders"] = r.Headers
	}
	if len(r.Body) > 0 {
		m["RequestBody"] = r.Body
	}
	if r.User != "" {
		m["User"], m["UserAuthNMethod"] = r.User, r.AuthMethod
	}
	return m
}

// notAllowed wants a request not to be allowed, be it by a decision or by a failure.
func (t *T) notAllowed(what string, r client.APIRequest) {
	allowed, _, err := t.ask(r)
	if unanswered(err) {
		t.Fatalf("%s: %w", what, err)
	}
	if allowed {
		t.Errorf("%s: allowed", what)
	}
}

func authzAnswers(t *T) {
	for _, r := range probes[:4] {
		if _, _, err := t.ask(r.call()); err != nil {
			t.Errorf("AuthZReq about %s: %w", r, err)
		}
		var d decision
		m := apiRequest(r.call())
		m["ResponseStatusCode"], m["ResponseBody"], m["ResponseHeaders"] = 200, []byte("{}"), map[string]string{"Content-Type": "application/json"}
		if err := t.c.Call(t.ctx, "AuthZPlugin.AuthZRes", m, &d); err != nil {
			t.Errorf("AuthZRes about %s: %w", r, err)
		}
	}
}

func allowedStays(t *T) {
	allow, _ := t.examples()
	if len(allow) == 0 {
		t.Skipf("the plugin allows none of the requests that were tried; name one that it allows")
	}
	for range 3 {
		for _, r := range allow {
			if ok, msg, err := t.ask(r.call()); err != nil {
				t.Errorf("%s: %w", r, err)
			} else if !ok {
				t.Errorf("%s: denied: %s", r, msg)
			}
		}
	}
}

func deniedStays(t *T) {
	deny := t.denials()
	for range 3 {
		for _, r := range deny {
			switch ok, msg, err := t.ask(r.call()); {
			case err != nil:
				t.Errorf("%s: denied by a failure: %w", r, err)
			case ok:
				t.Errorf("%s: allowed", r)
			case strings.TrimSpace(msg) == "":
				t.Errorf("%s: denied without a message; the user reads none", r)
			}
		}
	}
}

// spellings returns ways to write a target that an engine takes for the same. One with dots
// or an empty segment is none: an engine answers it with a redirection, and asks no plugin.
func spellings(target string) (all []string) {
	p, query, _ := strings.Cut(target, "?")
	if query != "" {
		query = "?" + query
	}
	p = strings.TrimPrefix(p, "/")
	if p == "" {
		return nil
	}
	first := fmt.Sprintf("%%%02x", p[0]) + p[1:]
	slashes := strings.ReplaceAll(p, "/", "%2F")
	for _, s := range []string{
		"/" + p, "/" + first, "/" + slashes, "/v1.41/" + p, "/v1.24/" + p, "/v1.41/" + first, "/v1.41%2f" + p, "/%761.41/" + p, "/v1%2e41/" + p,
		"http://docker/" + p, "http://docker/v1.41/" + first, "https://u@docker:1/" + p,
	} {
		all = append(all, s+query)
	}
	return all
}

func pathSpellings(t *T) {
	for _, r := range t.denials() {
		for _, target := range spellings(r.Target) {
			call := r.call()
			call.URI = target
			t.notAllowed(fmt.Sprintf("%s, which is denied, as %s", r, target), call)
		}
	}
}

func authzAtOnce(t *T) {
	allow, deny := t.examples()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, r := range allow {
				if ok, _, err := t.ask(r.call()); err != nil {
					t.Errorf("%s, among others: %w", r, err)
				} else if !ok {
					t.Errorf("%s, which is allowed alone, is denied among others", r)
				}
			}
		})
		all.Go(func() {
			for _, r := range deny {
				if ok, _, err := t.ask(r.call()); unanswered(err) {
					t.Errorf("%s, among others: %w", r, err)
				} else if ok {
					t.Errorf("%s, which is denied alone, is allowed among others", r)
				}
			}
		})
	}
	all.Wait()
}

// emptyCall is for plugins that deny something: one that lets everything pass need not look.
func emptyCall(t *T) {
	t.denials()
	var d decision
	if err := t.c.Call(t.ctx, "AuthZPlugin.AuthZReq", nil, &d); err == nil && d.Allow {
		t.Errorf("a call without a body is allowed")
	}
}

func streamingAnswer(t *T) {
	allow, deny := t.examples()
	for _, r := range slices.Concat(allow, deny) {
		for _, answer := range []map[string]any{
			{}, {"ResponseStatusCode": 200}, {"ResponseStatusCode": 200, "ResponseBody": []byte(`{"Id":`)}, {"ResponseStatusCode": 500, "ResponseBody": []byte("null")},
		} {
			m := apiRequest(r.call())
			maps.Copy(m, answer)
			var d decision
			if err := t.c.Call(t.ctx, "AuthZPlugin.AuthZRes", m, &d); unanswered(err) {
				t.Fatalf("AuthZRes about %s: %w", r, err)
			}
		}
	}
}
