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
	secretKey = regexp.MustCompile(`(?i)` + secretWord)
	// It is "name=value", "name: value", and "name": "value" as in JSON and YAML that is quoted in a text.
	secretValue = regexp.MustCompile(`(?i)([\w.-]*(?:` + secretWord + `)[\w.-]*)(\s*=\s*|\\*["']\s*[:=]\s*|\s*:\s+)` +
		`("(?:[^"\\]|\\.)*"|'[^']*'|(?:(?:bearer|basic)\s+)?[^,\s]+)`)
	secretFlag = regexp.MustCompile(`(?i)^--?[\w-]*(?:` + secretWord + `)[\w-]*$`)
	userinfo   = regexp.MustCompile(`//[^/\s"']*@`)
)

// plain are fields of the protocol that the words above fit, and that hold no secret.
var plain = []string{"UserAuthNMethod"}

// opaque are fields with a body of the engine's own API in them, such as the environment of a
// container: how long it is has to do.
var opaque = []string{"RequestBody", "ResponseBody"}

// Below these lengths a secret is not looked for elsewhere: hiding each "no" would leave nothing to read. In other calls
// only longer ones are, and so many.
const (
	shortest       = 4
	shortestBeyond = 6
	mostKnown      = 1000
)

// redactor knows what was found to be secret.
type redactor struct {
	known  []string // in the call at hand
	beyond []string // in those before it
}

// redact returns what can be shown of two bodies and an error. What is secret in one is hidden in all, and in later calls.
func (r *redactor) redact(request, response *body, failure string) (req, resp, why string) {
	r.known = slices.Clone(r.beyond)
	req, resp, why = r.read(request), r.read(response), r.text(failure)
	slices.SortFunc(r.known, func(a, b string) int { return len(b) - len(a) })
	for _, s := range r.known {
		if len(s) >= shortestBeyond && len(r.beyond) < mostKnown && !slices.Contains(r.beyond, s) {
			r.beyond = append(r.beyond, s)
		}
	}
	return r.hide(req), r.hide(resp), r.hide(why)
}

// read returns the text of a body with its secret fields hidden, and remembers their values.
func (r *redactor) read(b *body) string {
	text, size := b.read()
	switch {
	case size == 0:
		return ""
	case size > shown:
		return fmt.Sprintf("(%d bytes)", size)
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return fmt.Sprintf("(%d bytes that are no JSON)", size)
	}
	shows, err := encode(r.walk(v))
	if err != nil {
		return fmt.Sprintf("(%d bytes)", size)
	}
	return shows
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
			flag := "" // of a command line, of which this is the value
			if i > 0 {
				flag, _ = v[i-1].(string)
			}
			if secretFlag.MatchString(flag) && secret(v[i]) {
				r.remember(v[i])
				v[i] = hidden
				continue
			}
			v[i] = r.walk(v[i])
		}
	case string:
		if inner, ok := r.quoted(v); ok {
			return inner
		}
		return r.text(v)
	}
	return v
}

// quoted returns what can be shown of a text that is JSON itself.
func (r *redactor) quoted(s string) (string, bool) {
	if trimmed := strings.TrimSpace(s); !strings.HasPrefix(trimmed, "{") && !strings.HasPrefix(trimmed, "[") {
		return "", false
	}
	var v any
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if d.Decode(&v) != nil || d.More() {
		return "", false
	}
	text, err := encode(r.walk(v))
	return text, err == nil
}

func encode(v any) (string, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(out.String()), err
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
		part := secretValue.FindStringSubmatch(pair)
		if strings.TrimSpace(part[2]) == "=" { // what comes after a colon may be a word like any other
			value := strings.Trim(part[3], `"'`)
			r.remember(value)
			if first, _, more := strings.Cut(value, "&"); more {
				r.remember(first)
			}
		}
		return part[1] + part[2] + hidden
	})
	return userinfo.ReplaceAllString(s, "//"+hidden+"@")
}

func (r *redactor) hide(text string) string {
	for _, s := range r.known {
		text = strings.ReplaceAll(text, s, hidden)
	}
	return text
}
