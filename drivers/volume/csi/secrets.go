package csi

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// secrets are what the CSI driver wants with each call: where each lies, never what it is.
type secrets map[string]string

// readSecrets checks references, and that what they name can be had.
func readSecrets(table map[string]string) (secrets, error) {
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if _, err := readSecret(table[key]); err != nil {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "key %q: %s: %w", "secrets", key, err)
		}
	}
	return table, nil
}

// get reads all of them: a file may have been renewed since.
func (s secrets) get() (map[string]string, error) {
	if len(s) == 0 {
		return nil, nil
	}
	all := make(map[string]string, len(s))
	for key, ref := range s {
		value, err := readSecret(ref)
		if err != nil {
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "secret %q: %w", key, err)
		}
		all[key] = value
	}
	return all, nil
}

// maxSecret bounds a file: a key or a password, and no disk image.
const maxSecret = 1 << 20

func readSecret(ref string) (string, error) {
	kind, at, _ := strings.Cut(ref, ":")
	switch {
	case kind == "env" && at != "":
		value, ok := os.LookupEnv(at)
		if !ok {
			return "", errdefs.Errorf(errdefs.ErrInvalid, "the environment variable %s is not set", at)
		}
		return value, nil
	case kind == "file" && filepath.IsAbs(at):
		return readSecretFile(at)
	}
	// The text may be the secret itself, and is not shown.
	return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "the value (not shown) is no reference to a secret"),
		"write file:/PATH of a file with mode 0600, or env:VARIABLE")
}

func readSecretFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fs.ErrNotExist
		}
		return "", errdefs.Errorf(errdefs.ErrInvalid, "file %s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errdefs.Errorf(errdefs.ErrInvalid, "file %s: not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "file %s: others than its owner may read it (mode %04o)", path, info.Mode().Perm()), "chmod 600 "+path)
	case info.Size() > maxSecret:
		return "", errdefs.Errorf(errdefs.ErrInvalid, "file %s: %d bytes are no secret", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
