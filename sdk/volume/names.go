package volume

import (
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// MaxName is the longest volume name in bytes, which is what a file name can have.
const MaxName = 255

// CheckName is the rule for names where [Options] has none: letters, digits, "_", "."
// and "-", starting with a letter or digit, at most MaxName bytes. It is Docker's rule
// for its own volumes (moby volume/local: RestrictedNamePattern), which the engine does
// not apply to those of plugins; a name of one character is allowed. Its error is
// ErrInvalid.
func CheckName(name string) error { return checkName("volume", name) }

func checkName(what, name string) error {
	if name == "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s name is empty", what)
	}
	if len(name) > MaxName {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s name %.20q…: longer than %d bytes", what, name, MaxName)
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '.' && c != '-') {
			return errdefs.Errorf(errdefs.ErrInvalid, "%s name %q: want letters, digits, \"_\", \".\" or \"-\", the first a letter or digit", what, name)
		}
	}
	return nil
}
