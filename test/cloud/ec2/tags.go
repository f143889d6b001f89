package ec2

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// tag is one as it is given in a call.
type tag struct {
	key, value string
	hasValue   bool
}

const (
	maxTags     = 50
	maxTagKey   = 127
	maxTagValue = 255
)

// checkTags holds the tags that a thing is to have to the rules.
func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return fail("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
	}
	for key, value := range tags {
		switch {
		case key == "":
			return invalid("Tag key cannot be empty.")
		case utf8.RuneCountInString(key) > maxTagKey:
			return invalid("Tag key exceeds the maximum length of %d characters", maxTagKey)
		case utf8.RuneCountInString(value) > maxTagValue:
			return invalid("Tag value exceeds the maximum length of %d characters", maxTagValue)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return invalid("Tag keys starting with 'aws:' are reserved for internal use")
		}
	}
	return nil
}

// retag changes the tags of all things that a call names, or of none.
func (r *request) retag(change func(map[string]string)) (any, error) {
	ids := r.list("ResourceId")
	if len(ids) == 0 {
		return nil, missing("resourceIdSet")
	}
	var apply []func()
	for _, id := range ids {
		var set func(map[string]string)
		var tags map[string]string
		switch kind(id) {
		case "volume":
			h, err := r.volume(id)
			if err != nil {
				return nil, err
			}
			v := h.last()
			tags, set = v.Tags, func(tags map[string]string) { v.Tags = tags; h.set(r.now(), v) }
		case "snapshot":
			s, err := r.snapshot(id)
			if err != nil {
				return nil, err
			}
			tags, set = s.Tags, func(tags map[string]string) { s.Tags = tags; r.region.snapshots[id].set(r.now(), s) }
		case "instance":
			i, err := r.instance(id)
			if err != nil {
				return nil, err
			}
			tags, set = i.Tags, func(tags map[string]string) { i.Tags = tags }
		default:
			return nil, fail("InvalidID", "The ID '%s' is not valid", id)
		}
		tags = maps.Clone(tags)
		if tags == nil {
			tags = map[string]string{}
		}
		change(tags)
		if err := checkTags(tags); err != nil {
			return nil, err
		}
		apply = append(apply, func() { set(tags) })
	}
	for _, f := range apply {
		f()
	}
	return done{true}, nil
}

func createTags(r *request) (any, error) {
	list := r.tags("")
	if len(list) == 0 {
		return nil, missing("tagSet")
	}
	return r.retag(func(tags map[string]string) {
		for _, t := range list {
			tags[t.key] = t.value
		}
	})
}

// deleteTags takes a tag away that has the value given, or any if none is given; all tags
// if no tag is named.
func deleteTags(r *request) (any, error) {
	list := r.tags("")
	return r.retag(func(tags map[string]string) {
		if len(list) == 0 {
			clear(tags)
		}
		for _, t := range list {
			if !t.hasValue || tags[t.key] == t.value {
				delete(tags, t.key)
			}
		}
	})
}

// tagged is a tag and what has it, as DescribeTags lists it.
type tagged struct {
	id, key, value string
}

func taggedField(t tagged, name string) ([]string, bool) {
	one, ok := map[string]string{"resource-id": t.id, "resource-type": kind(t.id), "key": t.key, "value": t.value}[name]
	return []string{one}, ok
}

func describeTags(r *request) (any, error) {
	filters := r.filters()
	if err := checkFilters(filters, taggedField); err != nil {
		return nil, err
	}
	then := r.cloud.views(false).tagFilter
	all := map[string]tagged{}
	add := func(id string, tags map[string]string) {
		for key, value := range tags {
			t := tagged{id, key, value}
			if !slices.ContainsFunc(filters, func(f filter) bool { have, _ := taggedField(t, f.name); return !f.match(have) }) {
				all[id+" "+key] = t
			}
		}
	}
	for id, h := range r.region.volumes {
		if v, ok := h.at(then); ok && v.State != "" {
			add(id, v.Tags)
		}
	}
	for id, h := range r.region.snapshots {
		if s, ok := h.at(then); ok && s.State != "" {
			add(id, s.Tags)
		}
	}
	for id, i := range r.region.instances {
		add(id, i.Tags)
	}
	ids, next, err := page(r, slices.Collect(maps.Keys(all)))
	if err != nil {
		return nil, err
	}
	out := taggedXML{NextToken: next}
	for _, id := range ids {
		t := all[id]
		out.Tags = append(out.Tags, taggedItem{t.id, kind(t.id), t.key, t.value})
	}
	return out, nil
}
