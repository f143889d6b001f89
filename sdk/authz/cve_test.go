package authz

import (
	"context"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// noPrivilege is what the authors of the plugins in these threads wrote: it allows
// everything but a privileged container.
func noPrivilege(_ context.Context, r *Request) (Decision, error) {
	if !r.Match("POST /containers/create") {
		return Allow(), nil
	}
	var c create
	if err := r.DecodeBody(&c); err != nil {
		return Decision{}, err
	}
	if c.HostConfig != nil && c.HostConfig.Privileged {
		return Deny("no privileged containers"), nil
	}
	return Allow(), nil
}

// request makes a request of a method, a target, a body ("" is none) and headers as
// "Name: value".
func request(method, target, body string, headers ...string) wire.AuthZRequest {
	r := wire.AuthZRequest{RequestMethod: method, RequestURI: target, RequestBody: []byte(body), RequestHeaders: map[string]string{}}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.RequestHeaders[name] = value
	}
	return r
}

const (
	isJSON = "Content-Type: application/json"
	isForm = "Content-Type: application/x-www-form-urlencoded"
	isText = "Content-Type: text/plain"
	isTar  = "Content-Type: application/x-tar"
)

// deniedAll wants each of requests denied, and the authorizer never asked when asked is
// false.
func deniedAll(t *testing.T, requests map[string]wire.AuthZRequest, asked bool) {
	t.Helper()
	for name, r := range requests {
		t.Run(name, func(t *testing.T) {
			was := false
			h := NewHandler(Func(func(ctx context.Context, r *Request) (Decision, error) {
				was = true
				return noPrivilege(ctx, r)
			}), Options{})
			status, got := send(t.Context(), t, h, wire.AuthZReq, r)
			if status != 200 || got.Allow || got.Msg == "" {
				t.Errorf("status %d, answer %+v", status, got)
			}
			if was != asked {
				t.Errorf("authorizer was asked: %v", was)
			}
		})
	}
}

// allowedAll wants each of requests allowed by the same authorizer.
func allowedAll(t *testing.T, requests map[string]wire.AuthZRequest) {
	t.Helper()
	for name, r := range requests {
		t.Run(name, func(t *testing.T) {
			if _, got := send(t.Context(), t, NewHandler(Func(noPrivilege), Options{}), wire.AuthZReq, r); !got.Allow {
				t.Errorf("denied: %s%s", got.Msg, got.Err)
			}
		})
	}
}

// TestCVE_2024_41110: an engine that passes on no body, as it was chunked or its length
// was 0, and reads one all the same (moby GHSA-v23v-6jw2-98fq).
func TestCVE_2024_41110(t *testing.T) {
	requests := map[string]wire.AuthZRequest{
		"length 0":              request("POST", "/v1.41/containers/create", "", isJSON, "Content-Length: 0"),
		"chunked":               request("POST", "/v1.41/containers/create", "", isJSON),
		"chunked, no type":      request("POST", "/v1.41/containers/create", ""),
		"absolute URI":          request("POST", "http://docker/v1.41/containers/create", "", isJSON),
		"host with auth":        request("POST", "http://x/auth/../v1.41/containers/create", "", isJSON),
		"query that ends /auth": request("POST", "/v1.41/containers/create?name=/auth", "", isJSON, "Content-Length: 40"),
	}
	for _, route := range []string{
		"POST /containers/x/update", "POST /containers/x/exec", "POST /exec/x/start", "POST /volumes/create", "PUT /volumes/x",
		"PUT /volumes/prune", "POST /networks/create", "POST /networks/x/connect", "POST /networks/x/disconnect",
		"POST /plugins/pull", "POST /plugins/x/set", "POST /plugins/x/upgrade", "POST /swarm/init", "POST /swarm/join",
		"POST /swarm/update", "POST /swarm/unlock", "POST /services/create", "POST /services/x/update", "POST /nodes/x/update",
		"POST /secrets/create", "POST /secrets/x/update", "POST /configs/create", "POST /configs/x/update",
		"POST /v1.23/containers/x/start", "POST /v1.19/containers/x/copy", "POST /v9.9/tomorrow", "PATCH /containers/x",
	} {
		method, target, _ := strings.Cut(route, " ")
		requests[route] = request(method, target, "", isJSON)
	}
	deniedAll(t, requests, false)
}

