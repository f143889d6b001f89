package check_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/check"
)

// guard is the model of an authorization plugin: anybody may look at containers, and create
// such as are not privileged.
type guard struct {
	model
	asked atomic.Int64
	busy  atomic.Int64
}

func newGuard(_ *testing.T, b bug) *model {
	g := &guard{}
	g.bug, g.kinds = b, []string{"authz"}
	g.call = g.do
	return &g.model
}

var version = regexp.MustCompile(`^/v[0-9.]+(/|$)`)

// route is the path that an engine would serve.
func route(uri string) string {
	if u, err := url.Parse(uri); err == nil && u.Host != "" {
		uri = u.EscapedPath()
	}
	p, _, _ := strings.Cut(uri, "?")
	p, _ = url.PathUnescape(p)
	p = path.Clean("/" + p)
	return path.Clean("/" + version.ReplaceAllString(p, "/"))
}

func (g *guard) do(method string, req object) (any, error) {
	switch method {
	case "AuthZPlugin.AuthZRes":
		if g.bug == "answers no answers" {
			return nil, nil
		}
		if g.bug == "dies of streams" && req["ResponseStatusCode"] == nil {
			panic(http.ErrAbortHandler)
		}
		return object{"Allow": true}, nil
	case "AuthZPlugin.AuthZReq":
	default:
		return nil, nil
	}
	g.busy.Add(1)
	defer g.busy.Add(-1)
	n := g.asked.Add(1)
	if g.bug == "allows others' requests" {
		time.Sleep(5 * time.Millisecond)
	}
	allow, why := g.decide(req)
	switch {
	case g.bug == "allows others' requests" && g.busy.Load() > 1:
		allow = true
	case g.bug == "tires" && n%4 == 0:
		allow = !allow
	case !allow && g.bug == "says nothing":
		why = ""
	case !allow && g.bug == "fails to deny":
		return nil, refuse(why)
	}
	return object{"Allow": allow, "Msg": why}, nil
}

func (g *guard) decide(req object) (allow bool, why string) {
	uri := text(req, "RequestUri")
	p := route(uri)
	if g.bug == "reads paths as they are" {
		p, _, _ = strings.Cut(strings.TrimPrefix(uri, "/v1.41"), "?")
		if p != "/containers/create" && p != "/containers/json" && p != "/x" {
			return true, ""
		}
	}
	if g.bug == "allows the empty call" && uri == "" {
		return true, ""
	}
	method := text(req, "RequestMethod")
	if g.bug == "believes forms" && !strings.Contains(uri, "fromImage=evil") && p == "/images/create" {
		return true, ""
	}
	switch {
	case method == "GET" && (p == "/containers/json" || p == "/_ping" || p == "/version" || p == "/images/json"):
		return true, ""
	case method != "POST" || p != "/containers/create":
		return false, "not on the list"
	}
	body, _ := base64.StdEncoding.DecodeString(text(req, "RequestBody"))
	headers, _ := req["RequestHeaders"].(object)
	if len(body) == 0 {
		return g.bodyless(headers), "no body"
	}
	return !g.privileged(body), "privileged"
}

// bodyless tells whether a request is let pass whose body is not there.
func (g *guard) bodyless(h object) bool {
	kind, length := text(h, "Content-Type"), text(h, "Content-Length")
	switch g.bug {
	case "no body, no crime":
		return length == "0" || kind == ""
	case "believes chunks":
		return kind == "application/json" && length == ""
	case "believes large bodies":
		return len(length) >= 7
	}
	return false
}

func (g *guard) privileged(body []byte) bool {
	switch g.bug {
	case "looks at text":
		return strings.Contains(string(body), `"Privileged":true`)
	case "stops at 4 MiB":
		body = body[:min(len(body), 4<<20)]
		return json.Valid(body) && strings.Contains(string(body), "Privileged")
	case "wants one value":
		if !json.Valid(body) {
			return false
		}
	case "takes the first key":
		head, _, _ := strings.Cut(string(body), "Image")
		return strings.Contains(strings.ToLower(head), "privileged") && !strings.Contains(head, "null") && !strings.Contains(head, "{}")
	}
	var c struct{ HostConfig struct{ Privileged bool } }
	if err := json.NewDecoder(strings.NewReader(string(body))).Decode(&c); err != nil {
		return true
	}
	return c.HostConfig.Privileged
}

func TestAuthorizers(t *testing.T) {
	t.Parallel()
	all := mutants{
		"answers no answers":      {"authz/answers"},
		"tires":                   {"authz/allowed", "authz/denied"},
		"says nothing":            {"authz/denied"},
		"fails to deny":           {"authz/denied"},
		"reads paths as they are": {"authz/path-spellings"},
		"allows others' requests": {"authz/at-once"},
		"allows the empty call":   {"authz/empty-call"},
		"dies of streams":         {"authz/streaming-answer"},
		"looks at text":           {"authz/key-spellings"},
		"takes the first key":     {"authz/duplicate-keys"},
		"no body, no crime":       {"authz/missing-body"},
		"believes chunks":         {"authz/chunked-body"},
		"believes large bodies":   {"authz/body-above-limit"},
		"believes forms":          {"authz/form-body"},
		"wants one value":         {"authz/trailing-json"},
		"stops at 4 MiB":          {"authz/long-body"},
	}
	examples := check.Options{
		Allow: []check.Request{{Method: "GET", Target: "/containers/json?all=1"}, {Method: "POST", Target: "/containers/create", Body: `{"Image":"x"}`}},
		Deny:  []check.Request{{Method: "POST", Target: "/containers/create", Body: `{"HostConfig":{"Privileged":true},"Image":"x"}`}, {Method: "POST", Target: "/images/create?fromImage=evil"}},
	}
	all.check(t, check.AuthZ, newGuard, examples)
}
