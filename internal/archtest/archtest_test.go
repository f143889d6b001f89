package archtest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestTree holds this tree to every rule.
func TestTree(t *testing.T) {
	tr, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.code) < 10 {
		t.Fatalf("only %d Go files were found", len(tr.code))
	}
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range sorted(r.check(tr)) {
				t.Errorf("%s\n\t%s", f, r.reason)
			}
		})
	}
}

// TestRules runs each rule over a tree that breaks it. The fixture NAME.txtar holds
// the tree, right files and wrong ones, and in the file "want" what is reported.
func TestRules(t *testing.T) {
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			fsys, want := fixture(t, filepath.Join("testdata", r.name+".txtar"))
			if len(want) == 0 {
				t.Fatal("the fixture breaks nothing")
			}
			tr, err := load(fsys)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range sorted(r.check(tr)) {
				got = append(got, f.String())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if r.reason == "" {
				t.Error("the rule has no reason")
			}
		})
	}
}

func TestEveryFixtureHasItsRule(t *testing.T) {
	files, err := fs.Glob(os.DirFS("testdata"), "*")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, r := range rules() {
		want = append(want, r.name+".txtar")
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("fixtures (-rules +files):\n%s", diff)
	}
}

// fixture reads a tree out of a txtar archive. A line "//pad N" stands for N lines
// of comment, so that a long file need not be long here.
func fixture(t *testing.T, name string) (fs.FS, []string) {
	t.Helper()
	ar, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{"go.mod": {Data: []byte("module example.org/m\n")}}
	var want []string
	for _, f := range ar.Files {
		if f.Name == "want" {
			want = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
			continue
		}
		fsys[f.Name] = &fstest.MapFile{Data: []byte(pad(t, string(f.Data)))}
	}
	return fsys, want
}

func pad(t *testing.T, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		count, ok := strings.CutPrefix(line, "//pad ")
		if !ok {
			b.WriteString(line)
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(count))
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(strings.Repeat("// pad\n", n))
	}
	return b.String()
}

func sorted(found []finding) []finding {
	slices.SortFunc(found, func(a, b finding) int {
		if c := strings.Compare(a.path, b.path); c != 0 {
			return c
		}
		if a.line != b.line {
			return a.line - b.line
		}
		return strings.Compare(a.text, b.text)
	})
	return found
}

func TestFindingString(t *testing.T) {
	for _, tt := range []struct {
		finding
		want string
	}{
		{finding{"a.go", 3, "x"}, "a.go:3: x"},
		{finding{"sdk", 0, "x"}, "sdk: x"},
	} {
		if got := fmt.Sprint(tt.finding); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
