package authz

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// FuzzParseTarget holds the normaliser to what a rule may rely on, and to net/http.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"/v1.41/info", "//a/../b//", "/%2e%2e/x", "http://h/v1/x?a=1", "*", "/v1.41%2Fx", "/a?b;c", "/v./x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got, err := parseTarget(target)
		if err != nil {
			return
		}
		if got.path == "*" {
			return
		}
		if !strings.HasPrefix(got.path, "/") || got.path != path.Clean(got.path) {
			t.Errorf("%q: path %q is not clean", target, got.path)
		}
		if strings.Trim(got.version, "0123456789.") != "" {
			t.Errorf("%q: version %q", target, got.version)
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatalf("%q: net/http refuses it: %v", target, err)
		}
		whole := got.path
		if got.version != "" {
			whole = path.Clean("/v" + got.version + got.path)
		}
		if want := path.Clean("/" + u.Path); whole != want {
			t.Errorf("%q: became %q, to the engine it is %q", target, whole, want)
		}
		// Spelt again it is the same.
		again, err := parseTarget((&url.URL{Path: got.path}).EscapedPath())
		if err != nil || again.version == "" && again.path != got.path {
			t.Errorf("%q: %q again is %q, %v", target, got.path, again.path, err)
		}
	})
}

// FuzzRequest sends any bytes as a call: it is answered, and never with a yes where the
// body of a create was not shown.
func FuzzRequest(f *testing.F) {
	for _, r := range []wire.AuthZRequest{
		ping, jsonPost("/containers/create", `{"HostConfig":{"Privileged":true}}`),
		request("POST", "/v1.41/containers/create", "", isJSON), request("POST", "/auth", "{}", isJSON),
	} {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"RequestMethod":"GET","RequestUri":"/","RequestPeerCertificates":["eA=="]}`))
	h := NewHandler(both{
		func(_ context.Context, r *Request) (Decision, error) {
			if r.Match("POST /containers/create") && len(r.Body) == 0 {
				panic("asked about a create without a body")
			}
			return Allow(), nil
		},
		func(context.Context, *Request, *Response) (Decision, error) { return Allow(), nil },
	}, Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for method, handler := range h.Methods() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+method, strings.NewReader(string(body)))
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			var a wire.AuthZResponse
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatalf("%s: answer %q: %v", method, w.Body, err)
			}
			if strings.Contains(a.Err, "panicked") || a.Allow == (a.Msg+a.Err != "") || strings.ContainsAny(a.Msg+a.Err, "\r\n") {
				t.Errorf("%s: answer %+v", method, a)
			}
		}
	})
}

// FuzzBody holds DuplicateKeys and DecodeBody together: where no key is there twice,
// nothing depends on the order of keys, and both refuse the same bodies.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{}`, `{"A":1,"a":2}`, `{"HostConfig":{"Privileged":true}}`, `[]`, `{"Labels":{"a":"","A":""}}`, `{}{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return
		}
		r := &Request{Body: body}
		keys, err := r.DuplicateKeys()
		if (err == nil) != json.Valid(body) {
			t.Fatalf("error %v", err)
		}
		var c create
		if err != nil || r.DecodeBody(&c) != nil || len(keys) > 0 || c.HostConfig == nil {
			return
		}
		// Said once means: one key that folds to HostConfig.
		var keyed map[string]json.RawMessage
		if json.Unmarshal(body, &keyed) != nil {
			return
		}
		n := 0
		for k := range keyed {
			if fold(k) == fold("HostConfig") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d keys are a HostConfig, and none was reported", n)
		}
	})
}
