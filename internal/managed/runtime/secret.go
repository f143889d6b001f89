package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxSecret is how large a secret may be: a variable of the environment has at most 128 KiB (execve(2)).
const maxSecret = 64 << 10

// readSecrets returns the variables of the environment that come from files.
func (p *Plugin) readSecrets() ([]string, error) {
	var env []string
	for _, name := range slices.Sorted(maps.Keys(p.Secrets)) {
		value, err := secretOf(p.Secrets[name])
		if err != nil {
			return nil, fmt.Errorf("secret %q: %w", name, err)
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

// secretOf reads what a reference names: a file, or env:NAME for a variable of the daemon's own environment.
func secretOf(ref string) (string, error) {
	name, ok := strings.CutPrefix(ref, envSecret)
	if !ok {
		return readSecret(ref)
	}
	value, ok := os.LookupEnv(name)
	if !ok {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "the daemon's environment has no %s", name)
	}
	return value, nil
}

const envSecret = "env:"

func readSecret(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe is waited for by none
	if errors.Is(err, fs.ErrNotExist) {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "file %s: is not there", name), "write the secret into it, and: chmod 600 "+name)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !fi.Mode().IsRegular() || fi.Size() > maxSecret:
		return "", errdefs.Errorf(errdefs.ErrInvalid, "file %s: want a file of at most %d bytes", name, maxSecret)
	case fi.Mode().Perm()&0o077 != 0:
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "file %s: others may read it (mode %04o)", name, fi.Mode().Perm()), "chmod 600 "+name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(data, 0) >= 0 || len(data) > maxSecret {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "file %s: want text without a NUL", name)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
