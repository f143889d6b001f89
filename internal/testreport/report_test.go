package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/testenv"
)

// goTest runs the tests of packages of the sample and returns what go test printed.
func goTest(t *testing.T, packages ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-json"}, packages...)...)
	cmd.Dir = "testdata/sample"
	out, err := cmd.Output()
	if len(out) == 0 {
		t.Fatalf("go test: %v", err)
	}
	return string(out)
}

// reportOf returns the lines that run prints, without the times.
func reportOf(input string, policy testenv.Policy) (lines []string, ok bool) {
	var out bytes.Buffer
	ok = run(strings.NewReader(input), &out, policy)
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), ok
}

func last(lines []string) string { return lines[len(lines)-1] }

func TestGood(t *testing.T) {
	input := goTest(t, "./good", "./none")
	for _, tt := range []struct {
		name             string
		mustRun, maySkip string
		ok               bool
		forbidden        string
	}{
		{name: "skips are allowed", ok: true},
		{name: "another must run", mustRun: "root", ok: true},
		{name: "podman must run", mustRun: "podman", forbidden: "podman"},
		{name: "all", mustRun: "all", forbidden: "other, podman, systemd"},
		{name: "all but two", mustRun: "all", maySkip: "systemd,other", forbidden: "podman"},
		{name: "all but three", mustRun: "all", maySkip: "systemd podman other", ok: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines, ok := reportOf(input, testenv.NewPolicy(tt.mustRun, tt.maySkip))
			if ok != tt.ok {
				t.Errorf("ok: %v, want %v", ok, tt.ok)
			}
			// FuzzSeeds counts by its one seed.
			want := []string{"", "skipped 3: other 1, podman 1, systemd 1"}
			if tt.forbidden != "" {
				want = append(want, "REMORA_TEST_MUST_RUN forbids to skip: "+tt.forbidden)
			}
			want = append(want, "4 passed, 0 failed, 3 skipped")
			if diff := cmp.Diff(want, lines[1:]); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(lines[0], "ok    example.org/sample/good ") || !strings.HasSuffix(lines[0], "  4 passed, 0 failed, 3 skipped") {
				t.Errorf("the package's line is %q", lines[0])
			}
		})
	}
}

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		pkg   string
		count string
		shows []string
		hides []string
	}{
		{
			"./bad", "3 passed, 3 failed, 0 skipped",
			[]string{"it is so", "one part is bad", "the whole is not", "--- FAIL: TestParts/bad"},
			[]string{"--- PASS", "=== RUN"},
		},
		{"./broken", "0 passed, 1 failed, 0 skipped", []string{"undefined: testing"}, nil},
		{"./crash", "1 passed, 1 failed, 0 skipped", []string{"panic: it crashed", "TestCrash"}, nil},
		{"./gone", "0 passed, 1 failed, 0 skipped", []string{"exit status 3"}, nil},
		{"./good ./broken", "4 passed, 1 failed, 3 skipped", []string{"FAIL  example.org/sample/broken"}, nil},
	} {
		t.Run(tt.pkg, func(t *testing.T) {
			lines, ok := reportOf(goTest(t, strings.Fields(tt.pkg)...), testenv.Policy{})
			if ok {
				t.Error("a failure passed")
			}
			if last(lines) != tt.count {
				t.Errorf("the last line is %q, want %q", last(lines), tt.count)
			}
			text := strings.Join(lines, "\n")
			for _, s := range tt.shows {
				if !strings.Contains(text, s) {
					t.Errorf("no %q in:\n%s", s, text)
				}
			}
			for _, s := range tt.hides {
				if strings.Contains(text, s) {
					t.Errorf("%q shows in:\n%s", s, text)
				}
			}
		})
	}
}

