package kubeshim

import (
	"slices"
	"strings"
)

// selector tells which objects somebody asks for.
type selector []func(object) bool

func (s selector) matches(o object) bool {
	return !slices.ContainsFunc(s, func(f func(object) bool) bool { return !f(o) })
}

// parseSelectors reads the label and the field selector of a request.
func parseSelectors(labels, fields string) (selector, error) {
	s, err := parseLabels(labels)
	if err != nil {
		return nil, err
	}
	for _, part := range split(fields) {
		name, want, equal, ok := equality(part)
		if !ok || name != "metadata.name" && name != "metadata.namespace" {
			return nil, badRequest("field selector %q: only metadata.name and metadata.namespace can be asked for", part)
		}
		field := strings.TrimPrefix(name, "metadata.")
		s = append(s, func(o object) bool { return (text(meta(o), field) == want) == equal })
	}
	return s, nil
}

func parseLabels(labels string) (s selector, err error) {
	for _, part := range split(labels) {
		label := func(o object) (string, bool) {
			l, _ := meta(o)["labels"].(object)
			v, ok := l[strings.TrimSpace(strings.TrimPrefix(part, "!"))].(string)
			return v, ok
		}
		if name, want, equal, ok := equality(part); ok {
			s = append(s, func(o object) bool {
				l, _ := meta(o)["labels"].(object)
				v, there := l[name].(string)
				return (there && v == want) == equal
			})
			continue
		}
		words := strings.SplitN(part, " ", 3)
		switch {
		case len(words) == 1 && strings.HasPrefix(part, "!"):
			s = append(s, func(o object) bool { _, ok := label(o); return !ok })
		case len(words) == 1 && part != "":
			s = append(s, func(o object) bool { _, ok := label(o); return ok })
		case len(words) == 3 && (words[1] == "in" || words[1] == "notin") && strings.HasPrefix(words[2], "(") && strings.HasSuffix(words[2], ")"):
			name, in := words[0], words[1] == "in"
			values := strings.Split(strings.Trim(words[2], "()"), ",")
			for i := range values {
				values[i] = strings.TrimSpace(values[i])
			}
			s = append(s, func(o object) bool {
				l, _ := meta(o)["labels"].(object)
				v, there := l[name].(string)
				return (there && slices.Contains(values, v)) == in
			})
		default:
			return nil, badRequest("unable to parse requirement %q of the label selector", part)
		}
	}
	return s, nil
}

// equality takes a=b, a==b and a!=b apart.
func equality(part string) (name, want string, equal, ok bool) {
	if name, want, ok = strings.Cut(part, "!="); ok {
		return strings.TrimSpace(name), strings.TrimSpace(want), false, true
	}
	if name, want, ok = strings.Cut(part, "="); ok {
		return strings.TrimSpace(name), strings.TrimSpace(strings.TrimPrefix(want, "=")), true, true
	}
	return "", "", false, false
}

// split takes requirements apart at commas that are in no parentheses.
func split(all string) (parts []string) {
	depth, from := 0, 0
	for i, r := range all {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			parts, from = append(parts, strings.TrimSpace(all[from:i])), i+1
		}
	}
	if rest := strings.TrimSpace(all[from:]); rest != "" {
		parts = append(parts, rest)
	}
	return parts
}
