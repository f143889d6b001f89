package volumetest

import (
	"net/http"
	"strings"
	"testing"
)

// requestWire are requests that are not what an engine's own client would make of them.
// They are the Handler's to answer, and a driver never hears of what is refused.
func requestWire() cases {
	methods := []string{"Create", "Remove", "Mount", "Unmount", "Path", "Get"}
	return cases{
		"EmptyBodyIsRefused": func(t *testing.T, c Config) {
			// It is how dockerd repeats a call after the connection broke.
			p := startPlugin(t, c, nil)
			p.create("one")
			p.mount("one", mountID(1))
			for range 2 {
				for _, method := range methods {
					a, err := p.send(http.MethodPost, method, "", nil)
					if method == "Get" {
						// Any answer at all would say that the volume is gone.
						if err == nil {
							t.Errorf("Get without a body: answered with %d %q", a.status, a.body)
						}
						continue
					}
					if err != nil || a.status == http.StatusOK || !strings.Contains(a.body, "nothing was done") {
						t.Errorf("%s without a body: %d %q, %v", method, a.status, a.body, err)
					}
				}
			}
			p.mustBeMounted("one", 1)
			p.unmount("one", mountID(1))
			for verb, want := range map[string]int{"create": 1, "remove": 0, "mount": 1, "unmount": 1} {
				if got := p.faults.count(verb); got != want {
					t.Errorf("the driver was called %d times for %s, want %d", got, verb, want)
				}
			}
		},
		"NullIsNoName": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for _, method := range methods {
				for _, body := range []string{"null", "{}", `{"Name":null}`, `{"Name":""}`} {
					if a, err := p.send(http.MethodPost, method, body, nil); err != nil || a.status == http.StatusOK {
						t.Errorf("%s of %s: %d %q, %v", method, body, a.status, a.body, err)
					}
				}
			}
			if got := p.list(); len(got) != 0 {
				t.Errorf("List: %q", got)
			}
		},
		"OddButRightRequests": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for _, r := range []struct {
				method, body string
				header       http.Header
			}{
				{"Create", `{"Name":"one","Opts":null}`, nil},
				{"Create", `{"Name":"one"}`, http.Header{"Content-Type": {"application/vnd.docker.plugins.v1.1+json"}}},
				{"Create", `{"Name":"one","Opts":{},"Labels":{"a":"b"},"Later":[1,2,{"x":null}]}`, http.Header{"Content-Type": {"text/plain"}}},
				{"Get", `{"name":"one"}`, http.Header{"Host": {"/run/docker/plugins/x.sock"}, "Accept": {"text/html"}}},
				{"Get", "\n {\"Name\":\"one\"} \n", nil},
				{"Mount", `{"Name":"one","ID":"x","Unknown":true}`, nil},
				{"Path", `{"Name":"one","ID":"x"}`, nil},
				{"Unmount", `{"Name":"one","ID":"x"}`, nil},
				{"Remove", `{"Name":"one","Force":true}`, nil},
			} {
				if a, err := p.send(http.MethodPost, r.method, r.body, r.header); err != nil || a.status != http.StatusOK {
					t.Errorf("%s %s: %d %q, %v", r.method, r.body, a.status, a.body, err)
				}
			}
			p.mustBeGone("one")
		},
		"GarbageIsRefused": func(t *testing.T, c Config) {
			const badFields = `{"Name":"one","Opts":[],"ID":1}`
			p := startPlugin(t, c, nil)
			p.create("one")
			for _, method := range methods {
				for _, body := range []string{
					"x", "{", `{"Name":`, `{"Name":1}`, `{"Name":["one"]}`, `["one"]`, `"one"`, "1", "true", "\x00", "\xff\xfe", `{"Name":"one"}{`,
					badFields, strings.Repeat("[", 100_000),
				} {
					if method != "Create" && body == badFields && method != "Mount" && method != "Unmount" {
						continue // to these the two are unknown fields, and unread
					}
					a, err := p.send(http.MethodPost, method, body, nil)
					if err != nil || a.status == http.StatusOK {
						t.Errorf("%s of %.40q: %d %q, %v", method, body, a.status, a.body, err)
					}
				}
			}
			p.mustGet("one")
			p.mustBeMounted("one", 0)
		},
		"HugeBodyIsRefused": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			huge := `{"Name":"one","Opts":{"a":"` + strings.Repeat("x", 8<<20) + `"}}`
			for _, method := range []string{"Create", "Get", "List"} {
				// The plugin may hang up before the whole was sent, which it need not read.
				if a, err := p.send(http.MethodPost, method, huge, nil); err == nil && a.status == http.StatusOK {
					t.Errorf("%s of 8 MiB: %d %.100q", method, a.status, a.body)
				}
			}
			p.create("two")
			p.mustBeGone("one")
		},
		"OtherVerbsAreRefused": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			for _, verb := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch} {
				for _, method := range methods {
					if a, err := p.send(verb, method, `{"Name":"one"}`, nil); err != nil || a.status != http.StatusMethodNotAllowed {
						t.Errorf("%s %s: %d %q, %v", verb, method, a.status, a.body, err)
					}
				}
			}
			p.mustGet("one")
		},
		"UnknownMethodIs404": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for _, method := range []string{"Snapshot", "create", "", "Create/", "Create.x"} {
				if a, err := p.send(http.MethodPost, method, `{"Name":"one"}`, nil); err != nil || a.status != http.StatusNotFound {
					t.Errorf("%q: %d %q, %v", method, a.status, a.body, err)
				}
			}
		},
	}
}
