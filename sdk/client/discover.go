package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The engine's directories (moby pkg/plugins/discovery_unix.go). The one of sockets
// moves with no option of the engine.
const (
	socketDir   = "/run/docker/plugins"
	hostSpecDir = "/etc/docker/plugins"
	distSpecDir = "/usr/lib/docker/plugins"
)

// Dirs is where plugins are looked for. The zero value is the engine's own directories.
type Dirs struct {
	// Sockets is the directory of sockets; empty is /run/docker/plugins.
	Sockets string
	// Specs are the directories of .spec and .json files, the first one first; nil is
	// /etc/docker/plugins and /usr/lib/docker/plugins.
	Specs []string
}

func (d Dirs) sockets() string { return cmp.Or(d.Sockets, socketDir) }

func (d Dirs) specs() []string {
	if d.Specs == nil {
		return []string{hostSpecDir, distSpecDir}
	}
	return d.Specs
}

// Find looks for a plugin by name, as an engine does when the name is first used. The
// first of these that exists is taken:
//
//	Sockets: NAME.sock, NAME/NAME.sock, where they are sockets or links to one
//	each of Specs: NAME.spec, NAME/NAME.spec, NAME.json, NAME/NAME.json
//
// None of them is ErrNotFound, or ErrDenied where a directory could not be looked into.
// A file that is found and wrong is ErrInvalid: nothing further is tried. Find is safe
// for concurrent use and connects to nothing.
func (d Dirs) Find(name string) (Endpoint, error) {
	if err := checkName(name); err != nil {
		return Endpoint{}, err
	}
	var unseen error // the first path that could not be looked at
	for _, file := range forms(d.sockets(), name, ".sock") {
		info, err := os.Stat(file)
		if err == nil && info.Mode().Type() == fs.ModeSocket {
			return socketEndpoint(name, file), nil
		}
		unseen = cmp.Or(unseen, unreadable(err))
	}
	for _, dir := range d.specs() {
		for _, ext := range []string{".spec", ".json"} {
			for _, file := range forms(dir, name, ext) {
				_, err := os.Stat(file)
				if err == nil {
					return readSpec(name, file)
				}
				unseen = cmp.Or(unseen, unreadable(err))
			}
		}
	}
	if unseen != nil {
		return Endpoint{}, pathError(name, unseen)
	}
	places := strings.Join(append([]string{d.sockets()}, d.specs()...), ", ")
	return Endpoint{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "plugin %q: not found in %s", name, places),
		"start the plugin, or look at the spelling: its name is that of its .sock, .spec or .json file")
}

// Wait is Find for a plugin that may be about to start: while there is none it looks
// again after 1, 2, 4 and 8 seconds, 15 seconds in all, as an engine does.
func (d Dirs) Wait(ctx context.Context, name string) (Endpoint, error) {
	var ep Endpoint
	err := backOff(ctx, func() (err error) {
		ep, err = d.Find(name)
		return err
	}, func(err error, _ time.Duration) bool { return errors.Is(err, errdefs.ErrNotFound) })
	return ep, err
}

// List yields every plugin that an engine finds when it looks at all of them, such as for
// "docker volume ls": sockets first, then each of Specs. What cannot be used comes with an
// error beside its Name and Source, and the sequence goes on. A directory that does not
// exist is passed over; one that cannot be read is an error, at which a dockerd would
// stop.
//
// An engine reads these names alone and then looks each of them up, so of two with one
// name only the one that [Dirs.Find] returns is ever used. Links to sockets are found by
// Find and not by List.
func (d Dirs) List() iter.Seq2[Endpoint, error] {
	return func(yield func(Endpoint, error) bool) {
		if !listSockets(d.sockets(), yield) {
			return
		}
		for _, dir := range d.specs() {
			if !listSpecs(dir, yield) {
				return
			}
		}
	}
}

