package check_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestLeavesOthersAlone: what was there before a run is there after it, and nothing else.
func TestLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	ep := serve(t, newStore(t, ""))
	c, err := client.New(ep, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{"data", "remora-check-other-a"} {
		if err := c.Volume().Create(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Volume().Mount(t.Context(), name, "id"); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := check.Run(t.Context(), ep, check.Options{Engine: true}); err != nil || r.Verdict != check.Conforms {
		t.Errorf("%v, %v", r, err)
	}
	listed(t, c, "data", "remora-check-other-a")
	for _, name := range []string{"data", "remora-check-other-a"} {
		if info, err := c.Volume().Get(t.Context(), name); err != nil || info.Mountpoint == "" {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

func listed(t *testing.T, c *client.Client, want ...string) {
	t.Helper()
	all, err := c.Volume().List(t.Context())
	var names []string
	for _, v := range all {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("volumes %q, %v, want %q", names, err, want)
	}
}

// TestInterrupted ends runs at a call in the middle of each case that makes something.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	interrupted(t, -1)
	interrupted(t, time.Minute)
}

func interrupted(t *testing.T, grace time.Duration) {
	t.Helper()
	for _, id := range []string{"volume/mount-for-two", "volume/create-at-once", "volume/engine-restart", "volume/mount-at-once"} {
		for _, method := range []string{"VolumeDriver.Create", "VolumeDriver.Mount", "VolumeDriver.Unmount"} {
			m := newStore(t, "")
			ctx, cancel := context.WithCancel(t.Context())
			right := m.call
			m.call = func(called string, req object) (any, error) {
				answer, err := right(called, req)
				if called == method {
					cancel()
					time.Sleep(10 * time.Millisecond) // so that the answer comes too late
				}
				return answer, err
			}
			ep := serve(t, m)
			r, err := check.Run(ctx, ep, check.Options{Only: []string{id}, Engine: true, Grace: grace})
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			happens := !strings.Contains(id, "create") || method == "VolumeDriver.Create"
			passes := r.Count(check.Pass) == 1
			if happens && (!r.Interrupted || r.Verdict != check.Conforms || !strings.HasPrefix(r.Summary(), "interrupted") || passes != (grace > 0)) || len(r.Left()) > 0 {
				t.Errorf("%s at %s: %s, left %q, %+v", id, method, r.Summary(), r.Left(), r.Failed())
			}
			m.call = right
			c, err := client.New(ep, client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			listed(t, c)
			_ = c.Close()
		}
	}
}

// TestDies: once a plugin gives no answer, the rest is not waited for.
func TestDies(t *testing.T) {
	t.Parallel()
	m := newStore(t, "dies of callers that hang up")
	r, err := check.Run(t.Context(), serve(t, m), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != check.IsBroken || r.Count(check.Broken) != 1 || r.Count(check.Skipped) < 20 {
		t.Error(r.Summary())
	}
	ep := client.Endpoint{Name: "gone", Addr: "unix:///nonexistent/x.sock"}
	r, err = check.Run(t.Context(), ep, check.Options{})
	if err != nil || r.Verdict != check.IsBroken || len(r.Results) != 1 || r.Results[0].ID != "plugin/activate" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestManaged: with kinds there is no activation.
func TestManaged(t *testing.T) {
	t.Parallel()
	m := newStore(t, "is nothing")
	r, err := check.Run(t.Context(), serve(t, m), check.Options{Kinds: []string{check.Volume}})
	if err != nil || r.Verdict != check.Conforms || r.Count(check.Pass) < 40 || m.activated != 0 {
		t.Errorf("%v, %v, activated %d times", r, err, m.activated)
	}
}

func TestAway(t *testing.T) {
	t.Parallel()
	for kind, model := range map[string]*model{check.Volume: newStore(t, "path is not there"), check.Network: newFabric(t, "interface is not there")} {
		r, err := check.Run(t.Context(), serve(t, model), check.Options{Away: true, Engine: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != check.Conforms || r.Count(check.Skipped) == 0 {
			t.Errorf("%s: %s %+v", kind, r.Summary(), r.Failed())
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	r, err := check.Run(t.Context(), serve(t, newStore(t, "shows passwords")), check.Options{
		Create: map[string]string{"password": "hunter22", "o": "user=u,secret=hunter33", "path": "/x/{name}"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range check.Formats {
		var b bytes.Buffer
		if err := r.Write(&b, format); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "hunter") || !strings.Contains(b.String(), "volume/secrets") && format != "junit" {
			t.Errorf("%s: %s", format, b.String())
		}
	}
	p, err := check.Open(client.Endpoint{Addr: "unix:///x"}, check.Options{Create: map[string]string{"password": "hunter22"}})
	if err != nil {
		t.Fatal(err)
	}
	if plan := strings.Join(p.Plan([]string{check.Volume}), ""); strings.Contains(plan, "hunter") || !strings.Contains(plan, "password=REDACTED") {
		t.Errorf("plan: %s", plan)
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	right := client.Endpoint{Name: "x", Addr: "unix:///x.sock"}
	for name, tt := range map[string]struct {
		ep client.Endpoint
		o  check.Options
	}{
		"no such case":    {right, check.Options{Only: []string{"volume/none"}}},
		"no such skip":    {right, check.Options{Skip: map[string]string{"volume/": "x"}}},
		"skip, no reason": {right, check.Options{Skip: map[string]string{"volume/podman": " "}}},
		"subnet":          {right, check.Options{Subnet: "fd00::/64"}},
		"small subnet":    {right, check.Options{Subnet: "10.0.0.0/25"}},
		"address":         {client.Endpoint{Addr: "x"}, check.Options{}},
	} {
		if _, err := check.Open(tt.ep, tt.o); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, s := range []string{"", "GET", "get /x", "GET x"} {
		if r, err := check.ParseRequest(s); err == nil {
			t.Errorf("%q: %+v", s, r)
		}
	}
	r, err := check.ParseRequest(` POST  /x?a=b {"a": 1} `)
	if want := (check.Request{Method: "POST", Target: "/x?a=b", Body: `{"a": 1}`}); err != nil || r != want {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCases(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range check.Cases() {
		kind, name, ok := strings.Cut(c.ID, "/")
		if seen[c.ID] || !ok || kind == "" || strings.ToLower(name) != name || strings.ContainsAny(name, "/_ .") {
			t.Errorf("ID %q", c.ID)
		}
		seen[c.ID] = true
		if !strings.HasSuffix(c.Asserts, ".") || c.Source == "" {
			t.Errorf("%s: %q, %q", c.ID, c.Asserts, c.Source)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	for _, model := range []*model{newStore(t, ""), newFabric(t, ""), newPools(t, ""), newGuard(t, "")} {
		ep := serve(t, model)
		p, err := check.Open(ep, check.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Load(t.Context(), check.LoadOptions{Duration: 300 * time.Millisecond, Clients: 3})
		if err != nil || r.Errors > 0 || r.Calls < 10 || len(r.Methods) < 2 || len(r.Left) > 0 {
			t.Errorf("%v: %+v, %v", model.kinds, r, err)
			continue
		}
		for _, m := range r.Methods {
			if m.P50 <= 0 || m.P50 > m.P90 || m.P90 > m.P99 || m.P99 > m.Max || m.Calls == 0 {
				t.Errorf("%+v", m)
			}
		}
	}
	p, err := check.Open(serve(t, newStore(t, "one container")), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	report := p.Run(t.Context())
	if err := p.Soak(t.Context(), report, check.LoadOptions{Duration: 100 * time.Millisecond}); err != nil || report.Load.Calls == 0 {
		t.Errorf("%+v, %v", report.Load, err)
	}
	logs, err := check.Open(serve(t, newLogger(t, "")), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := logs.Load(t.Context(), check.LoadOptions{}); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("load of a log driver: %v", err)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	r, err := check.Run(t.Context(), serve(t, newStore(t, "removes what is mounted")), check.Options{
		Only: []string{"plugin/activate", "volume/remove-mounted", "volume/errors"}, Skip: map[string]string{"volume/errors": "a <reason>"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for _, format := range check.Formats {
		var b bytes.Buffer
		if err := r.Write(&b, format); err != nil {
			t.Fatal(err)
		}
		text[format] = b.String()
	}
	for format, parts := range map[string][]string{
		"text":  {"pass      plugin/activate\n", "deviates  volume/errors: a <reason>\n", "fail      volume/remove-mounted\n          asserts: ", "            -> VolumeDriver.Remove {\"Name\":\"remora-check-", "            <- 200 {}\n", "model: deviates: 1 passed, 1 failed, 1 known deviations\n"},
		"tap":   {"TAP version 13\n1..3\nok 1 - plugin/activate\n", "ok 2 - volume/errors # SKIP a <reason>\n", "not ok 3 - volume/remove-mounted\n  ---\n  {"},
		"junit": {`<testsuite name="plugin model" tests="3" failures="1" errors="0" skipped="1"`, `<skipped message="a &lt;reason&gt;">`, `<failure message="Remove of a volume that is mounted succeeds">`},
		"json":  {`"verdict": "deviates"`, `"method": "VolumeDriver.Remove"`},
	} {
		for _, part := range parts {
			if !strings.Contains(text[format], part) {
				t.Errorf("%s has no %q:\n%s", format, part, text[format])
			}
		}
	}
	var again check.Report
	if err := json.Unmarshal([]byte(text["json"]), &again); err != nil || again.Summary() != r.Summary() {
		t.Errorf("read again: %v, %v", again.Summary(), err)
	}
	if err := xml.Unmarshal([]byte(text["junit"]), new(struct {
		XMLName xml.Name `xml:"testsuite"`
	})); err != nil {
		t.Error(err)
	}
	if err := r.Write(&bytes.Buffer{}, "xml"); err == nil {
		t.Error("format xml is known")
	}
	var svg, shields bytes.Buffer
	if err := errors.Join(r.WriteSVG(&svg), r.WriteShields(&shields)); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(svg.Bytes(), new(struct{})); err != nil || !strings.Contains(svg.String(), ">deviates 1/2<") {
		t.Errorf("%v: %s", err, svg.String())
	}
	if want := `{"color":"yellow","isError":false,"label":"docker plugin","message":"deviates 1/2","schemaVersion":1}` + "\n"; shields.String() != want {
		t.Errorf("%s", shields.String())
	}
}
