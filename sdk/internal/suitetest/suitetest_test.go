package suitetest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// suite is what TestInner runs. One of its cases leaves something behind until left ends.
func suite(left chan struct{}) Suite[string] {
	return Suite[string]{
		Name: "exampletest",
		Direct: []Cases[string]{{
			"Given": func(t *testing.T, c string) { t.Log("got " + c) },
			"Leaks": func(*testing.T, string) { go func() { <-left }() },
		}},
		Wire: []Cases[string]{{"Fails": func(t *testing.T, _ string) { t.Error("it does") }}},
	}
}

// TestInner is run by TestRun as a process of its own.
func TestInner(t *testing.T) {
	s, deviates := suite(make(chan struct{})), map[string]string{}
	switch os.Getenv("SUITETEST_INNER") {
	case "":
		return
	case "all deviate":
		deviates = map[string]string{"Leaks": "by design", "Fails": "by nature"}
	case "unknown":
		deviates["Gievn"] = "by design"
	case "no reason":
		deviates["Given"] = " "
	case "twice":
		s.Wire = append(s.Wire, s.Direct[0])
	}
	s.Run(t, "a config", deviates)
}

func TestRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fails bool
		says  []string
	}{
		{"nothing deviates", true, []string{
			"got a config", "--- PASS: TestInner/direct/Given", "--- FAIL: TestInner/direct/Leaks", "left behind: goroutine", "--- FAIL: TestInner/wire/Fails",
		}},
		{"all deviate", false, []string{"--- PASS: TestInner/direct/Given", "deviates: by design", "--- SKIP: TestInner/direct/Leaks", "--- SKIP: TestInner/wire/Fails"}},
		{"unknown", true, []string{`exampletest: Deviates["Gievn"]`}},
		{"no reason", true, []string{`exampletest: Deviates["Given"]`}},
		{"twice", true, []string{`exampletest: two cases are called "`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInner$", "-test.v")
			cmd.Env = append(os.Environ(), "SUITETEST_INNER="+tt.name)
			out, err := cmd.CombinedOutput()
			if failed := err != nil; failed != tt.fails {
				t.Errorf("failed: %v, want %v", failed, tt.fails)
			}
			for _, s := range tt.says {
				if !strings.Contains(string(out), s) {
					t.Errorf("no %q in:\n%s", s, out)
				}
			}
		})
	}
}
