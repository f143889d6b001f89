package authztest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/remora-plugins/remora/sdk/authz"
	"github.com/remora-plugins/remora/sdk/authz/authztest"
)

// noPrivilege lets anybody list, and create what is not privileged.
func noPrivilege(_ context.Context, r *authz.Request) (authz.Decision, error) {
	switch {
	case r.Match("GET /containers/json"):
		return authz.Allow(), nil
	case r.Match("POST /containers/create"):
		var c struct{ HostConfig *struct{ Privileged bool } }
		if err := r.DecodeBody(&c); err != nil {
			return authz.Decision{}, err
		}
		if c.HostConfig == nil || !c.HostConfig.Privileged {
			return authz.Allow(), nil
		}
		return authz.Deny("no privileged containers"), nil
	}
	return authz.Deny("not on the list"), nil
}

func config(f authz.Func) authztest.Config {
	return authztest.Config{
		New: func(*testing.T) authz.Authorizer { return f },
		Allowed: []authztest.Example{
			{Method: "GET", Target: "/containers/json?all=1"}, {Method: "POST", Target: "/containers/create?name=x", Body: `{"Image":"x"}`},
		},
		Denied: []authztest.Example{
			{User: "bob", Method: "POST", Target: "/containers/create", Body: `{"Image":"x","HostConfig":{"Binds":["/:/h"],"Privileged":true}}`},
			{Method: "DELETE", Target: "/volumes/x"},
		},
	}
}

func TestGood(t *testing.T) {
	defer goleak.VerifyNone(t)
	authztest.Run(t, config(noPrivilege))
}

// broken are mistakes, each with the cases that must fail for it.
var broken = map[string]struct {
	f     authz.Func
	cases []string
}{
	"AllowsAll": {
		func(context.Context, *authz.Request) (authz.Decision, error) { return authz.Allow(), nil },
		[]string{"direct/Examples", "direct/UnknownRoute", "direct/EmptyRequest", "wire/Denied", "wire/PathSpellings", "wire/CheckKeySpellings", "direct/LongBody", "wire/CheckLongBody"},
	},
	"LooksAtText": {
		func(ctx context.Context, r *authz.Request) (authz.Decision, error) {
			if r.Match("POST /containers/create") && !strings.Contains(string(r.Body), `"Privileged":true`) {
				return authz.Allow(), nil
			}
			return noPrivilege(ctx, r)
		},
		[]string{"wire/CheckKeySpellings"},
	},
	"StopsReading": {
		func(ctx context.Context, r *authz.Request) (authz.Decision, error) {
			if r.Match("POST /containers/create") && len(r.Body) > 4<<20 {
				return authz.Allow(), nil
			}
			return noPrivilege(ctx, r)
		},
		[]string{"direct/LongBody", "wire/CheckLongBody"},
	},
	"LooksAtURI": {
		func(ctx context.Context, r *authz.Request) (authz.Decision, error) {
			if strings.HasSuffix(r.URI, "/containers/create") {
				return authz.Deny("none are created"), nil
			}
			if r.Match("POST /containers/create") {
				return authz.Allow(), nil
			}
			return noPrivilege(ctx, r)
		},
		[]string{"wire/PathSpellings"},
	},
	"GivesNoReason": {
		func(ctx context.Context, r *authz.Request) (authz.Decision, error) {
			d, err := noPrivilege(ctx, r)
			if !d.Allowed() {
				d = authz.Decision{}
			}
			return d, err
		},
		[]string{"direct/Message"},
	},
	"NeverStops": {
		func(ctx context.Context, r *authz.Request) (authz.Decision, error) {
			if ctx.Err() != nil {
				time.Sleep(7 * time.Second) // Canceled waits for 5, and then it should not leak
			}
			return noPrivilege(ctx, r)
		},
		[]string{"direct/Canceled"},
	},
	"ChangesRequest": {
		func(ctx context.Context, r *authz.Request) (authz.Decision, error) {
			r.Query.Set("seen", "1")
			return noPrivilege(ctx, r)
		},
		[]string{"direct/RequestUnchanged"},
	},
	"Panics": {
		func(ctx context.Context, r *authz.Request) (authz.Decision, error) {
			if r.Method == "DELETE" && r.Version != "" {
				panic("oh")
			}
			return noPrivilege(ctx, r)
		},
		[]string{"wire/Denied"},
	},
}

// TestInner is run by TestBroken as a process of its own.
func TestInner(t *testing.T) {
	if b, ok := broken[os.Getenv("AUTHZTEST_BROKEN")]; ok {
		authztest.Run(t, config(b.f))
	}
}

// TestBroken shows that the suite finds mistakes.
func TestBroken(t *testing.T) {
	t.Parallel()
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var names []string
			for _, c := range b.cases {
				_, name, _ := strings.Cut(c, "/")
				names = append(names, name)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInner$/^(direct|wire)$/^("+strings.Join(names, "|")+")$", "-test.v")
			cmd.Env = append(os.Environ(), "AUTHZTEST_BROKEN="+name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("the suite passed")
			}
			for _, c := range b.cases {
				if !strings.Contains(string(out), "--- FAIL: TestInner/"+c) {
					t.Errorf("case %s did not fail", c)
				}
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}
