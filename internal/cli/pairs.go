package cli

import (
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// setPair adds KEY=VALUE to m. As with Docker, KEY alone has an empty value.
func setPair(m map[string]string, s string) error {
	key, value, _ := strings.Cut(s, "=")
	if key == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "%q: want KEY=VALUE", s)
	}
	m[key] = value
	return nil
}
