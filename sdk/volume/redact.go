package volume

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// secretWords mark the options whose values are kept out of every text.
var secretWords = []string{"pass", "secret", "token", "key", "credential", "auth"}

// shortestSecret is the length in bytes below which a value is not looked for in a
// text: hiding each "no" or "1" would leave nothing to read.
const shortestSecret = 4

// redacted is an error whose text has lost its secrets and whose class has not.
type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.err }

// redact hides the values of secret options in the text of err.
func redact(err error, opts map[string]string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	clean := text
	for _, secret := range secrets(opts) {
		clean = strings.ReplaceAll(clean, secret, "REDACTED")
	}
	if clean == text {
		return err
	}
	out := error(&redacted{clean, errdefs.Class(err)})
	for _, hint := range errdefs.Hints(err) {
		out = errdefs.Hint(out, hint)
	}
	return out
}

// secrets returns the values of secret options in the spellings that an error may have
// for them, the longest first: one may be part of another.
func secrets(opts map[string]string) []string {
	var all []string
	for key, value := range opts {
		if len(value) < shortestSecret || !isSecret(key) {
			continue
		}
		quoted := strconv.Quote(value)
		all = append(all, value, quoted[1:len(quoted)-1], url.QueryEscape(value), url.PathEscape(value), url.UserPassword("", value).String()[1:])
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(all)
}

func isSecret(key string) bool {
	key = strings.ToLower(key)
	for _, word := range secretWords {
		if strings.Contains(key, word) {
			return true
		}
	}
	return false
}
