package remote

import (
	"path/filepath"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// SecretPath returns where a file of keys or passwords is that an option names: below dir, the secrets of the pool, if its
// path is not absolute. Empty stays empty; a path that leads out of dir is ErrInvalid.
func SecretPath(dir, path string) (string, error) {
	switch {
	case path == "":
		return "", nil
	case filepath.IsAbs(path):
		return filepath.Clean(path), nil
	case !filepath.IsLocal(path):
		return "", errdefs.Errorf(errdefs.ErrInvalid, "%q leads out of the pool's secrets", path)
	}
	return filepath.Join(dir, path), nil
}
