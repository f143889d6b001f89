// Package adopt finds the volumes that other tools left on this host. It reads what they
// wrote and changes nothing.
package adopt

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Volume is one that another tool made.
type Volume struct {
	Name string // as that tool calls it, which may not be a name for Remora
	Path string // the directory with its data, or whatever else that is; empty where nobody can say
	// Options are those by which a volume here has the same data, secrets among them. Without
	// any it is Path that is taken.
	Options map[string]string
	// Archive is the file that has the data, and Path the place of that in it.
	Archive string
	Err     error // why it cannot be taken over: ErrNotFound where the directory is missing
}

// maxState is the most that is read of a state file.
const maxState = 16 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, classify(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, classify(path, err)
	}
	if len(data) > maxState {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: larger than 16 MiB", path)
	}
	return data, nil
}

// classify gives an error of the file system its class, and the path once.
func classify(path string, err error) error {
	class := errdefs.ErrUnavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		class = errdefs.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		class = errdefs.ErrDenied
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return errdefs.Errorf(class, "%s: %w", path, err)
}

// found is the volume with its data at path, if there is a directory.
func found(name, path string) Volume {
	v := Volume{Name: name, Path: path}
	if !filepath.IsAbs(path) {
		v.Err = errdefs.Errorf(errdefs.ErrInvalid, "path %q: not absolute", path)
		return v
	}
	v.Path = filepath.Clean(path)
	st, err := os.Stat(v.Path)
	switch {
	case err != nil:
		v.Err = classify(v.Path, err)
	case !st.IsDir():
		v.Err = errdefs.Errorf(errdefs.ErrInvalid, "%s: not a directory", v.Path)
	}
	return v
}

// Propose returns a name like name that a volume can have, or "" where there is none.
func Propose(name string) string {
	if len(name) > volume.MaxName {
		name = name[:volume.MaxName]
	}
	name = strings.Map(func(r rune) rune {
		if r == '_' || r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, name)
	return strings.TrimRight(strings.TrimLeft(name, "_.-"), "-")
}
