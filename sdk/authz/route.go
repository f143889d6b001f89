package authz

import (
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// route is a request target, taken apart.
type route struct {
	path    string
	version string
	query   url.Values
}

// parseTarget takes a request target apart as net/http and the engine's router do: the
// host of an absolute target is dropped, the path is decoded and then cleaned, and one
// version prefix is cut off. What those two would not agree on is an error.
func parseTarget(target string) (route, error) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		// The cause repeats the target, and with it what may be secret in its query.
		return route{}, errdefs.Errorf(errdefs.ErrInvalid, "request target: not a URL path")
	}
	if u.Opaque != "" || u.Fragment != "" || strings.ContainsRune(u.Path, 0) {
		return route{}, errdefs.Errorf(errdefs.ErrInvalid, "request target: not a URL path")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return route{}, errdefs.Errorf(errdefs.ErrInvalid, "request target: the query is malformed")
	}
	if u.Path == "*" {
		return route{path: "*", query: query}, nil
	}
	version, clean := cutVersion(path.Clean("/" + u.Path))
	return route{path: clean, version: version, query: query}, nil
}

// cutVersion splits "/v1.41/info" into "1.41" and "/info". The engine takes any digits
// and dots for a version.
func cutVersion(p string) (version, rest string) {
	v, ok := strings.CutPrefix(p, "/v")
	if !ok {
		return "", p
	}
	end := strings.IndexByte(v, '/')
	if end < 1 || strings.Trim(v[:end], "0123456789.") != "" {
		return "", p
	}
	return v[:end], v[end:]
}

// Match reports whether the request fits a pattern: a method, or several with commas
// between, or "*" for any, then a space and a path. In the path "*" stands for one or more
// whole segments, as names of images and containers may hold slashes:
//
//	r.Match("POST /containers/create")
//	r.Match("GET,HEAD /images/*/json")
func (r *Request) Match(pattern string) bool {
	methods, p, ok := strings.Cut(pattern, " ")
	if !ok || !matchPath(p, r.Path) {
		return false
	}
	for m := range strings.SplitSeq(methods, ",") {
		if m == "*" || m == r.Method {
			return true
		}
	}
	return false
}

// matchPath is greedy for "*" and steps back, like the regular expressions of the router.
func matchPath(pattern, p string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == p
	}
	rest, ok := strings.CutPrefix(p, before)
	if !ok {
		return false
	}
	for end := len(rest); end > 0; end = strings.LastIndexByte(rest[:end], '/') {
		if matchPath(after, rest[end:]) {
			return true
		}
	}
	return false
}

// Flag reads a query parameter as an engine reads a yes or no: "", "0", "no", "false" and
// "none" in any case are no, everything else is yes (moby httputils.BoolValue).
func (r *Request) Flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.Query.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// olderThan reports whether version is one below 1.minor. No version is the newest, and
// one that cannot be read is taken for the oldest.
func olderThan(version string, minor int) bool {
	if version == "" {
		return false
	}
	majorText, minorText, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(majorText)
	if err != nil {
		return true
	}
	m, err := strconv.Atoi(minorText)
	return major < 1 || major == 1 && (err != nil || m < minor)
}
