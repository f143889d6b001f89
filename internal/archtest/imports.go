package archtest

import (
	"go/ast"
	"path"
	"strings"
)

// sdkTestImports are what test files below sdk may import besides sdk itself: of a
// module, an author who imports the SDK builds none of its tests.
var sdkTestImports = []string{"github.com/google/go-cmp", "go.uber.org/goleak"}

func sdkImports(t *tree) (found []finding) {
	for _, src := range t.code {
		if !within(src.dir, "sdk") || src.nested {
			continue
		}
		for imp, at := range src.imports {
			dir, local := t.local(imp)
			switch {
			case std(imp), local && within(dir, "sdk"):
			case src.test && (withinAny(imp, sdkTestImports...) || dir == "internal/testenv"):
			default:
				found = append(found, src.at(at, "sdk imports %s", imp))
			}
		}
	}
	return found
}

// driverMayImport are the folders of this module that a driver stands on.
var driverMayImport = []string{
	"sdk", "internal/catalog", "internal/block", "internal/csi", "internal/definition", "internal/filesystem", "internal/jobs", "internal/mount", "internal/pooldir", "internal/remote", "internal/run", "internal/state",
}

// driverDir returns the folder of the driver to which dir belongs, such as
// "drivers/volume/dir".
func driverDir(dir string) (string, bool) {
	parts := strings.Split(dir, "/")
	if len(parts) < 3 || parts[0] != "drivers" {
		return "", false
	}
	return path.Join(parts[:3]...), true
}

func driverImports(t *tree) (found []finding) {
	for _, src := range t.code {
		own, ok := driverDir(src.dir)
		if !ok || src.nested {
			continue
		}
		for imp, at := range src.imports {
			dir, local := t.local(imp)
			switch {
			case !local, within(dir, own), withinAny(dir, driverMayImport...):
			case src.test && withinAny(dir, "internal/testenv", "test/cloud"):
			default:
				found = append(found, src.at(at, "driver %s imports %s", own, dir))
			}
		}
	}
	return found
}

// reference is the driver that tests elsewhere use in place of a mock.
const reference = "drivers/volume/mem"

func driversInOneList(t *tree) (found []finding) {
	for _, src := range t.code {
		own, isDriver := driverDir(src.dir)
		for imp, at := range src.imports {
			dir, _ := t.local(imp)
			driver, ok := driverDir(dir)
			switch {
			case !ok, src.dir == "drivers/all", isDriver && driver == own:
			case src.test && dir == reference:
			default:
				found = append(found, src.at(at, "imports the driver %s", dir))
			}
		}
	}
	return found
}

// layer says who may import a folder of this module, or what it may import itself.
type layer struct {
	dir string
	// by are the folders that may import dir; nil is everyone.
	by []string
	// only are the folders of this module that dir may import; nil is any.
	only []string
	// tests: the test files of every folder may import dir too.
	tests bool
}

var leaves = []string{"sdk", "internal/state", "internal/mount", "internal/run", "internal/logging"}