// TestCVE_2026_34040: a body above the engine's limit, not passed on and carried out
// (moby GHSA-x744-4wpc-v9h2).
func TestCVE_2026_34040(t *testing.T) {
	deniedAll(t, map[string]wire.AuthZRequest{
		"create":              request("POST", "/v1.41/containers/create", "", isJSON, "Content-Length: 1048579"),
		"a route without any": request("POST", "/v1.41/containers/x/start", "", isJSON, "Content-Length: 1048579"),
		"delete":              request("DELETE", "/v1.41/containers/x", "", isJSON, "Content-Length: 1048579"),
	}, false)
}

// TestBodyOfFourMiB is what an engine since v29.3.1 passes on at most.
func TestBodyOfFourMiB(t *testing.T) {
	big := jsonPost("/containers/create", `{"Labels":{"x":"`+strings.Repeat("x", 4<<20-100)+`"},"HostConfig":{"Privileged":true}}`)
	_, got := send(t.Context(), t, NewHandler(Func(noPrivilege), Options{}), wire.AuthZReq, big)
	if got.Msg != "no privileged containers" {
		t.Errorf("answer %+v", got)
	}
	big.ResponseBody, big.ResponseStatusCode = big.RequestBody, 200
	if status, got := send(t.Context(), t, NewHandler(Func(noPrivilege), Options{}), wire.AuthZRes, big); status != 200 || !got.Allow {
		t.Errorf("with an answer as large: status %d, %+v", status, got)
	}
	if status, got := send(t.Context(), t, NewHandler(Func(noPrivilege), Options{MaxBody: 1 << 20}), wire.AuthZReq, big); status != 413 || got.Allow {
		t.Errorf("above MaxBody: status %d, %+v", status, got)
	}
}

// TestKeysThatReadersDisagreeOn: case and repetition (docs.docker.com, access
// authorization plugins; sockguard v1.4.2).
func TestKeysThatReadersDisagreeOn(t *testing.T) {
	const target = "/v1.41/containers/create"
	deniedAll(t, map[string]wire.AuthZRequest{
		"lower case": jsonPost(target, `{"hostconfig":{"privileged":true}}`),
		"upper case": jsonPost(target, `{"HOSTCONFIG":{"PRIVILEGED":true}}`),
		"escaped":    jsonPost(target, `{"HostConfi\u0067":{"\u0050rivileged":true}}`),
	}, true)
	deniedAll(t, map[string]wire.AuthZRequest{
		"twice":            jsonPost(target, `{"HostConfig":{"Privileged":true},"HostConfig":{"Privileged":false}}`),
		"twice, by case":   jsonPost(target, `{"HostConfig":{"Privileged":false,"privileged":true}}`),
		"a second value":   jsonPost(target, `{}{"HostConfig":{"Privileged":true}}`),
		"text behind":      jsonPost(target, `{"HostConfig":{"Privileged":true}} x`),
		"cut off":          jsonPost(target, `{"HostConfig":{"Privileged":true}`),
		"twice, elsewhere": jsonPost("/plugins/pull", `[{"Name":"network","Value":["none"],"value":["host"]}]`),
	}, false)
	r := jsonPost(target, `{"HostConfig":{"Privileged":true},"HostConfig":{}}`)
	_, got := send(t.Context(), t, NewHandler(Func(noPrivilege), Options{AllowDuplicateKeys: true}), wire.AuthZReq, r)
	if got.Msg != "no privileged containers" {
		t.Errorf("decoded otherwise than by an engine, which merges: %+v", got)
	}
}

func TestContentTypes(t *testing.T) {
	const target = "/v1.41/containers/create"
	bad := map[string]wire.AuthZRequest{}
	for _, kind := range []string{"", "text/json", "application/jsonx", "application/json, text/plain", "APPLICATION/X-TAR", "; x", "application/vnd.api+json"} {
		bad["no body, "+kind] = request("POST", target, "", "Content-Type: "+kind, "Content-Length: 40")
		bad["with a body, "+kind] = request("POST", target, "{}", "Content-Type: "+kind, "Content-Length: 2")
	}
	deniedAll(t, bad, false)
	allowedAll(t, map[string]wire.AuthZRequest{
		"with parameters": request("POST", target, "{}", "Content-Type: Application/JSON; charset=utf-8"),
	})
}

