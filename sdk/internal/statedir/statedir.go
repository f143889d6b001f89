// Package statedir keeps one small JSON file for each object in a directory, written so
// that a crash leaves the old file or the new one, never half of either.
package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

const suffix = ".json"

// Dir is a directory of such files, of mode 0600. It is made, with mode 0700, when it is
// first needed. Calls for different keys may run at once; those for one key must not.
type Dir struct{ path string }

// New returns the Dir at path. It touches nothing yet.
func New(path string) *Dir { return &Dir{path: path} }

// open opens the directory for one call.
func (d *Dir) open() (*os.Root, error) {
	if !filepath.IsAbs(d.path) {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "state directory %q: path is not absolute", d.path)
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return root, nil
}

// Load returns what is in every file, by key.
func (d *Dir) Load(context.Context) (map[string][]byte, error) {
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("state %q: %w", d.path, err)
	}
	all := make(map[string][]byte, len(entries))
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if all[key], err = root.ReadFile(e.Name()); err != nil {
			return nil, fmt.Errorf("state %q: %w", d.path, err)
		}
	}
	return all, nil
}

// Save replaces what is kept for key, and returns when it would survive a loss of power.
func (d *Dir) Save(_ context.Context, key string, data []byte) error {
	name, root, err := d.file(key)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := write(root, name, data); err != nil {
		return fmt.Errorf("state %q: %w", filepath.Join(d.path, name), err)
	}
	return nil
}

// Delete forgets key. What is not there succeeds.
func (d *Dir) Delete(_ context.Context, key string) error {
	name, root, err := d.file(key)
	if err != nil {
		return err
	}
	defer root.Close()
	err = root.Remove(name)
	if err == nil {
		err = syncDir(root)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state %q: %w", filepath.Join(d.path, name), err)
	}
	return nil
}

// file returns the name of the file of key, which comes from an engine's request.
func (d *Dir) file(key string) (string, *os.Root, error) {
	if key == "" || len(key) > 200 || key[0] == '.' || strings.ContainsAny(key, "/\\\x00") {
		return "", nil, errdefs.Errorf(errdefs.ErrInvalid, "state: %.40q cannot be the name of a file", key)
	}
	root, err := d.open()
	return key + suffix, root, err
}

func write(root *os.Root, name string, data []byte) (err error) {
	// A name that Load passes over, and that the next write uses again.
	temp := name + ".new"
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return syncDir(root)
}

// syncDir makes the names in root survive a loss of power (fsync(2)).
func syncDir(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