var layerTable = []layer{
	{dir: "cmd", only: []string{"internal/daemon", "internal/cli", "drivers/all"}},
	{dir: "internal/cli", by: []string{"cmd", "internal/docsgen"}},
	{dir: "internal/daemon", by: []string{"cmd", "internal/cli", "internal/docsgen"}},
	{dir: "drivers/all", by: []string{"cmd", "internal/cli", "internal/daemon", "internal/docsgen", "packaging/plugin"}},
	{dir: "internal/testenv", by: []string{"internal/testreport", "internal/testvm", "internal/block/blocktest", "test/cloud"}, tests: true},
	// Only the daemon puts the volume service together; its ground floor knows none of the rooms above.
	{dir: "internal/service", by: []string{"internal/daemon"}},
	{dir: "internal/service/pool", only: append([]string{"internal/catalog", "internal/config", "internal/control", "internal/schedule", "internal/usage"}, leaves...)},
	{dir: "internal/service/fill", only: append([]string{"internal/backup"}, leaves...)},
	// The floors of managed plugins, from the ground up: none of them knows one above it.
	{dir: "internal/managed/settings", only: leaves},
	{dir: "internal/managed/reference", only: leaves},
	{dir: "internal/managed/store", only: append([]string{"internal/managed/settings", "internal/managed/reference"}, leaves...)},
	{dir: "internal/managed/registry", only: append([]string{"internal/managed/settings", "internal/managed/reference", "internal/managed/store"}, leaves...)},
	{dir: "internal/managed/lock", only: leaves},
	{dir: "internal/managed/front", only: leaves},
	{dir: "internal/managed/volumes", only: append([]string{"internal/managed/lock"}, leaves...)},
	{dir: "internal/managed/engineapi", by: []string{"internal/service"}},
	{dir: "internal/managed/registry/registrytest", by: []string{}, tests: true},
	// The floors of a cluster, likewise.
	{dir: "internal/cluster/record", only: leaves},
	{dir: "internal/cluster/store", only: append([]string{"internal/cluster/record"}, leaves...)},
	{dir: "internal/cluster/password", only: leaves},
	{dir: "internal/cluster/link", only: append([]string{"internal/cluster/record", "internal/cluster/password"}, leaves...)},
	// A room of the network knows what hosts tell each other, and no other room.
	{dir: "internal/address", only: append([]string{"internal/cluster/record"}, leaves...)},
	{dir: "test/cloud", by: []string{"internal/block/blocktest"}, tests: true},
	// The data plane: each floor knows those below, and of the cluster only what its records are.
	{dir: "internal/mesh", only: append([]string{"internal/cluster/record"}, leaves...)},
	{dir: "internal/mesh/tunnel", only: leaves},
	{dir: "internal/mesh/probe", only: leaves},
	{dir: "internal/mesh/plan", only: append([]string{"internal/cluster/record", "internal/mesh/tunnel"}, leaves...)},
	{dir: "internal/mesh/kernel", only: append([]string{"internal/mesh/plan"}, leaves...)},
	{dir: "internal/state", only: leaves},
	{dir: "internal/mount", only: leaves},
	{dir: "internal/run", only: leaves},
	{dir: "internal/filesystem", only: leaves},
	{dir: "internal/logging", only: leaves},
}

func layers(t *tree) (found []finding) {
	for _, src := range t.code {
		for imp, at := range src.imports {
			dir, local := t.local(imp)
			if !local {
				continue
			}
			for _, l := range layerTable {
				if within(dir, l.dir) && l.by != nil && !within(src.dir, l.dir) &&
					!withinAny(src.dir, l.by...) && !(l.tests && src.test) {
					found = append(found, src.at(at, "%s imports %s", src.dir, dir))
				}
				if within(src.dir, l.dir) && l.only != nil && !within(dir, l.dir) &&
					!withinAny(dir, l.only...) && !src.test {
					found = append(found, src.at(at, "%s imports %s", src.dir, dir))
				}
			}
		}
	}
	return found
}

// forbidden maps an import, and all below it, to what takes its place. A path that
// ends in "$" is meant alone.
var forbidden = map[string]string{
	"log$":                        "log/slog",
	"io/ioutil":                   "io and os",
	"math/rand$":                  "math/rand/v2",
	"github.com/pkg/errors":       "fmt.Errorf with %w",
	"github.com/sirupsen/logrus":  "log/slog",
	"go.uber.org/zap":             "log/slog",
	"github.com/stretchr/testify": "if and go-cmp",
	"github.com/onsi/ginkgo":      "testing",
	"github.com/golang/mock":      "the driver mem, or a fake of your own",
	"go.uber.org/mock":            "the driver mem, or a fake of your own",
	"github.com/gorilla/mux":      "net/http.ServeMux",
}

func forbiddenImports(t *tree) (found []finding) {
	for _, src := range t.code {
		if src.nested {
			continue
		}
		for imp, at := range src.imports {
			for bad, instead := range forbidden {
				alone, isAlone := strings.CutSuffix(bad, "$")
				if imp == alone || !isAlone && within(imp, bad) {
					found = append(found, src.at(at, "imports %s; use %s", imp, instead))
				}
			}
		}
	}
	return found
}

// slogGlobals are the functions of log/slog that use or change the global logger.
var slogGlobals = map[string]bool{
	"Default": true, "SetDefault": true, "SetLogLoggerLevel": true, "With": true,
	"Debug": true, "Info": true, "Warn": true, "Error": true, "Log": true, "LogAttrs": true,
	"DebugContext": true, "InfoContext": true, "WarnContext": true, "ErrorContext": true,
}

func noGlobalLogger(t *tree) (found []finding) {
	for _, src := range t.code {
		if src.nested || !importsSlog(src) {
			continue
		}
		ast.Inspect(src.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "slog" && slogGlobals[sel.Sel.Name] {
				found = append(found, src.at(n, "slog.%s is the global logger", sel.Sel.Name))
			}
			return true
		})
	}
	return found
}

func importsSlog(src *source) bool {
	for imp := range src.imports {
		if imp == "log/slog" {
			return true
		}
	}
	return false
}
