package volume

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// secretWord marks the options whose values are kept out of every text.
const secretWord = `pass|pwd|secret|token|key|credential|auth`

var (
	secretOption = regexp.MustCompile(`(?i)` + secretWord)

	// secretValue finds "password=…" in a text, as among the options of a mount(8) that
	// failed, and secretField the same in JSON.
	secretValue = regexp.MustCompile(`(?i)([\w.-]*(?:` + secretWord + `)[\w.-]*=)("(?:[^"\\]|\\.)*"|'[^']*'|[^,\s]+)`)
	secretField = regexp.MustCompile(`(?i)("[\w.-]*(?:` + secretWord + `)[\w.-]*"\s*:\s*)"(?:[^"\\]|\\.)*"`)
	// userinfo finds user and password in "https://u:p@host" and in "//u:p@host/share".
	userinfo = regexp.MustCompile(`//[^/\s"']*@`)
)

const hidden = "REDACTED"

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

// redact hides secrets in the text of err and of its hints: the values of secret options
// in opts wherever they stand, and what looks like a secret by what stands before it.
func redact(err error, opts map[string]string) error {
	if err == nil {
		return nil
	}
	known := secrets(opts)
	text, hints := err.Error(), errdefs.Hints(err)
	clean, same := hide(text, known), true
	for i, hint := range hints {
		hints[i] = hide(hint, known)
		same = same && hints[i] == hint
	}
	if same && clean == text {
		return err
	}
	out := error(&redacted{clean, errdefs.Class(err)})
	for _, hint := range slices.Backward(hints) {
		out = errdefs.Hint(out, hint)
	}
	return out
}

func hide(text string, known []string) string {
	for _, secret := range known {
		text = strings.ReplaceAll(text, secret, hidden)
	}
	text = secretField.ReplaceAllString(text, `${1}"`+hidden+`"`)
	text = secretValue.ReplaceAllStringFunc(text, func(pair string) string {
		// What ends the value in a sentence is not of it.
		end := pair[len(strings.TrimRight(pair, `"':;.)]}`)):]
		key, value, _ := strings.Cut(pair, "=")
		if end == value {
			return pair
		}
		return key + "=" + hidden + strings.TrimPrefix(end, value[:1])
	})
	return userinfo.ReplaceAllString(text, "//"+hidden+"@")
}

// secrets returns the values of secret options in the spellings that an error may have
// for them, the longest first: one may be part of another. A value may have options of
// its own in it, as that of "o" has for many drivers, or a user with a password.
func secrets(opts map[string]string) []string {
	var all []string
	add := func(key, value string) {
		if len(value) < shortestSecret || !secretOption.MatchString(key) {
			return
		}
		quoted := strconv.Quote(value)
		all = append(all, value, quoted[1:len(quoted)-1], url.QueryEscape(value), url.PathEscape(value), url.UserPassword("", value).String()[1:])
	}
	for key, value := range opts {
		add(key, value)
		for part := range strings.SplitSeq(value, ",") {
			if k, v, ok := strings.Cut(part, "="); ok {
				add(k, v)
			}
		}
		for _, found := range userinfo.FindAllString(value, -1) {
			if _, password, ok := strings.Cut(found[len("//"):len(found)-len("@")], ":"); ok {
				add("password", password)
			}
		}
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(all)
}