func listSockets(dir string, yield func(Endpoint, error) bool) bool {
	entries, ok := readDir(dir, yield)
	for _, e := range entries {
		if !ok {
			return false
		}
		file := filepath.Join(dir, e.Name())
		name := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		switch {
		case e.IsDir():
			file = filepath.Join(file, e.Name()+".sock")
			info, err := os.Lstat(file)
			if err == nil && info.Mode().Type() == fs.ModeSocket {
				ok = yield(socketEndpoint(e.Name(), file), nil)
			} else if unreadable(err) != nil {
				ok = yield(Endpoint{Name: e.Name(), Source: file}, pathError(e.Name(), err))
			}
		case e.Type() != fs.ModeSocket:
		case filepath.Ext(e.Name()) == ".sock":
			ok = yield(socketEndpoint(name, file), nil)
		default:
			ok = yield(Endpoint{Name: name, Source: file}, errdefs.Hint(
				errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: socket %q does not end in .sock, so that an engine lists it and cannot find it", name, file),
				"Let the plugin name its socket NAME.sock, or put the socket elsewhere."))
		}
	}
	return ok
}

func listSpecs(dir string, yield func(Endpoint, error) bool) bool {
	entries, ok := readDir(dir, yield)
	for _, e := range entries {
		if !ok {
			return false
		}
		file := filepath.Join(dir, e.Name())
		name, ext := cutExt(e.Name())
		if e.IsDir() {
			var err error
			if file, ext, err = innerSpec(file, e.Name()); err != nil {
				ok = yield(Endpoint{Name: e.Name(), Source: filepath.Join(dir, e.Name())}, pathError(e.Name(), err))
				continue
			}
			name = e.Name()
		}
		if ext == ".spec" || ext == ".json" {
			ok = yield(readSpec(name, file))
		}
	}
	return ok
}

// innerSpec returns the file in a plugin's own directory that an engine goes by: whether
// there is one depends on the first file of that name, which one it is on the extension.
func innerSpec(dir, name string) (file, ext string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if base, ext := cutExt(e.Name()); base == name {
			file := filepath.Join(dir, e.Name())
			if ext == ".json" {
				spec := filepath.Join(dir, name+".spec")
				if _, err := os.Stat(spec); err == nil {
					return spec, ".spec", nil
				}
			}
			return file, ext, nil
		}
	}
	return "", "", err
}

// readDir reads a directory that need not exist, and yields an error to read it.
func readDir(dir string, yield func(Endpoint, error) bool) ([]fs.DirEntry, bool) {
	entries, err := os.ReadDir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return entries, true
	}
	class := errdefs.ErrUnavailable
	if errors.Is(err, fs.ErrPermission) {
		class = errdefs.ErrDenied
	}
	err = errdefs.Hint(errdefs.Errorf(class, "plugin directory %q: %w", dir, cause(err)),
		"An engine lists no plugin at all while it cannot read one of its plugin directories.")
	return entries, yield(Endpoint{Source: dir}, err)
}

// forms returns the two paths that a plugin's file may have below dir.
func forms(dir, name, ext string) [2]string {
	return [2]string{filepath.Join(dir, name+ext), filepath.Join(dir, name, name+ext)}
}

func cutExt(file string) (base, ext string) {
	ext = filepath.Ext(file)
	return strings.TrimSuffix(file, ext), ext
}

func socketEndpoint(name, file string) Endpoint {
	return Endpoint{Name: name, Addr: (&url.URL{Scheme: "unix", Path: file}).String(), Source: file}
}

// checkName refuses names that would lead out of the directories. A slash is let by, as
// engines do: managed plugins have one in their names.
func checkName(name string) error {
	switch {
	case name == "":
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin name is empty")
	case !filepath.IsLocal(name) || strings.ContainsRune(name, 0):
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: not a name that a file may have", name)
	}
	return nil
}

// unreadable returns err unless it only says that there is no such file.
func unreadable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return nil
	}
	return err
}

// pathError puts the plugin before an error of a path and gives it a class.
func pathError(name string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "plugin %q: %w", name, err),
			"run this as root, as the engine does")
	}
	return fmt.Errorf("plugin %q: %w", name, err)
}

// cause takes operation and path out of an error of the file system.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
