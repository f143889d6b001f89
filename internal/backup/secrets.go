package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxSecret bounds what is read for a secret, in bytes.
const maxSecret = 64 << 10

// password reads the password of a repository.
func password(r config.Repository) (string, error) {
	if r.PasswordEnv != "" {
		return variable("password_env", r.PasswordEnv)
	}
	data, err := secretFile("password_file", r.PasswordFile)
	if err != nil {
		return "", err
	}
	if p := strings.TrimRight(string(data), "\r\n"); p != "" {
		return p, nil
	}
	return "", errdefs.Errorf(errdefs.ErrInvalid, "password_file %s: is empty", r.PasswordFile)
}

func variable(key, name string) (string, error) {
	v := os.Getenv(name)
	if v == "" {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "%s: the daemon has no variable %q", key, name)
	}
	return v, nil
}

// secretFile reads a file that nobody but its owner may read.
func secretFile(key, name string) ([]byte, error) {
	fi, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s %s: is not there", key, name),
			"write the secret into it, and: chmod 600 "+name)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	case !fi.Mode().IsRegular() || fi.Size() > maxSecret:
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s %s: want a small file", key, name)
	case fi.Mode().Perm()&0o077 != 0:
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "%s %s: others may read it (mode %04o)", key, name, fi.Mode().Perm()),
			"chmod 600 "+name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return data, nil
}

// s3Keys reads the keys for S3.
func s3Keys(c config.RepositoryS3) (access, secret string, err error) {
	if c.CredentialsFile == "" {
		access, err = variable("access_key_env", c.AccessKeyEnv)
		if err == nil {
			secret, err = variable("secret_key_env", c.SecretKeyEnv)
		}
		return access, secret, err
	}
	data, err := secretFile("credentials_file", c.CredentialsFile)
	if err != nil {
		return "", "", err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "aws_access_key_id":
			access = strings.TrimSpace(value)
		case "aws_secret_access_key":
			secret = strings.TrimSpace(value)
		}
		if access != "" && secret != "" {
			return access, secret, nil
		}
	}
	return "", "", errdefs.Errorf(errdefs.ErrInvalid, "credentials_file %s: want aws_access_key_id = … and aws_secret_access_key = …", c.CredentialsFile)
}
