package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Auth is who somebody is to a registry. The zero value is nobody. It prints as nothing that is
// secret.
type Auth struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// IdentityToken gets further tokens, and RegistryToken is one.
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// String names the user alone.
func (a Auth) String() string { return fmt.Sprintf("user %q", a.Username) }

// GoString is String, so that no format prints more.
func (a Auth) GoString() string { return a.String() }

func (a Auth) credential() auth.Credential {
	return auth.Credential{Username: a.Username, Password: a.Password, RefreshToken: a.IdentityToken, AccessToken: a.RegistryToken}
}

// DecodeAuth reads the header X-Registry-Auth of the engine's API. Without one nobody asks.
func DecodeAuth(header string) (Auth, error) {
	var a struct {
		Auth
		Both string `json:"auth"` // user and password, as in the file
	}
	if header == "" {
		return Auth{}, nil
	}
	wrong := errdefs.Errorf(errdefs.ErrInvalid, "invalid X-Registry-Auth header") // and no word of what is in it
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(header), "="))
	if err != nil {
		return Auth{}, wrong
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return Auth{}, wrong
	}
	if a.Both != "" && a.Username == "" {
		both, err := base64.StdEncoding.DecodeString(a.Both)
		user, password, ok := strings.Cut(string(both), ":")
		if err != nil || !ok {
			return Auth{}, wrong
		}
		a.Username, a.Password = user, password
	}
	return a.Auth, nil
}

// Encode returns the header that [DecodeAuth] reads.
func (a Auth) Encode() string {
	raw, err := json.Marshal(a)
	if err != nil {
		return ""
	}
	return base64.URLEncoding.EncodeToString(raw)
}

// FindAuth looks up who the user is to the registry of ref, where "docker login" keeps it: in a
// config.json, or with the helper that it names. An empty path is $DOCKER_CONFIG/config.json, or that
// in ~/.docker. Who has not logged in is nobody.
func FindAuth(ctx context.Context, path string, ref reference.Reference) (Auth, error) {
	if path == "" {
		dir := os.Getenv("DOCKER_CONFIG")
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return Auth{}, nil //nolint:nilerr // who has no home has not logged in
			}
			dir = filepath.Join(home, ".docker")
		}
		path = filepath.Join(dir, "config.json")
	}
	if _, err := os.Stat(path); err != nil {
		return Auth{}, nil //nolint:nilerr // nor who has no such file
	}
	s, err := credentials.NewStore(path, credentials.StoreOptions{})
	if err != nil {
		return Auth{}, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%s: %w", path, err))
	}
	c, err := s.Get(ctx, credentials.ServerAddressFromRegistry(ref.Registry()))
	if err != nil {
		return Auth{}, errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%s: credentials of %s: %w", path, ref.Registry(), err)),
			"see whether the credential helper that the file names is installed")
	}
	return Auth{c.Username, c.Password, c.RefreshToken, c.AccessToken}, nil
}
