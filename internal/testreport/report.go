package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/testenv"
)

// event is one line of "go test -json" ("go doc test2json", and "go help buildjson"
// for build-output), or of a step.
type event struct {
	Action     string
	Package    string  `json:",omitempty"`
	ImportPath string  `json:",omitempty"` // of build-output
	Test       string  `json:",omitempty"`
	Elapsed    float64 `json:",omitempty"` // seconds
	Output     string  `json:",omitempty"`
	// FailedBuild is the ImportPath whose build-output says why the package failed.
	FailedBuild string `json:",omitempty"`
}

// commandFailed is the action of a line that the script writes, with the command in
// Output, when a command ended with a failure. It counts where no event told of one.
const commandFailed = "command-failed"

// rerun is the action of a line that the script writes before it runs Test of Package, which
// failed, once more and alone.
const rerun = "rerun"

// maxFlaky is how many tests may fail first and pass when they are run again.
const maxFlaky = 3

// report is what is known so far.
type report struct {
	out                     io.Writer
	passed, failed, skipped int
	flaky, broken           []string // the latter failed again
	// failures has how many tests failed in the test at the top, as "PACKAGE TEST".
	failures map[string]int
	again    string         // of failures, what is run again
	reasons  map[string]int // skips by the name of what was missing
	// short has the tests that "go test -short" left out, as "PACKAGE TEST". One that a
	// later run does not leave out is counted by that alone.
	short    map[string]bool
	packages map[string]*pkg
	builds   map[string]*strings.Builder // build-output by ImportPath
	// seen is how many failures there were at the last commandFailed.
	seen int
}

// pkg is a package whose tests are running.
type pkg struct {
	tests  map[string]*test
	order  []string
	output strings.Builder // of no test
}

type test struct {
	output      strings.Builder
	result      string // "", "pass", "fail" or "skip"
	parent      bool   // it has subtests
	failedBelow bool   // one of them failed
}

// run reads events until the end of in and reports whether all is well.
func run(in io.Reader, out io.Writer, policy testenv.Policy) bool {
	r := &report{
		out: out, failures: map[string]int{}, reasons: map[string]int{}, short: map[string]bool{}, packages: map[string]*pkg{}, builds: map[string]*strings.Builder{},
	}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err != nil {
			break
		}
	}
	return r.end(policy)
}

func (r *report) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		r.printf("%s\n", strings.TrimRight(string(line), "\n"))
		return
	}
	switch e.Action {
	case "build-output":
		if r.builds[e.ImportPath] == nil {
			r.builds[e.ImportPath] = &strings.Builder{}
		}
		r.builds[e.ImportPath].WriteString(e.Output)
		return
	case "build-fail":
		return
	case commandFailed:
		if r.failed == r.seen {
			r.failed++
			r.printf("FAIL  %s\n", e.Output)
		}
		r.seen = r.failed
		return
	case rerun:
		r.again = e.Package + " " + e.Test
		return
	case "start":
		r.packages[e.Package] = &pkg{tests: map[string]*test{}}
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		r.packages[e.Package] = p
	}
	if e.Test == "" {
		r.packageEvent(p, e)
		return
	}
	t := p.test(e.Test)
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.result = e.Action
	}
}

func (p *pkg) test(name string) *test {
	t := p.tests[name]
	if t == nil {
		t = &test{}
		p.tests[name] = t
		p.order = append(p.order, name)
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			p.test(name[:i]).parent = true
		}
	}
	return t
}

func (r *report) packageEvent(p *pkg, e event) {
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
	case "skip": // no test files
		delete(r.packages, e.Package)
	case "pass", "fail":
		if strings.HasPrefix(r.again, e.Package+" ") {
			r.finishAgain(p, e)
		} else {
			r.finish(p, e)
		}
		delete(r.packages, e.Package)
	}
}

// finish counts a package's tests. A test with subtests is counted by them, but for
// one that failed although none of them did.
func (r *report) finish(p *pkg, e event) {
	var passed, skipped int
	var failed []string
	for _, name := range slices.Backward(p.order) {
		t := p.tests[name]
		if t.result == "" { // it was running when the process ended
			t.result = "fail"
			if e.Action == "pass" {
				t.result = "pass"
			}
		}
		if t.result == "fail" {
			if i := strings.LastIndexByte(name, '/'); i > 0 {
				p.tests[name[:i]].failedBelow = true
			}
		}
		id := e.Package + " " + name
		if r.short[id] {
			delete(r.short, id)
			r.skipped--
			r.reasons["short"]--
		}
		switch {
		case t.result == "fail" && !t.failedBelow:
			failed = append(failed, name)
		case t.parent || t.result == "fail":
		case t.result == "skip":
			skipped++
			why := reason(t.output.String())
			r.reasons[why]++
			if why == "short" {
				r.short[id] = true
			}
		default:
			passed++
		}
	}
	slices.Reverse(failed)
	for _, name := range failed {
		r.failures[e.Package+" "+top(name)]++
	}
	name := shorten(e.Package)
	if e.Action == "pass" && len(failed) == 0 {
		r.printf("ok    %-32s %6.1fs  %s\n", name, e.Elapsed, counts(passed, 0, skipped))
	} else {
		r.printf("FAIL  %-32s %6.1fs  %s\n", name, e.Elapsed, counts(passed, max(1, len(failed)), skipped))
		r.explain(p, e, failed)
	}
	r.passed += passed
	r.skipped += skipped
	r.failed += len(failed)
	if e.Action == "fail" && len(failed) == 0 {
		r.failed++ // it did not build, or ended by itself
	}
}

