package authztest

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/authz"
	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// call is the example as an engine sends it.
func (e Example) call() wire.AuthZRequest {
	r := wire.AuthZRequest{
		User: e.User, RequestMethod: e.Method, RequestURI: "/v1.41" + e.Target, RequestBody: []byte(e.Body),
		RequestHeaders: map[string]string{"User-Agent": "authztest"},
	}
	if e.User != "" {
		r.UserAuthNMethod = "TLS"
	}
	if e.Body != "" {
		r.RequestHeaders["Content-Type"] = "application/json"
		r.RequestHeaders["Content-Length"] = strconv.Itoa(len(e.Body))
	} else if e.Method == http.MethodPost || e.Method == http.MethodPut {
		r.RequestHeaders["Content-Type"] = "text/plain" // as docker's own client does
		r.RequestHeaders["Content-Length"] = "0"
	}
	return r
}

// send returns what the engine makes of the answer: nil lets the request pass.
func (s *subject) send(t *testing.T, r any) error {
	t.Helper()
	var a wire.AuthZResponse
	if err := s.client.Call(t.Context(), wire.AuthZReq, r, &a); err != nil {
		return err
	}
	if !a.Allow {
		if a.Msg == "" {
			t.Error("denied without a reason")
		}
		return errors.New(a.Msg)
	}
	return nil
}

// denied wants a call denied by a decision: an answer that is no yes, and no failure.
func (s *subject) denied(t *testing.T, what string, r wire.AuthZRequest) {
	t.Helper()
	err := s.send(t, r)
	if err == nil {
		t.Errorf("%s: allowed", what)
		return
	}
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status != http.StatusOK {
		t.Errorf("%s: denied by a failure: %v", what, err)
	}
}

// checks are the cases of package check.
func checks() suitetest.Cases[Config] {
	return suitetest.Checks(check.AuthZ, func(t *testing.T, c Config) (string, check.Options, func()) {
		socket := suitetest.Socket(t)
		_, stop := suitetest.Serve(t, socket, authz.NewHandler(c.New(t), c.Options), c.Options.Logger, 0)
		t.Cleanup(stop)
		return socket, check.Options{Allow: requests(c.Allowed), Deny: requests(c.Denied)}, func() {}
	})
}

func requests(all []Example) (rs []check.Request) {
	for _, e := range all {
		rs = append(rs, check.Request(e))
	}
	return rs
}

func activate(t *testing.T, s *subject) {
	kinds, err := s.client.Activate(t.Context())
	if err != nil || !slices.Contains(kinds, wire.AuthZ) {
		t.Errorf("implements %q, %v", kinds, err)
	}
}

func wireAllowed(t *testing.T, s *subject) {
	for _, e := range s.Allowed {
		if err := s.send(t, e.call()); err != nil {
			t.Errorf("%s: %v", e, err)
		}
	}
}

func wireDenied(t *testing.T, s *subject) {
	for _, e := range s.Denied {
		s.denied(t, e.String(), e.call())
	}
}

// pathSpellings sends each example by every way to write its path. What was allowed is
// to stay so, and what was denied, too.
func pathSpellings(t *testing.T, s *subject) {
	spell := func(target string) []string {
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
		var all []string
		for _, s := range []string{
			"/" + p, "//" + p, "/./" + p, "/x/../" + p, "/" + p + "/", "/" + first, "/" + slashes, "/v1.41/" + p, "/v1.41//" + p, "/v1.24/" + p,
			"/v99/" + p, "/v1.41%2f" + p, "/%761.41/" + p, "/v1.41/x/%2e%2e/" + p, "http://docker/" + p, "http://docker/v1.41/" + first, "https://u@docker:1//" + p,
		} {
			all = append(all, s+query)
		}
		return all
	}
	for _, e := range s.Allowed {
		for _, target := range spell(e.Target) {
			r := e.call()
			r.RequestURI = target
			if err := s.send(t, r); err != nil {
				t.Errorf("%s as %s: %v", e, target, err)
			}
		}
	}
	for _, e := range s.Denied {
		for _, target := range spell(e.Target) {
			r := e.call()
			r.RequestURI = target
			s.denied(t, e.String()+" as "+target, r)
		}
	}
}

// bodies calls f with each denied example that has an object for a body.
func (s *subject) bodies(t *testing.T, f func(e Example, body map[string]json.RawMessage)) {
	t.Helper()
	n := 0
	for _, e := range s.Denied {
		var body map[string]json.RawMessage
		if json.Unmarshal([]byte(e.Body), &body) == nil && len(body) > 0 {
			n++
			f(e, body)
		}
	}
	if n == 0 {
		t.Log("no denied example has a body that is an object")
	}
}

// duplicateKeys: of two keys one reader takes the first, another the last, and an engine
// merges objects.
func duplicateKeys(t *testing.T, s *subject) {
	s.bodies(t, func(e Example, body map[string]json.RawMessage) {
		whole := strings.TrimSpace(e.Body)
		for key, value := range body {
			for _, more := range []string{key, strings.ToLower(key), strings.ToUpper(key)} {
				for _, other := range []string{"null", "{}", string(value)} {
					first, last := e, e
					first.Body = fmt.Sprintf(`{"%s":%s,%s`, more, other, whole[1:])
					last.Body = fmt.Sprintf(`%s,"%s":%s}`, whole[:len(whole)-1], more, other)
					s.denied(t, "first: "+first.Body, first.call())
					s.denied(t, "last: "+last.Body, last.call())
				}
			}
		}
	})
}

// without is the call of e, which has a body, as it looks when the engine kept it back.
func without(e Example, headers map[string]string) wire.AuthZRequest {
	r := e.call()
	r.RequestBody, r.RequestHeaders = nil, headers
	return r
}

// formBody: an engine takes parameters from a form before those of the URL.
func formBody(t *testing.T, s *subject) {
	for _, e := range slices.Concat(s.Allowed, s.Denied) {
		if e.Method == http.MethodPost || e.Method == http.MethodPut {
			s.denied(t, e.String(), without(e, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}))
		}
	}
}

func trailingJSON(t *testing.T, s *subject) {
	s.bodies(t, func(e Example, _ map[string]json.RawMessage) {
		first, last := e, e
		first.Body, last.Body = "{}"+e.Body, e.Body+"{}"
		s.denied(t, e.String()+" behind {}", first.call())
		s.denied(t, e.String()+" before {}", last.call())
	})
}

// padded returns an object that says no more than before, in n bytes: once with the padding
// behind what it said, once in front of that.
func padded(object string, n int) (behind, inFront string) {
	whole := strings.TrimSpace(object)
	const key, end = `"RemoraUnknown":"`, `"`
	padding := key + strings.Repeat("x", n-len(whole)-len(key)-len(end)-len(",")) + end
	return whole[:len(whole)-1] + "," + padding + "}", "{" + padding + "," + whole[1:]
}

// contentType: an engine takes no body for JSON that does not say so, and passes none on.
func contentType(t *testing.T, s *subject) {
	for _, kind := range []string{"text/plain", "application/x-tar", "text/json", "application/json, text/plain", ";"} {
		s.bodies(t, func(e Example, _ map[string]json.RawMessage) {
			s.denied(t, fmt.Sprintf("%s as %s", e, kind), without(e, map[string]string{"Content-Type": kind}))
		})
	}
}
