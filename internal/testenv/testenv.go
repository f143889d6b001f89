// Package testenv says what a test needs of the machine it runs on.
//
//	testenv.Require(t, testenv.Root, testenv.Dockerd)
//
// Where a need is missing the test is skipped, with a reason that begins "needs
// NAME:". As go test hides skips, a machine that set out to run everything says so
// in the environment, and there the same test fails:
//
//	REMORA_TEST_MUST_RUN   names of needs, or "all": missing one of these fails
//	REMORA_TEST_MAY_SKIP   names that are skipped although the first said "all"
//
// Both are lists separated by commas or spaces. The program internal/testreport
// counts the skips by these names and holds them to the same [Policy]. What "go test
// -short" left out it counts as a skip for the reason "short", unless a later run in the
// same input made up for it.
//
// The package is for test files; nothing in the daemon imports it.
package testenv

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Need is one thing that a test wants of the machine.
type Need struct {
	// Name is the word for it in reasons and in REMORA_TEST_MUST_RUN.
	Name string
	// Check returns nil where the machine has it, else one line that says what is
	// missing and, where it can, what to install. It is called from many goroutines.
	Check func() error
}

// Require goes on where the machine has all of needs. Where one is missing it skips
// the test, or fails it where the environment says that it must run. It is called
// from the test's own goroutine, as [testing.TB.Skip] is.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	require(t, PolicyFromEnv(), needs)
}

func require(t testing.TB, p Policy, needs []Need) {
	t.Helper()
	if unknown := p.unknown(); len(unknown) > 0 {
		t.Fatalf("REMORA_TEST_MUST_RUN or REMORA_TEST_MAY_SKIP: %q is no need; known are %s",
			unknown, strings.Join(names(All()), ", "))
	}
	for _, n := range needs {
		err := n.Check()
		if err == nil {
			continue
		}
		if p.MustRun(n.Name) {
			t.Fatalf("needs %s, and REMORA_TEST_MUST_RUN forbids to skip: %v", n.Name, err)
		}
		t.Skipf("needs %s: %v", n.Name, err)
	}
}

// Policy is which skips are allowed. The zero value allows them all.
type Policy struct {
	mustRun []string
	maySkip []string
}

// PolicyFromEnv reads REMORA_TEST_MUST_RUN and REMORA_TEST_MAY_SKIP.
func PolicyFromEnv() Policy {
	return NewPolicy(os.Getenv("REMORA_TEST_MUST_RUN"), os.Getenv("REMORA_TEST_MAY_SKIP"))
}

// NewPolicy makes a Policy of the two lists, each separated by commas or spaces.
func NewPolicy(mustRun, maySkip string) Policy {
	split := func(list string) []string {
		return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	}
	return Policy{split(mustRun), split(maySkip)}
}

// MustRun reports whether a skip for the reason name is a failure.
func (p Policy) MustRun(name string) bool {
	if slices.Contains(p.mustRun, name) {
		return true
	}
	return slices.Contains(p.mustRun, "all") && !slices.Contains(p.maySkip, name)
}

// reasons are the words that may stand in the lists beside the needs: "all", the
// database of known vulnerabilities that a step of "make check" wants, a driver that
// deviates by its nature, "go test -short", and a skip that gives no name.
var reasons = []string{"all", "vulndb", "deviates", "short", "other"}

// unknown returns the words of both lists that name nothing: a word that is spelt
// wrong would forbid nothing and be believed.
func (p Policy) unknown() []string {
	known := append(names(All()), reasons...)
	var unknown []string
	for _, w := range slices.Concat(p.mustRun, p.maySkip) {
		if !slices.Contains(known, w) {
			unknown = append(unknown, w)
		}
	}
	return unknown
}

func names(needs []Need) []string {
	var out []string
	for _, n := range needs {
		out = append(out, n.Name)
	}
	return out
}
