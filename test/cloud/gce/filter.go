package gce

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// filter reports whether an object, told by its fields, is wanted.
type filter func(field func(string) (string, bool)) bool

var (
	// byRegexp is the older syntax: NAME eq REGEXP, which must match the whole field.
	byRegexp = regexp.MustCompile(`^\(?\s*([A-Za-z_.-][\w.-]*)\s+(eq|ne)\s+(?:'([^']*)'|"([^"]*)"|([^()]*?))\s*\)?$`)
	// term is one comparison of the newer syntax.
	term = regexp.MustCompile(`^\s*(-|NOT\s+)?([A-Za-z_][\w.-]*)\s*(!=|<=|>=|=|<|>|:)\s*(?:"([^"]*)"|([^\s()"]+))\s*`)
)

// parseFilter reads both syntaxes: field eq|ne regexp, and comparisons with = != < > <= >=
// and : joined by AND, OR and parentheses.
func parseFilter(text string) (filter, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return func(func(string) (string, bool)) bool { return true }, nil
	}
	if m := byRegexp.FindStringSubmatch(text); m != nil {
		re, err := regexp.Compile("^(?:" + cmp.Or(m[3], m[4], m[5]) + ")$")
		if err != nil {
			return nil, invalid("filter", text, "Invalid list filter expression.")
		}
		return func(field func(string) (string, bool)) bool {
			v, _ := field(m[1])
			return re.MatchString(v) == (m[2] == "eq")
		}, nil
	}
	p := &parser{rest: text}
	f, ok := p.or()
	if !ok || p.rest != "" {
		return nil, invalid("filter", text, "Invalid list filter expression.")
	}
	return f, nil
}

type parser struct{ rest string }

// word takes a word, such as AND, or a parenthesis if it comes next.
func (p *parser) word(w string) bool {
	s := strings.TrimLeft(p.rest, " \t\n")
	if !strings.HasPrefix(s, w) {
		return false
	}
	after := s[len(w):]
	if w != "(" && w != ")" && !strings.HasPrefix(after, " ") && !strings.HasPrefix(after, "(") {
		return false
	}
	p.rest = strings.TrimLeft(after, " \t\n")
	return true
}

// In this language OR binds tighter than AND, and terms side by side are joined by AND.

func (p *parser) or() (filter, bool) {
	f, ok := p.alternatives()
	for ok && p.rest != "" && !strings.HasPrefix(p.rest, ")") {
		p.word("AND")
		var g filter
		left := f
		if g, ok = p.alternatives(); ok {
			f = func(field func(string) (string, bool)) bool { return left(field) && g(field) }
		}
	}
	return f, ok
}

func (p *parser) alternatives() (filter, bool) {
	f, ok := p.one()
	for ok && p.word("OR") {
		var g filter
		left := f
		if g, ok = p.one(); ok {
			f = func(field func(string) (string, bool)) bool { return left(field) || g(field) }
		}
	}
	return f, ok
}

func (p *parser) one() (filter, bool) {
	if p.word("(") {
		f, ok := p.or()
		return f, ok && p.word(")")
	}
	m := term.FindStringSubmatch(p.rest)
	if m == nil {
		return nil, false
	}
	p.rest = p.rest[len(m[0]):]
	negated, name, op, quoted, bare := m[1] != "", m[2], m[3], m[4], m[5]
	want := cmp.Or(quoted, bare)
	return func(field func(string) (string, bool)) bool {
		got, there := field(name)
		return compare(got, there, op, want, bare == "*") != negated
	}, true
}

func compare(got string, there bool, op, want string, any bool) bool {
	switch op {
	case "=":
		return there && (any || matches(got, want))
	case "!=":
		return !there || !matches(got, want)
	case ":":
		return there && (any || strings.Contains(strings.ToLower(got), strings.ToLower(want)))
	}
	a, err1 := strconv.ParseFloat(got, 64)
	b, err2 := strconv.ParseFloat(want, 64)
	order := cmp.Compare(a, b)
	if err1 != nil || err2 != nil {
		order = strings.Compare(got, want)
	}
	return there && map[string]bool{"<": order < 0, ">": order > 0, "<=": order <= 0, ">=": order >= 0}[op]
}

// matches compares with a value in which a star at either end stands for anything.
func matches(got, want string) bool {
	prefix, before := strings.CutSuffix(want, "*")
	suffix, after := strings.CutPrefix(want, "*")
	switch {
	case before && after:
		return strings.Contains(got, strings.Trim(want, "*"))
	case before:
		return strings.HasPrefix(got, prefix)
	case after:
		return strings.HasSuffix(got, suffix)
	}
	return got == want
}
