package authz

import (
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct{ target, path, version string }{
		{"/info", "/info", ""},
		{"/v1.41/info", "/info", "1.41"},
		{"/v1.41//info", "/info", "1.41"},
		{"//v1.41/info", "/info", "1.41"},
		{"//info", "/info", ""},
		{"/./info/../info/", "/info", ""},
		{"/v1.41/containers/../info", "/info", "1.41"},
		{"/x/../v1.41/info", "/info", "1.41"},
		{"/../../info", "/info", ""},
		{"/%69nfo", "/info", ""},
		{"/v1.41%2finfo", "/info", "1.41"},
		{"/v1%2E41/info", "/info", "1.41"},
		{"/containers/x%2F..%2F..%2Finfo", "/info", ""},
		{"/%2569nfo", "/%69nfo", ""}, // decoded once
		{"http://docker/v1.41/info", "/info", "1.41"},
		{"http://docker//info", "/info", ""},
		{"https://u:p@host:1/info?x", "/info", ""},
		{"unix:///info", "/info", ""},
		{"/v1.41", "/v1.41", ""},
		{"/v1.41/", "/v1.41", ""},
		{"/v/info", "/v/info", ""},
		{"/v./info", "/info", "."},
		{"/v1.41/v1.40/info", "/v1.40/info", "1.41"},
		{"/volumes/create", "/volumes/create", ""},
		{"/V1.41/info", "/V1.41/info", ""},
		{"/images/a%20b/json", "/images/a b/json", ""},
		{"/info;x=1", "/info;x=1", ""},
		{"*", "*", ""},
		{"/", "/", ""},
	} {
		got, err := parseTarget(tt.target)
		if err != nil {
			t.Errorf("%q: %v", tt.target, err)
		} else if got.path != tt.path || got.version != tt.version {
			t.Errorf("%q: path %q, version %q; want %q, %q", tt.target, got.path, got.version, tt.path, tt.version)
		}
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, target := range []string{
		"", "info", "docker:2375", "mailto:x", "/%zz", "/a%00b", "/a\nb", "/info?a=%zz", "/info?a;b", "http://[::1/info",
	} {
		if got, err := parseTarget(target); err == nil {
			t.Errorf("%q: became %q", target, got.path)
		} else if len(target) > 3 && strings.Contains(err.Error(), target) {
			t.Errorf("%q is repeated in %q", target, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, method, path string
		want                  bool
	}{
		{"GET /info", "GET", "/info", true},
		{"GET /info", "POST", "/info", false},
		{"GET,HEAD /info", "HEAD", "/info", true},
		{"* /info", "BREW", "/info", true},
		{"GET /info", "GET", "/information", false},
		{"GET /info", "get", "/info", false},
		{"/info", "GET", "/info", false},
		{"POST /containers/*/exec", "POST", "/containers/a/exec", true},
		{"POST /containers/*/exec", "POST", "/containers/web/db/exec", true}, // the alias of a link
		{"POST /containers/*/exec", "POST", "/containers/exec", false},
		{"POST /containers/*/exec", "POST", "/containers//exec", false},
		{"POST /containers/*/exec", "POST", "/containers/a/exec/start", false},
		{"POST /containers/*/exec", "POST", "/containers/exec/exec/exec", true},
		{"DELETE /images/*", "DELETE", "/images/reg:5000/a/b", true},
		{"DELETE /images/*", "DELETE", "/images/", false},
		{"GET /x/*/y/*/z", "GET", "/x/1/y/2/y/3/z", true},
		{"GET /x/*/y/*/z", "GET", "/x/1/y/z", false},
	} {
		if got := (&Request{Method: tt.method, Path: tt.path}).Match(tt.pattern); got != tt.want {
			t.Errorf("%s %s fits %q: %v", tt.method, tt.path, tt.pattern, got)
		}
	}
}

func TestFlag(t *testing.T) {
	target, err := parseTarget("/x?a=1&b=0&c=False&d=&e=none&f=yes&g=1&g=0&h=+no+")
	if err != nil {
		t.Fatal(err)
	}
	r := &Request{Query: target.query}
	for name, want := range map[string]bool{"a": true, "b": false, "c": false, "d": false, "e": false, "f": true, "g": true, "h": false, "absent": false} {
		if r.Flag(name) != want {
			t.Errorf("flag %s is %v", name, !want)
		}
	}
}

func TestOlderThan(t *testing.T) {
	for version, want := range map[string]bool{
		"": false, "1.24": false, "1.23": true, "1.9": true, "1.41": false, "2.0": false, "0.99": true, "1": true, ".": true, "1.": true, "1.24.1": true,
	} {
		if olderThan(version, 24) != want {
			t.Errorf("%q older than 1.24: %v", version, !want)
		}
	}
}
