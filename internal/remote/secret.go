package remote

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

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

// maxSecret is more than any file with a password has, in bytes.
const maxSecret = 64 << 10

// ReadSecret reads a file with a password that an option names. Whoever makes volumes chooses it: a pipe would be waited for for
// ever, and a device have no end.
func ReadSecret(path string) ([]byte, error) {
	fail := func(cause string) error { return &fs.PathError{Op: "read", Path: path, Err: errors.New(cause)} }
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fail("not a regular file")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // something else may have taken its place
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fail("too large for a password")
	}
	return b, err
}
