package archtest

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"regexp"
	"slices"
	"strings"
)

// Limits in lines, comments included.
const (
	maxFile    = 600
	maxTest    = 900
	maxMain    = 40
	maxExample = 79
)

func fileLength(t *tree) (found []finding) {
	for _, src := range t.code {
		limit := maxFile
		if src.test {
			limit = maxTest
		}
		if src.lines > limit {
			found = append(found, finding{src.path, 0, fmt.Sprintf("%d lines, of at most %d", src.lines, limit)})
		}
	}
	return found
}

func mainLength(t *tree) (found []finding) {
	for _, src := range t.code {
		if within(src.dir, "cmd") && strings.HasSuffix(src.path, "/main.go") && src.lines > maxMain {
			found = append(found, finding{src.path, 0, fmt.Sprintf("%d lines, of at most %d", src.lines, maxMain)})
		}
	}
	return found
}

func exampleLength(t *tree) (found []finding) {
	lines := map[string]int{}
	for _, src := range t.code {
		if within(src.dir, "sdk/examples") && !src.test {
			lines[src.dir] += src.lines
		}
	}
	for _, dir := range sortedKeys(lines) {
		if lines[dir] > maxExample {
			found = append(found, finding{dir, 0, fmt.Sprintf("%d lines, of at most %d", lines[dir], maxExample)})
		}
	}
	return found
}

func noInit(t *tree) (found []finding) {
	for _, src := range t.code {
		for _, decl := range src.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				found = append(found, src.at(f, "func init"))
			}
		}
	}
	return found
}

func packageComment(t *tree) (found []finding) {
	// A folder of tests alone has its comment in one of them; elsewhere a comment in
	// a test file is seen by no reader of the documentation.
	code := map[string]bool{}
	for _, src := range t.code {
		code[src.dir] = code[src.dir] || !src.test
	}
	has := map[string]bool{}
	for _, src := range t.code {
		has[src.dir] = has[src.dir] || (src.test != code[src.dir] && commented(src.ast))
	}
	for _, dir := range sortedKeys(has) {
		if !has[dir] {
			found = append(found, finding{dir, 0, "no package comment"})
		}
	}
	return found
}

// commented reports whether the file has a package comment that begins as godoc
// wants it. That of a command may begin with any word.
func commented(f *ast.File) bool {
	text := f.Doc.Text()
	return strings.HasPrefix(text, "Package "+f.Name.Name+" ") || f.Name.Name == "main" && text != ""
}

var badNames = []string{
	"pkg", "util", "utils", "common", "types", "models", "mocks", "helpers", "helper", "interfaces", "misc", "base", "shared",
}

func packageName(t *tree) (found []finding) {
	dirs := map[string]bool{}
	for _, src := range t.code {
		dirs[src.dir] = true
		if name := strings.TrimSuffix(src.ast.Name.Name, "_test"); slices.Contains(badNames, name) {
			found = append(found, src.at(src.ast.Name, "package %s", name))
		}
	}
	for _, dir := range sortedKeys(dirs) {
		for elem := range strings.SplitSeq(dir, "/") {
			if slices.Contains(badNames, elem) {
				found = append(found, finding{dir, 0, "a folder called " + elem})
			}
		}
	}
	return found
}

var unfinishedWord = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b|\b[Ff]or now\b`)

func unfinished(t *tree) (found []finding) {
	for _, src := range t.code {
		for _, group := range src.ast.Comments {
			for _, c := range group.List {
				if word := unfinishedWord.FindString(c.Text); word != "" {
					found = append(found, src.at(c, "a comment says %q", word))
				}
			}
		}
	}
	return found
}

// platformTags are the words that a build constraint of a test may use.
var platformTags = []string{"linux", "darwin", "windows", "unix", "amd64", "arm64", "race", "cgo"}

func noTestTags(t *tree) (found []finding) {
	for _, src := range t.code {
		if !src.test {
			continue
		}
		for _, group := range src.ast.Comments {
			for _, c := range group.List {
				expr, err := constraint.Parse(c.Text)
				if err != nil || c.Pos() > src.ast.Package {
					continue
				}
				expr.Eval(func(tag string) bool {
					if !slices.Contains(platformTags, tag) {
						found = append(found, src.at(c, "build tag %s", tag))
					}
					return true
				})
			}
		}
	}
	return found
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
