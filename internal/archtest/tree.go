// Package archtest holds the tree to the rules of the house: who may import whom,
// how long a file may be, what a driver's folder must have. It has tests only.
//
// The rules are the table in rules.go, each with its reason. The files are parsed
// here and not listed by "go list": the go command caches a test by the files it
// opened itself, so that a test asking a child process would go on passing from
// the cache after a forbidden import was added.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// tree is the project's files as the rules see them.
type tree struct {
	fsys fs.FS
	// module is the path in the root's go.mod.
	module string
	// files are all files but those below testdata and what is built, by path.
	files []string
	// code are the Go files among them, parsed.
	code []*source
}

// source is one Go file.
type source struct {
	path, dir string
	test      bool
	// nested: the file belongs to another module below the root, with its own go.mod.
	nested bool
	lines  int
	fset   *token.FileSet
	ast    *ast.File
}

// finding is one place where a rule is broken. Line 0 is the whole file.
type finding struct {
	path string
	line int
	text string
}

func (f finding) String() string {
	if f.line == 0 {
		return f.path + ": " + f.text
	}
	return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.text)
}

// load reads and parses a tree.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fsys: fsys}
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mod)) {
		if m, ok := strings.CutPrefix(line, "module "); ok {
			t.module = strings.TrimSpace(m)
		}
	}
	nested := map[string]bool{}
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := fs.Stat(fsys, path.Join(p, "go.mod")); (err == nil && p != ".") || nested[path.Dir(p)] {
				nested[p] = true
			}
			return skipDir(p, d.Name())
		}
		t.files = append(t.files, p)
		if path.Ext(p) != ".go" {
			return nil
		}
		src, err := parse(fsys, p)
		if err != nil {
			return err
		}
		src.nested = nested[src.dir]
		t.code = append(t.code, src)
		return nil
	})
	return t, err
}

func skipDir(p, name string) error {
	hidden := strings.HasPrefix(name, ".") && p != "." && p != ".github" && p != ".ci"
	if hidden || name == "testdata" || p == "bin" || p == "dist" {
		return fs.SkipDir
	}
	return nil
}

func parse(fsys fs.FS, p string) (*source, error) {
	text, err := fs.ReadFile(fsys, p)
	if err != nil {
		return nil, err
	}
	src := &source{
		path:  p,
		dir:   path.Dir(p),
		test:  strings.HasSuffix(p, "_test.go"),
		lines: strings.Count(string(text), "\n"),
		fset:  token.NewFileSet(),
	}
	src.ast, err = parser.ParseFile(src.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
	return src, err
}

// at makes a finding at a node of the file.
func (s *source) at(n ast.Node, format string, args ...any) finding {
	return finding{s.path, s.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...)}
}

// imports yields the path of each import and where it stands.
func (s *source) imports(yield func(string, ast.Node) bool) {
	for _, spec := range s.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has refused it already
		}
		if !yield(p, spec) {
			return
		}
	}
}

// within reports whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

// withinAny reports whether p is one of dirs or lies below one.
func withinAny(p string, dirs ...string) bool {
	for _, dir := range dirs {
		if within(p, dir) {
			return true
		}
	}
	return false
}

// local returns the folder of an import of this module.
func (t *tree) local(imported string) (dir string, ok bool) {
	if imported == t.module {
		return ".", true
	}
	return strings.CutPrefix(imported, t.module+"/")
}

// std reports whether an import is of the standard library, whose paths have no dot
// in their first element.
func std(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}
