package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/testenv"
)

func TestFailed(t *testing.T) {
	for _, tt := range []struct{ pkg, want string }{
		{"./bad", "example.org/sample/bad TestFail\nexample.org/sample/bad TestItself\nexample.org/sample/bad TestParts\n"},
		{"./good", ""},
		{"./broken", ""},
		{"./gone", ""},
		{"./crash", ""}, // the tests after the one that crashed never ran
	} {
		t.Run(strings.TrimPrefix(tt.pkg, "./"), func(t *testing.T) {
			var out bytes.Buffer
			if err := failed(strings.NewReader(goTest(t, tt.pkg)), &out); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("worth another run (-want +got):\n%s", diff)
			}
		})
	}
	var many strings.Builder
	for _, name := range []string{"TestA/1", "TestB", "TestC", "TestD"} {
		many.WriteString(`{"Action":"fail","Package":"p","Test":"` + name + `"}` + "\n")
	}
	var out bytes.Buffer
	if err := failed(strings.NewReader(many.String()), &out); err != nil || out.Len() > 0 {
		t.Errorf("a package of which four tests failed: %v, %q", err, out.String())
	}
}

// events is one run of a package with these tests, as NAME=RESULT.
func events(pkg string, tests ...string) string {
	var b strings.Builder
	b.WriteString(`{"Action":"start","Package":"` + pkg + `"}` + "\n")
	whole := "pass"
	for _, test := range tests {
		name, result, _ := strings.Cut(test, "=")
		b.WriteString(`{"Action":"` + result + `","Package":"` + pkg + `","Test":"` + name + `"}` + "\n")
		if result == "fail" {
			whole = "fail"
		}
	}
	b.WriteString(`{"Action":"` + whole + `","Package":"` + pkg + `"}` + "\n")
	if whole == "fail" {
		b.WriteString(`{"Action":"command-failed","Output":"go test ` + pkg + `"}` + "\n")
	}
	return b.String()
}

func TestFlaky(t *testing.T) {
	again := func(test string) string { return `{"Action":"rerun","Package":"p","Test":"` + test + `"}` + "\n" }
	first := events("p", "TestX=fail", "TestX/a=fail", "TestX/b=fail", "TestX/c=pass", "TestY=pass")
	var four string
	for _, test := range []string{"TestA", "TestB", "TestC", "TestD"} {
		four += events("p", test+"=fail") + again(test) + events("p", test+"=pass")
	}
	for _, tt := range []struct {
		name, input, count, says string
		ok                       bool
	}{
		{
			"it passes", first + again("TestX") + events("p", "TestX=pass", "TestX/a=pass", "TestX/b=pass", "TestX/c=pass"),
			"2 passed, 0 failed, 0 skipped", "flaky p TestX passed when it was run again", true,
		},
		{
			"it fails", first + again("TestX") + `{"Action":"fail","Package":"p","Test":"TestX"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n",
			"2 passed, 2 failed, 0 skipped", "FAIL  p TestX failed again", false,
		},
		{"it is skipped", first + again("TestX") + events("p", "TestX=skip"), "2 passed, 2 failed, 0 skipped", "failed again", false},
		{"nothing runs", first + again("TestX") + events("p"), "2 passed, 2 failed, 0 skipped", "failed again", false},
		{"it does not build", first + again("TestX") + events("q", "TestQ=pass"), "3 passed, 2 failed, 0 skipped", "ok    q", false},
		{
			"another fails later", first + again("TestX") + events("p", "TestX=pass") + events("q", "TestQ=fail"),
			"2 passed, 1 failed, 0 skipped", "FAIL  q", false,
		},
		{"four of them", four, "0 passed, 0 failed, 0 skipped", "flaky 4, at most 3 may be: p TestA, p TestB, p TestC, p TestD", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines, ok := reportOf(tt.input, testenv.Policy{})
			if text := strings.Join(lines, "\n"); ok != tt.ok || last(lines) != tt.count || !strings.Contains(text, tt.says) {
				t.Errorf("ok %v, want %v, %q and %q:\n%s", ok, tt.ok, tt.count, tt.says, text)
			}
		})
	}
}
