// Package secrets takes secrets out of texts: the values of options whose names say that they
// are one, and what looks like a secret by what stands before it.
package secrets

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

// Hide returns text without the known secrets, which [Of] found, and without what looks
// like one by what stands before it.
func Hide(text string, known []string) string {
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

// Of returns the values of secret options in the spellings that an error may have
// for them, the longest first: one may be part of another. A value may have options of
// its own in it, as that of "o" has for many drivers, or a user with a password.
func Of(opts map[string]string) []string {
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
