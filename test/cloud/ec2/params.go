package ec2

import (
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// params are those of one call.
type params url.Values

func (p params) get(name string) string { return url.Values(p).Get(name) }

func (p params) has(name string) bool { return url.Values(p).Has(name) }

// must returns a parameter that may not be empty.
func (p params) must(name string) (string, error) {
	v := p.get(name)
	if v == "" {
		return "", missing(strings.ToLower(name[:1]) + name[1:])
	}
	return v, nil
}

// number returns a parameter that is a number, 0 if it is not given.
func (p params) number(name string) (int, error) {
	if !p.has(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(p.get(name))
	if err != nil || n < 0 {
		return 0, invalid("Invalid value '%s' for %s. Value must be an integer.", p.get(name), name)
	}
	return n, nil
}

func (p params) yes(name string) (bool, error) {
	switch v := p.get(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, invalid("Invalid value '%s' for %s. It must be true or false.", v, name)
	}
}

// list returns NAME.1, NAME.2 … in order.
func (p params) list(name string) (out []string) {
	for _, i := range p.indexes(name) {
		out = append(out, p.get(name+"."+strconv.Itoa(i)))
	}
	return out
}

// indexes returns the numbers N of all NAME.N and NAME.N.…, in order.
func (p params) indexes(name string) (out []int) {
	seen := map[int]bool{}
	for key := range p {
		rest, ok := strings.CutPrefix(key, name+".")
		if !ok {
			continue
		}
		first, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(first); err == nil && !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	sort.Ints(out)
	return out
}

func (p params) filters() (out []filter) {
	for _, i := range p.indexes("Filter") {
		at := "Filter." + strconv.Itoa(i)
		out = append(out, filter{p.get(at + ".Name"), p.list(at + ".Value")})
	}
	return out
}

// tags returns Tag.N.Key and .Value below a prefix such as "TagSpecification.1.".
func (p params) tags(prefix string) (out []tag) {
	for _, i := range p.indexes(prefix + "Tag") {
		at := prefix + "Tag." + strconv.Itoa(i)
		out = append(out, tag{p.get(at + ".Key"), p.get(at + ".Value"), p.has(at + ".Value")})
	}
	return out
}

// specified returns the tags that a new thing of a kind is to have.
func (p params) specified(kind string) (map[string]string, error) {
	out := map[string]string{}
	for _, i := range p.indexes("TagSpecification") {
		at := "TagSpecification." + strconv.Itoa(i) + "."
		if got := p.get(at + "ResourceType"); got != kind {
			return nil, invalid("'%s' is not a valid taggable resource type for this operation.", got)
		}
		for _, t := range p.tags(at) {
			if _, twice := out[t.key]; twice {
				return nil, invalid("Duplicate tag key '%s' specified.", t.key)
			}
			out[t.key] = t.value
		}
	}
	return out, checkTags(out)
}

// known fails on a parameter that an action does not have. Names are those before the first
// dot, in a list with blanks.
func (p params) known(names string) error {
	have := " Action Version DryRun " + names + " "
	for key := range p {
		name, _, _ := strings.Cut(key, ".")
		if !strings.Contains(have, " "+name+" ") {
			return fail("UnknownParameter", "The parameter %s is not recognized", name)
		}
	}
	return nil
}