// TestFormBody: an engine takes parameters from a form in the body before those of the
// URL (net/http, Request.ParseForm), and passes on no form.
func TestFormBody(t *testing.T) {
	deniedAll(t, map[string]wire.AuthZRequest{
		"with a length":   request("POST", "/images/create?fromImage=good", "", isForm, "Content-Length: 14"),
		"chunked":         request("POST", "/images/create?fromImage=good", "", isForm),
		"of a build":      request("POST", "/build?networkmode=none", "", isForm+"; charset=utf-8"),
		"of an import":    request("POST", "/images/create?fromSrc=-", "", isForm),
		"other last type": request("POST", "/images/create?fromImage=good", "", isTar),
		"of a stop":       request("POST", "/containers/x/stop?t=1", "", isForm),
		"of a put":        request("PUT", "/containers/x/archive?path=/tmp", "", isForm),
	}, false)
	allowedAll(t, map[string]wire.AuthZRequest{
		"curl -d ''": request("POST", "/images/create?fromImage=good", "", isForm, "Content-Length: 0"),
		"of a get":   request("GET", "/info", "", isForm),
	})
}

// TestPathSpellings sends one request by every way to write its path.
func TestPathSpellings(t *testing.T) {
	requests := map[string]wire.AuthZRequest{}
	for _, target := range []string{
		"/containers/create", "/v1.41/containers/create", "/v1.41//containers/create", "//containers/create", "/containers/./create",
		"/v1.41/x/../containers/create", "/%63ontainers/create", "/containers%2fcreate", "/v1.41%2Fcontainers/create",
		"/containers/create/", "http://docker/containers/create", "https://u:p@docker/v1.41/containers//create?name=x",
		"/containers/create?", "/v1.41/containers/create?name=/info", "/v99.99/containers/create", "/v1/containers/create",
	} {
		requests[target] = jsonPost(target, `{"HostConfig":{"Privileged":true}}`)
	}
	deniedAll(t, requests, true)
}

// TestOrdinaryRequests are those of docker's own client, as captured, and must not be
// in the way of the above.
func TestOrdinaryRequests(t *testing.T) {
	const none = "Content-Length: 0"
	allowedAll(t, map[string]wire.AuthZRequest{
		"ping":       request("HEAD", "/_ping", ""),
		"options":    request("OPTIONS", "*", ""),
		"ps":         request("GET", "/v1.41/containers/json", ""),
		"create":     jsonPost("/v1.41/containers/create?name=x", `{"HostConfig":{"Privileged":false}}`),
		"start":      request("POST", "/v1.41/containers/x/start", "", isText, none),
		"start, old": jsonPost("/v1.23/containers/x/start", `{}`),
		"stop":       request("POST", "/v1.41/containers/x/stop?t=1", "", isText, none),
		"wait":       request("POST", "/v1.41/containers/x/wait?condition=removed", "", isText, none),
		"no length":  request("POST", "/v1.41/containers/x/kill", ""),
		"attach":     request("POST", "/v1.41/containers/x/attach?stream=1", "", isText, none, "Upgrade: tcp", "Connection: Upgrade"),
		"resize":     request("POST", "/v1.41/exec/x/resize?h=1&w=2", "", isText, none),
		"commit":     request("POST", "/v1.41/commit?container=x", "", isText, none),
		"pull":       request("POST", "/v1.41/images/create?fromImage=x", "", isText, none),
		"import":     request("POST", "/v1.41/images/create?fromSrc=-", "", isText),
		"load":       request("POST", "/v1.41/images/load", "", isTar),
		"push":       request("POST", "/v1.41/images/reg/x/push?tag=1", "", isText, none),
		"tag":        request("POST", "/v1.41/images/reg/x/tag?repo=y", "", isText, none),
		"build":      request("POST", "/v1.41/build?t=x", "", isTar),
		"session":    request("POST", "/session", "", "Upgrade: h2c", "Connection: Upgrade"),
		"cp in":      request("PUT", "/v1.41/containers/x/archive?path=/", "", isTar),
		"cp out":     request("GET", "/v1.41/containers/x/archive?path=/", ""),
		"rm":         request("DELETE", "/v1.41/containers/x?force=1", ""),
		"prune":      request("POST", "/v1.41/volumes/prune", "", isText, none),
		"enable":     request("POST", "/v1.41/plugins/v/x:latest/enable?timeout=30", "", isText, none),
		"plugin":     jsonPost("/v1.41/plugins/pull?remote=x", "null\n"),
	})
}

