package suitetest

import (
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
)

// Checks are the cases of package check for one kind of plugin: what needs nothing but the
// socket is written once, there. The case volume/create-twice is called CheckCreateTwice
// here. serve starts a plugin, and returns its socket, what the case is to know of it, and
// what is looked at when the case is over.
func Checks[C any](kind string, serve func(t *testing.T, c C) (socket string, o check.Options, after func())) Cases[C] {
	all := Cases[C]{}
	for _, c := range check.Cases() {
		if c.Kind != kind {
			continue
		}
		all[CheckName(c.ID)] = func(t *testing.T, config C) {
			socket, o, after := serve(t, config)
			p, err := check.Open(client.Endpoint{Name: "test", Addr: "unix://" + socket}, o)
			if err != nil {
				t.Fatal(err)
			}
			Report(t, p.Check(t.Context(), c))
			after()
		}
	}
	return all
}

// CheckName returns the name that the case of package check with that ID has in a suite.
func CheckName(id string) string {
	_, words, _ := strings.Cut(id, "/")
	var name strings.Builder
	name.WriteString("Check")
	for word := range strings.SplitSeq(words, "-") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return name.String()
}

// Report fails or skips t for a result.
func Report(t *testing.T, r check.Result) {
	t.Helper()
	switch r.Outcome {
	case check.Fail, check.Broken:
		t.Errorf("%s: %s\n%s", r.ID, r.Outcome, strings.Join(r.Reasons, "\n"))
		for _, e := range r.Evidence {
			t.Log(e)
		}
	case check.Skipped, check.Deviates:
		t.Log(strings.Join(r.Reasons, "\n")) // it is not about this driver, and so no deviation
	case check.Pass:
	}
	for _, left := range r.Left {
		t.Errorf("left behind: %s", left)
	}
}