func TestInput(t *testing.T) {
	for _, tt := range []struct {
		name, input string
		want        []string
		ok          bool
	}{
		{"empty", "", []string{"no test ran", "0 passed, 0 failed, 0 skipped"}, false},
		{
			"a line that is no event is shown", "go: no such module\n",
			[]string{"go: no such module", "no test ran", "0 passed, 0 failed, 0 skipped"},
			false,
		},
		{
			"a command that failed before any event",
			`{"Action":"command-failed","Output":"go test ./nowhere"}` + "\n",
			[]string{"FAIL  go test ./nowhere", "0 passed, 1 failed, 0 skipped"},
			false,
		},
		{
			"the input ends in the middle",
			`{"Action":"start","Package":"p"}` + "\n" + `{"Action":"run","Package":"p","Test":"TestX"}` + "\n",
			[]string{
				"FAIL  p                                   0.0s  0 passed, 1 failed, 0 skipped", "    --- FAIL: TestX",
				"failed: p TestX", "0 passed, 1 failed, 0 skipped",
			},
			false,
		},
		{
			"a command whose failure was told counts once, and the same package may come twice",
			`{"Action":"start","Package":"p"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestX"}` + "\n" +
				`{"Action":"fail","Package":"p"}` + "\n" + `{"Action":"command-failed","Output":"go test p"}` + "\n" +
				`{"Action":"start","Package":"p"}` + "\n" + `{"Action":"pass","Package":"p","Test":"FuzzX"}` + "\n" +
				`{"Action":"pass","Package":"p"}` + "\n",
			[]string{
				"FAIL  p                                   0.0s  0 passed, 1 failed, 0 skipped", "    --- FAIL: TestX",
				"ok    p                                   0.0s  1 passed, 0 failed, 0 skipped",
				"failed: p TestX", "1 passed, 1 failed, 0 skipped",
			},
			false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines, ok := reportOf(tt.input, testenv.Policy{})
			if diff := cmp.Diff(tt.want, lines); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if ok != tt.ok {
				t.Errorf("ok: %v, want %v", ok, tt.ok)
			}
		})
	}
}

// TestShort: what "go test -short" left out is a skip until a later run makes up for it.
func TestShort(t *testing.T) {
	run := func(test, result, output string) string {
		return `{"Action":"start","Package":"p"}` + "\n" +
			`{"Action":"output","Package":"p","Test":"` + test + `","Output":"    p_test.go:1: ` + output + `\n"}` + "\n" +
			`{"Action":"` + result + `","Package":"p","Test":"` + test + `"}` + "\n" + `{"Action":"pass","Package":"p"}` + "\n"
	}
	short := run("TestEngine/port", "skip", "short: it starts an engine")
	for _, tt := range []struct {
		name, input, count, says string
		ok                       bool
	}{
		{"never made up for", short, "0 passed, 0 failed, 1 skipped", "REMORA_TEST_MUST_RUN forbids to skip: short", false},
		{"made up for", short + run("TestEngine/port", "pass", "fine"), "1 passed, 0 failed, 0 skipped", "", true},
		{"by another test", short + run("TestEngine/socket", "pass", "fine"), "1 passed, 0 failed, 1 skipped", "forbids to skip: short", false},
		{"left out twice", short + short, "0 passed, 0 failed, 1 skipped", "forbids to skip: short", false},
		{
			"skipped for lack of an engine", short + run("TestEngine/port", "skip", "needs dockerd: none"),
			"0 passed, 0 failed, 1 skipped", "forbids to skip: dockerd", false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines, ok := reportOf(tt.input, testenv.NewPolicy("all", ""))
			if text := strings.Join(lines, "\n"); ok != tt.ok || last(lines) != tt.count || !strings.Contains(text, tt.says) {
				t.Errorf("ok %v, want %v and %q:\n%s", ok, tt.ok, tt.count, text)
			}
		})
	}
}

func TestStep(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		count        string
		shows        string
		ok           bool
	}{
		{"pass", "echo quiet", "1 passed, 0 failed, 0 skipped", "ok    step lint", true},
		{"fail", "echo what is wrong; exit 1", "0 passed, 1 failed, 0 skipped", "what is wrong", false},
		{"skip", "echo needs vulndb: not reachable; exit 75", "0 passed, 0 failed, 1 skipped", "skipped 1: vulndb 1", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var events bytes.Buffer
			step(t.Context(), &events, "lint", []string{"sh", "-c", tt.script})
			lines, ok := reportOf(events.String(), testenv.Policy{})
			if ok != tt.ok || last(lines) != tt.count {
				t.Errorf("ok %v, %q; want %v, %q", ok, last(lines), tt.ok, tt.count)
			}
			if text := strings.Join(lines, "\n"); !strings.Contains(text, tt.shows) {
				t.Errorf("no %q in:\n%s", tt.shows, text)
			}
		})
	}
	t.Run("no such command", func(t *testing.T) {
		var events bytes.Buffer
		step(t.Context(), &events, "lint", []string{"/nowhere/lint"})
		if lines, ok := reportOf(events.String(), testenv.Policy{}); ok || last(lines) != "0 passed, 1 failed, 0 skipped" {
			t.Errorf("ok %v, %q", ok, lines)
		}
	})
}