func TestAllowMissingBody(t *testing.T) {
	r := request("POST", "/v1.41/volumes/create", "", isJSON)
	for _, allow := range []bool{true, false} {
		var missing, asked bool
		h := NewHandler(Func(func(_ context.Context, r *Request) (Decision, error) {
			missing, asked = r.BodyMissing, true
			return Allow(), nil
		}), Options{AllowMissingBody: func(r *Request) bool { return allow && r.Match("POST /volumes/create") }})
		_, got := send(t.Context(), t, h, wire.AuthZReq, r)
		if got.Allow != allow || asked != allow || missing != allow {
			t.Errorf("AllowMissingBody %v: answer %+v, asked %v, missing %v", allow, got, asked, missing)
		}
	}
}

func TestBodyMissingIsSaid(t *testing.T) {
	for name, tt := range map[string]struct {
		req  wire.AuthZRequest
		want bool
	}{
		"get":             {request("GET", "/info", ""), false},
		"start":           {request("POST", "/containers/x/start", "", isText, "Content-Length: 0"), false},
		"create":          {jsonPost("/containers/create", "{}"), false},
		"build":           {request("POST", "/build", "", isTar), true},
		"commit":          {request("POST", "/commit", "", isText, "Content-Length: 0"), true},
		"commit, changed": {jsonPost("/commit", "{}"), false},
		"login":           {jsonPost("/v1.41/auth", `{"password":"x"}`), true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{wire.AuthZReq, wire.AuthZRes} {
				got := !tt.want
				see := func(r *Request) { got = r.BodyMissing }
				h := NewHandler(both{
					func(_ context.Context, r *Request) (Decision, error) { see(r); return Allow(), nil },
					func(_ context.Context, r *Request, _ *Response) (Decision, error) { see(r); return Allow(), nil },
				}, Options{})
				send(t.Context(), t, h, method, tt.req)
				if got != tt.want {
					t.Errorf("%s: body missing is %v", method, got)
				}
			}
		})
	}
}

// TestLoginIsWithheld: some builds of the engine pass the password on.
func TestLoginIsWithheld(t *testing.T) {
	for _, target := range []string{"/auth", "/v1.41/auth", "/v1.41//auth", "http://docker/v1.41/auth?x", "/v1.41/%61uth/"} {
		var bodies []string
		h := NewHandler(both{
			func(_ context.Context, r *Request) (Decision, error) {
				bodies = append(bodies, string(r.Body))
				return Allow(), nil
			},
			func(_ context.Context, r *Request, a *Response) (Decision, error) {
				bodies = append(bodies, string(r.Body), string(a.Body))
				return Allow(), nil
			},
		}, Options{})
		r := jsonPost(target, `{"username":"u","password":"s3cret"}`)
		send(t.Context(), t, h, wire.AuthZReq, r)
		r.ResponseStatusCode, r.ResponseBody = 200, []byte(`{"IdentityToken":"s3cret"}`)
		send(t.Context(), t, h, wire.AuthZRes, r)
		if len(bodies) != 3 || strings.Join(bodies, "") != "" {
			t.Errorf("%s: was shown %q", target, bodies)
		}
	}
}

func TestRequestIsShownWhole(t *testing.T) {
	var got *Request
	h := NewHandler(Func(func(_ context.Context, r *Request) (Decision, error) { got = r; return Allow(), nil }), Options{})
	w := request("GET", "/v1.41/containers/a%20b/json?size=1&x=%2F", "", "User-Agent: curl", "x-lower: 1")
	w.User, w.UserAuthNMethod = "alice", "TLS"
	send(t.Context(), t, h, wire.AuthZReq, w)
	if got.User != "alice" || got.AuthMethod != "TLS" || got.Method != "GET" || got.URI != w.RequestURI ||
		got.Path != "/containers/a b/json" || got.Version != "1.41" || got.Query.Get("x") != "/" || !got.Flag("size") ||
		got.Headers.Get("user-agent") != "curl" || got.Headers.Get("X-Lower") != "1" || got.Body != nil || got.PeerCertificates != nil {
		t.Errorf("%+v", got)
	}
	if len(got.Query) != 2 {
		t.Errorf("query %v", got.Query)
	}
}
