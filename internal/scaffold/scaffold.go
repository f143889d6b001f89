// Package scaffold writes the source of a new plugin: a driver that works and passes the
// conformance suite, and all that it takes to ship it. Whoever wrote "remora plugin new" has
// something that runs, and changes it from there.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

//go:embed all:templates
var templates embed.FS

// kind is what sets one kind of plugin apart.
type kind struct {
	Kind      string
	Interface string // in config.json, and in lower case what an engine calls it
	Use       string // how it is tried
}

var kinds = []kind{
	{"volume", "VolumeDriver", "docker volume create -d NAME data"},
	{"network", "NetworkDriver", "docker network create -d NAME --ipam-driver NAME quiet"},
	{"ipam", "IpamDriver", "docker network create --ipam-driver NAME --subnet 10.20.0.0/24 lan"},
	{"authz", "authz", "dockerd --authorization-plugin=NAME"},
}

// Kinds returns the kinds of plugins there are.
func Kinds() []string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.Kind)
	}
	return all
}

// Plugin is what is to be written.
type Plugin struct {
	// Kind is one of [Kinds].
	Kind string
	// Name is the name by which engines call it, and of the program.
	Name string
	// Module is the Go module; empty is Name.
	Module string
	// SDK is the version of this module that go.mod asks for, such as v1.2.3. Any other
	// text leaves it to "go mod tidy".
	SDK string
}

var (
	nameForm    = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	moduleForm  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._~/-]*$`)
	releaseForm = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+$`)
)

func (p *Plugin) check() (kind, error) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.Kind == p.Kind })
	if i < 0 {
		return kind{}, errdefs.Errorf(errdefs.ErrInvalid, "kind %q: want one of %s", p.Kind, strings.Join(Kinds(), ", "))
	}
	if !nameForm.MatchString(p.Name) {
		return kind{}, errdefs.Errorf(errdefs.ErrInvalid, "name %q: want lower-case letters, digits, \"_\" and \"-\", a letter first, 63 at most", p.Name)
	}
	if p.Name == "bundle" {
		return kind{}, errdefs.Errorf(errdefs.ErrInvalid, "name %q: is the directory that \"make bundle\" makes", p.Name)
	}
	if p.Module == "" {
		p.Module = p.Name
	}
	if !moduleForm.MatchString(p.Module) {
		return kind{}, errdefs.Errorf(errdefs.ErrInvalid, "module %q: want a path such as example.com/%s", p.Module, p.Name)
	}
	return kinds[i], nil
}

// page is what templates see.
type page struct {
	Plugin
	kind
	Release bool // SDK is one
}

// Try is how the plugin is tried.
func (p page) Try() string { return strings.ReplaceAll(p.Use, "NAME", p.Name) }

// Type is the plugin's kind in Go, and its package of the SDK.
func (p page) Type() string { return p.Plugin.Kind }

// A is the kind with its article.
func (p page) A() string {
	if strings.ContainsAny(p.Type()[:1], "aeiou") {
		return "An " + p.Type()
	}
	return "A " + p.Type()
}

// Opts is the variable with the flags of the program, in the file of its unit.
func (p page) Opts() string {
	return strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")) + "_OPTS"
}

// Flag is one that is worth to be set there.
func (p page) Flag() string {
	switch p.Type() {
	case "volume":
		return "-root /srv/" + p.Name
	case "authz":
		return "-operators alice,bob"
	}
	return "-state /srv/" + p.Name
}

// Write makes the directory dir with the source in it, whole or not at all, and returns the
// names of its files. A directory that has something in it stays as it is.
func Write(dir string, p Plugin) (files []string, err error) {
	k, err := p.check()
	if err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "directory %q: is not empty", dir), "name another one with --dir")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "directory %q: %w", dir, err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	aside, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(aside))
		}
	}()
	data := page{p, k, releaseForm.MatchString(p.SDK)}
	for _, from := range []string{"common", k.Kind} {
		more, err := render(aside, path.Join("templates", from), data)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	slices.Sort(files)
	if err := os.Chmod(aside, 0o755); err != nil { //nolint:gosec // source is no secret
		return nil, err
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) { // an empty one
		return nil, fmt.Errorf("directory %q: %w", dir, err)
	}
	return files, os.Rename(aside, dir)
}

// render writes all templates below from.
func render(dir, from string, data page) (files []string, err error) {
	err = fs.WalkDir(templates, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := templates.ReadFile(name)
		if err != nil {
			return err
		}
		// GitHub's workflows have braces of their own.
		t, err := template.New(name).Delims("[[", "]]").Option("missingkey=error").Parse(string(text))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, data); err != nil {
			return err
		}
		to := strings.TrimSuffix(strings.TrimPrefix(name, from+"/"), ".tmpl")
		to = strings.ReplaceAll(strings.ReplaceAll(to, "dot-", "."), "NAME", data.Name)
		files = append(files, to)
		if err := os.MkdirAll(filepath.Join(dir, path.Dir(to)), 0o755); err != nil { //nolint:gosec // source is no secret
			return err
		}
		return os.WriteFile(filepath.Join(dir, to), b.Bytes(), 0o644) //nolint:gosec // neither is this
	})
	return files, err
}
