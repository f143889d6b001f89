package trace

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// What stands for a secret, and the words by which one is known, as in package volume of the
// SDK.
const (
	hidden     = "REDACTED"
	secretWord = `pass|pwd|secret|token|key|credential|auth`
)

var (
	secretKey   = regexp.MustCompile(`(?i)` + secretWord)
	secretValue = regexp.MustCompile(`(?i)([\w.-]*(?:` + secretWord + `)[\w.-]*=)("(?:[^"\\]|\\.)*"|'[^']*'|[^,\s]+)`)
	userinfo    = regexp.MustCompile(`//[^/\s"']*@`)
)

// plain are fields of the protocol that the words above fit, and that hold no secret.
var plain = []string{"UserAuthNMethod"}

// opaque are fields with a body of the engine's own API in them, such as the environment of a
// container: how long it is has to do.
var opaque = []string{"RequestBody", "ResponseBody"}

// shortest is the length below which a secret is not looked for elsewhere: hiding each "no"
// would leave nothing to read.
const shortest = 4

// redact returns what can be shown of two bodies. What is secret in one is hidden in both.
func redact(request, response body) (req, resp string) {
	var r redactor
	a, b := r.read(request), r.read(response)
	slices.SortFunc(r.known, func(a, b string) int { return len(b) - len(a) })
	return r.hide(a), r.hide(b)
}

type redactor struct{ known []string }

// read returns the text of a body with its secret fields hidden, and remembers their values.
func (r *redactor) read(b body) string {
	switch {
	case b.size == 0:
		return ""
	case b.size > shown:
		return fmt.Sprintf("(%d bytes)", b.size)
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(b.text.Bytes()))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return fmt.Sprintf("(%d bytes that are no JSON)", b.size)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(r.walk(v)); err != nil {
		return fmt.Sprintf("(%d bytes)", b.size)
	}
	return strings.TrimSpace(out.String())
}

func (r *redactor) walk(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			text, isText := v[key].(string)
			switch {
			case slices.Contains(opaque, key) && isText:
				v[key] = fmt.Sprintf("(%d bytes in base64)", len(text))
			case secretKey.MatchString(key) && !slices.Contains(plain, key) && secret(v[key]):
				r.remember(v[key])
				v[key] = hidden
			default:
				v[key] = r.walk(v[key])
			}
		}
	case []any:
		for i := range v {
			v[i] = r.walk(v[i])
		}
	case string:
		return r.text(v)
	}
	return v
}

// secret tells whether a value could be one: not an empty text, nor a number or a truth value.
func secret(v any) bool {
	switch v := v.(type) {
	case string:
		return v != ""
	case map[string]any, []any:
		return true
	}
	return false
}

func (r *redactor) remember(v any) {
	switch v := v.(type) {
	case string:
		if len(v) >= shortest {
			quoted, _ := json.Marshal(v)
			r.known = append(r.known, v, strings.Trim(string(quoted), `"`))
		}
	case []any:
		for _, w := range v {
			r.remember(w)
		}
	case map[string]any:
		for _, w := range v {
			r.remember(w)
		}
	}
}

// text hides what looks like a secret by what stands before it.
func (r *redactor) text(s string) string {
	s = secretValue.ReplaceAllStringFunc(s, func(pair string) string {
		key, value, _ := strings.Cut(pair, "=")
		r.remember(strings.Trim(value, `"'`))
		return key + "=" + hidden
	})
	return userinfo.ReplaceAllString(s, "//"+hidden+"@")
}

func (r *redactor) hide(text string) string {
	for _, s := range r.known {
		text = strings.ReplaceAll(text, s, hidden)
	}
	return text
}
