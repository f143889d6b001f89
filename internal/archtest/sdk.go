package archtest

import (
	"go/ast"
	"go/token"
	"slices"
)

// undocumented are methods whose meaning the standard library has fixed.
var undocumented = []string{
	"Error", "String", "Unwrap", "Is", "As", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "LogValue",
	"ServeHTTP",
}

func sdkDocs(t *tree) (found []finding) {
	for _, src := range t.code {
		if !within(src.dir, "sdk") || src.test || src.nested || src.ast.Name.Name == "main" {
			continue
		}
		for _, decl := range src.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if name, ok := exportedFunc(d); ok && d.Doc.Text() == "" {
					found = append(found, src.at(d, "%s has no doc comment", name))
				}
			case *ast.GenDecl:
				found = append(found, genDocs(src, d)...)
			}
		}
	}
	return found
}

// exportedFunc returns the name of a function, or of a method of an exported type,
// that has to be documented.
func exportedFunc(d *ast.FuncDecl) (string, bool) {
	name := d.Name.Name
	if !d.Name.IsExported() {
		return "", false
	}
	if d.Recv == nil {
		return name, true
	}
	recv := receiver(d.Recv.List[0].Type)
	return recv + "." + name, ast.IsExported(recv) && !slices.Contains(undocumented, name)
}

// receiver returns the name of the type in a receiver, without star and parameters.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func genDocs(src *source, d *ast.GenDecl) (found []finding) {
	missing := func(id *ast.Ident, docs ...*ast.CommentGroup) {
		for _, doc := range docs {
			if doc.Text() != "" {
				return
			}
		}
		if id.IsExported() {
			found = append(found, src.at(id, "%s has no doc comment", id.Name))
		}
	}
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			// The comment of a group is no comment on the types in it.
			docs := []*ast.CommentGroup{s.Doc}
			if !d.Lparen.IsValid() {
				docs = append(docs, d.Doc)
			}
			missing(s.Name, docs...)
			if iface, ok := s.Type.(*ast.InterfaceType); ok && s.Name.IsExported() {
				for _, m := range iface.Methods.List {
					for _, id := range m.Names {
						// An interface of one method is told by its own comment.
						if iface.Methods.NumFields() > 1 {
							missing(id, m.Doc, m.Comment)
						}
					}
				}
			}
		case *ast.ValueSpec:
			for _, id := range s.Names {
				missing(id, s.Doc, s.Comment, d.Doc)
			}
		}
	}
	return found
}

const maxMethods = 7

// largeInterfaces are those that may have more methods, and why.
var largeInterfaces = map[string]int{}

func interfaceSize(t *tree) (found []finding) {
	byDir := map[string]map[string]*ast.InterfaceType{}
	type declared struct {
		src  *source
		spec *ast.TypeSpec
	}
	var all []declared
	for _, src := range t.code {
		if !within(src.dir, "sdk") || src.test || src.nested {
			continue
		}
		if byDir[src.dir] == nil {
			byDir[src.dir] = map[string]*ast.InterfaceType{}
		}
		for _, decl := range src.ast.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE {
				continue
			}
			for _, spec := range d.Specs {
				s := spec.(*ast.TypeSpec)
				if iface, ok := s.Type.(*ast.InterfaceType); ok {
					byDir[src.dir][s.Name.Name] = iface
					all = append(all, declared{src, s})
				}
			}
		}
	}
	for _, d := range all {
		limit := maxMethods
		if l, ok := largeInterfaces[d.src.dir+"."+d.spec.Name.Name]; ok {
			limit = l
		}
		if n := methods(d.spec.Type.(*ast.InterfaceType), byDir[d.src.dir]); n > limit {
			found = append(found, d.src.at(d.spec, "interface %s has %d methods, of at most %d", d.spec.Name.Name, n, limit))
		}
	}
	return found
}

// methods counts those of an interface and of what it embeds. An embedded interface
// of another package counts as one method.
func methods(iface *ast.InterfaceType, local map[string]*ast.InterfaceType) int {
	n := 0
	for _, m := range iface.Methods.List {
		if len(m.Names) > 0 {
			n += len(m.Names)
			continue
		}
		if id, ok := m.Type.(*ast.Ident); ok && local[id.Name] != nil {
			n += methods(local[id.Name], local)
			continue
		}
		n++
	}
	return n
}