// finishAgain counts a test that failed as flaky where it passes when it is run alone. What
// it printed when it failed was shown already.
func (r *report) finishAgain(p *pkg, e event) {
	failures := r.failures[r.again]
	ran := slices.ContainsFunc(p.order, func(name string) bool { return p.tests[name].result == "pass" })
	if e.Action == "pass" && ran && failures > 0 {
		r.printf("flaky %s passed when it was run again\n", shorten(r.again))
		r.failed -= failures
		r.seen -= failures
		r.flaky = append(r.flaky, r.again)
	} else {
		r.printf("FAIL  %s failed again\n", shorten(r.again))
		r.broken = append(r.broken, r.again)
	}
	delete(r.failures, r.again)
	r.again = ""
}

// top is the test at the top of a subtest.
func top(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}

// explain prints why a package failed.
func (r *report) explain(p *pkg, e event, failed []string) {
	if b := r.builds[e.FailedBuild]; b != nil {
		r.indent(b.String())
	}
	for _, name := range failed {
		text := p.tests[name].output.String()
		if !strings.Contains(text, "--- FAIL: "+name) {
			r.printf("    --- FAIL: %s\n", name)
		}
		r.indent(text)
	}
	r.indent(p.output.String())
}

func (r *report) indent(text string) {
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "=== "), line == "FAIL\n", line == "PASS\n":
		default:
			r.printf("    %s\n", strings.TrimRight(line, "\n"))
		}
	}
}

// end prints the summary; the count stands alone on the last line.
func (r *report) end(policy testenv.Policy) bool {
	for name, p := range r.packages { // the input ended in the middle
		r.finish(p, event{Action: "fail", Package: name})
	}
	ok := r.failed == 0
	if r.passed+r.failed+r.skipped == 0 {
		r.printf("no test ran\n")
		ok = false
	}
	if r.skipped > 0 {
		var list, bad []string
		for name, n := range r.reasons {
			if n == 0 {
				continue
			}
			list = append(list, fmt.Sprintf("%s %d", name, n))
			if policy.MustRun(name) {
				bad = append(bad, name)
			}
		}
		slices.Sort(list)
		slices.Sort(bad)
		r.printf("\nskipped %d: %s\n", r.skipped, strings.Join(list, ", "))
		if len(bad) > 0 {
			r.printf("REMORA_TEST_MUST_RUN forbids to skip: %s\n", strings.Join(bad, ", "))
			ok = false
		}
	}
	if n := len(r.flaky); n > 0 {
		r.printf("flaky %d, at most %d may be: %s\n", n, maxFlaky, shorten(strings.Join(r.flaky, ", ")))
		ok = ok && n <= maxFlaky
	}
	if broken := slices.Sorted(maps.Keys(r.failures)); len(broken)+len(r.broken) > 0 {
		r.printf("failed: %s\n", shorten(strings.Join(append(r.broken, broken...), ", ")))
	}
	r.printf("%s\n", counts(r.passed, r.failed, r.skipped))
	return ok
}

func (r *report) printf(format string, args ...any) {
	// Where standard output is gone there is nobody to tell.
	_, _ = fmt.Fprintf(r.out, format, args...)
}

func counts(passed, failed, skipped int) string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", passed, failed, skipped)
}

// shorten leaves the module's path out of packages'.
func shorten(pkg string) string {
	return strings.ReplaceAll(pkg, "github.com/remora-plugins/remora/", "")
}

var (
	logLine  = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)$`)
	needs    = regexp.MustCompile(`^needs ([a-z0-9-]+): `)
	category = regexp.MustCompile(`^(deviates|short): `)
)

// reason finds the name of what a skipped test lacked in its output: the last thing
// it logged is why it was skipped.
func reason(output string) string {
	last := ""
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if m := logLine.FindStringSubmatch(line); m != nil {
			last = m[1]
		} else if needs.MatchString(line) {
			last = line
		}
	}
	for _, re := range []*regexp.Regexp{needs, category} {
		if m := re.FindStringSubmatch(last); m != nil {
			return m[1]
		}
	}
	return "other"
}
