package ec2

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// filter takes what has one of the values.
type filter struct {
	name   string
	values []string
}

// match tells whether one of the values fits one of those that a thing has.
func (f filter) match(have []string) bool {
	return slices.ContainsFunc(f.values, func(pattern string) bool {
		return slices.ContainsFunc(have, func(s string) bool { return glob(pattern, s) })
	})
}

// glob knows *, ? and a backslash before them.
func glob(pattern, s string) bool {
	for i := 0; i < len(pattern); i++ {
		switch ch := pattern[i]; {
		case ch == '*':
			for j := 0; j <= len(s); j++ {
				if glob(pattern[i+1:], s[j:]) {
					return true
				}
			}
			return false
		case s == "":
			return false
		case ch == '?':
		case ch == '\\' && i+1 < len(pattern):
			i++
			if pattern[i] != s[0] {
				return false
			}
		case ch != s[0]:
			return false
		}
		s = s[1:]
	}
	return s == ""
}

const maxFilterValues = 200

// fields tells what a thing has for a filter; false is a filter that there is not.
type fields[T any] func(value T, name string) ([]string, bool)

// selected tells whether a thing passes all filters, each asked of the cache that serves it.
func selected[T any](h *history[T], v views, filters []filter, get fields[T]) bool {
	for _, f := range filters {
		then := v.base
		switch {
		case strings.HasPrefix(f.name, "tag"):
			then = v.tagFilter
		case f.name == "status", strings.HasPrefix(f.name, "attachment."):
			then = v.stateFilter
		}
		value, ok := h.at(then)
		if !ok {
			return false
		}
		if have, _ := get(value, f.name); !f.match(have) {
			return false
		}
	}
	return true
}

// checkFilters fails on a filter that there is not.
func checkFilters[T any](filters []filter, get fields[T]) error {
	var zero T
	n := 0
	for _, f := range filters {
		if _, ok := get(zero, f.name); !ok {
			return invalid("The filter '%s' is invalid", f.name)
		}
		if len(f.values) == 0 {
			return fail("InvalidParameterValue", "The filter '%s' has no values", f.name)
		}
		n += len(f.values)
	}
	if n > maxFilterValues {
		return fail("FilterLimitExceeded", "The maximum number of filter values specified on a single call is %d", maxFilterValues)
	}
	return nil
}

// tagField is what tags have for the filters tag:KEY, tag-key and tag-value.
func tagField(tags map[string]string, name string) ([]string, bool) {
	if key, ok := strings.CutPrefix(name, "tag:"); ok {
		if value, ok := tags[key]; ok {
			return []string{value}, true
		}
		return nil, true
	}
	switch name {
	case "tag-key":
		return slices.Collect(maps.Keys(tags)), true
	case "tag-value":
		return slices.Collect(maps.Values(tags)), true
	}
	return nil, false
}

const (
	minResults = 5
	maxResults = 1000
)

// cursor is what a NextToken says.
type cursor struct {
	After string
	Query []byte // what the token was given for
}

// page cuts what a call may return out of the ids, and makes the token for the rest.
func page(r *request, ids []string) (out []string, next string, err error) {
	slices.Sort(ids)
	limit, err := r.number("MaxResults")
	if err != nil {
		return nil, "", err
	}
	if r.has("MaxResults") && limit < minResults {
		return nil, "", invalid("Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than %d.", limit, minResults)
	}
	sum := querySum(r)
	if text := r.get("NextToken"); text != "" {
		var cur cursor
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || json.Unmarshal(raw, &cur) != nil || !slices.Equal(cur.Query, sum) {
			return nil, "", invalid("Invalid value '%s' for NextToken.", text)
		}
		i, found := slices.BinarySearch(ids, cur.After)
		if found {
			i++
		}
		ids = ids[i:]
	}
	if !r.has("MaxResults") || len(ids) <= min(limit, maxResults) {
		return ids, "", nil
	}
	ids = ids[:min(limit, maxResults)]
	raw, err := json.Marshal(cursor{ids[len(ids)-1], sum})
	return ids, base64.StdEncoding.EncodeToString(raw), err
}

// querySum is of all parameters that a page has in common with the next.
func querySum(r *request) []byte {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(r.params)) {
		if key != "NextToken" && key != "MaxResults" {
			_, _ = h.Write([]byte(key + "=" + r.get(key) + "\n"))
		}
	}
	_, _ = h.Write([]byte(r.region.name))
	return h.Sum(nil)[:12]
}

// idsAndPages holds a call to the rule that one asks for ids or for pages.
func idsAndPages(r *request, ids string) error {
	if len(r.list(ids)) > 0 && r.has("MaxResults") {
		return combination("The parameter %ss cannot be used with the parameter maxResults in the same request", strings.ToLower(ids[:1])+ids[1:])
	}
	return nil
}
