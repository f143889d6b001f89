package catalog

import (
	"path/filepath"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// CheckPath refuses a path that cannot be where a pool is, as it stands at a key. None is not wrong.
func CheckPath(key, path string) error {
	switch {
	case path == "":
		return nil
	case !filepath.IsAbs(path):
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q: %q: not absolute", key, path)
	case filepath.Clean(path) == "/":
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q: %q: the root of the host cannot be a pool", key, path)
	}
	return nil
}
