package kubeshim

import (
	"encoding/json"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// patched returns an object with a patch applied to it, in one of the three forms that clients send.
func patched(o object, contentType string, body []byte) (object, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = contentType
	}
	base := clone(o)
	switch kind {
	case "application/merge-patch+json", "application/strategic-merge-patch+json":
		var patch object
		if err := json.Unmarshal(body, &patch); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		return merge(base, patch, kind == "application/strategic-merge-patch+json"), nil
	case "application/json-patch+json":
		var steps []step
		if err := json.Unmarshal(body, &steps); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		var doc any = base
		for _, s := range steps {
			if doc, err = s.apply(doc); err != nil {
				return nil, failure(http.StatusUnprocessableEntity, "Invalid", "the server rejected our request due to an error in our request: "+err.Error(), key{})
			}
		}
		out, ok := doc.(object)
		if !ok {
			return nil, badRequest("the patch leaves no object")
		}
		return out, nil
	}
	return nil, failure(http.StatusUnsupportedMediaType, "UnsupportedMediaType",
		"the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json", key{})
}

// mergeKeys are the fields by which a strategic merge patch finds an element of a list.
var mergeKeys = map[string]string{
	"conditions": "type", "addresses": "type", "drivers": "name", "ownerReferences": "uid", "taints": "",
}

// merge applies a merge patch (RFC 7396). A strategic one also merges the lists whose elements have keys.
func merge(base, patch object, strategic bool) object {
	if base == nil {
		base = object{}
	}
	for name, v := range patch {
		switch value := v.(type) {
		case nil:
			delete(base, name)
		case object:
			if strategic && value["$patch"] == "delete" {
				delete(base, name)
				continue
			}
			if strategic && value["$patch"] == "replace" {
				delete(value, "$patch")
				base[name] = value
				continue
			}
			old, _ := base[name].(object)
			base[name] = merge(old, value, strategic)
		case []any:
			old, _ := base[name].([]any)
			by := mergeKeys[name]
			switch {
			case !strategic:
				base[name] = value
			case strings.HasPrefix(name, "$deleteFromPrimitiveList/"), strings.HasPrefix(name, "$setElementOrder/"):
				deleteFrom(base, name, value)
			case name == "finalizers":
				base[name] = union(old, value)
			case by != "":
				base[name] = mergeList(old, value, by)
			default:
				base[name] = value
			}
		default:
			if name != "$patch" && name != "$retainKeys" {
				base[name] = v
			}
		}
	}
	return base
}

func deleteFrom(base object, name string, gone []any) {
	field, ok := strings.CutPrefix(name, "$deleteFromPrimitiveList/")
	if !ok {
		return // the order in which elements are shown is of no matter here
	}
	old, _ := base[field].([]any)
	base[field] = slices.DeleteFunc(old, func(v any) bool {
		return slices.ContainsFunc(gone, func(g any) bool { return reflect.DeepEqual(g, v) })
	})
}

func union(old, more []any) []any {
	for _, v := range more {
		if !slices.ContainsFunc(old, func(o any) bool { return reflect.DeepEqual(o, v) }) {
			old = append(old, v)
		}
	}
	return old
}

func mergeList(old, patch []any, by string) []any {
	for _, v := range patch {
		p, ok := v.(object)
		if !ok {
			continue
		}
		if p["$patch"] == "replace" {
			old = nil
			continue
		}
		i := slices.IndexFunc(old, func(o any) bool { e, ok := o.(object); return ok && reflect.DeepEqual(e[by], p[by]) })
		switch {
		case p["$patch"] == "delete":
			if i >= 0 {
				old = slices.Delete(old, i, i+1)
			}
		case i >= 0:
			e, _ := old[i].(object)
			old[i] = merge(e, p, true)
		default:
			old = append(old, merge(nil, p, true))
		}
	}
	return old
}

// step is one operation of a JSON patch (RFC 6902).
type step struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

func (s step) apply(doc any) (any, error) {
	value := s.Value
	switch s.Op {
	case "copy", "move":
		from, err := look(doc, pointer(s.From))
		if err != nil {
			return nil, err
		}
		if value = from; s.Op == "move" {
			if doc, err = edit(doc, pointer(s.From), "remove", nil); err != nil {
				return nil, err
			}
		} else if o, ok := from.(object); ok {
			value = clone(o)
		}
		return edit(doc, pointer(s.Path), "add", value)
	case "test":
		is, err := look(doc, pointer(s.Path))
		if err != nil || !reflect.DeepEqual(is, value) {
			return nil, badRequest("testing path %s failed", s.Path)
		}
		return doc, nil
	case "add", "remove", "replace":
		return edit(doc, pointer(s.Path), s.Op, value)
	}
	return nil, badRequest("unknown operation %q", s.Op)
}

// pointer takes a JSON pointer apart (RFC 6901).
func pointer(path string) []string {
	if path == "" {
		return nil
	}
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
	}
	return parts
}

func look(doc any, path []string) (any, error) {
	for _, p := range path {
		switch d := doc.(type) {
		case object:
			v, ok := d[p]
			if !ok {
				return nil, badRequest("there is no %q", p)
			}
			doc = v
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(d) {
				return nil, badRequest("there is no element %q", p)
			}
			doc = d[i]
		default:
			return nil, badRequest("there is nothing below %q", p)
		}
	}
	return doc, nil
}

// edit returns a document in which what is at the path was added, removed or replaced.
func edit(doc any, path []string, op string, value any) (any, error) {
	if len(path) == 0 {
		return value, nil
	}
	p, last := path[0], len(path) == 1
	switch d := doc.(type) {
	case object:
		old, there := d[p]
		switch {
		case !there && (!last || op != "add"):
			return nil, badRequest("there is no %q", p)
		case last && op == "remove":
			delete(d, p)
		case last:
			d[p] = value
		default:
			next, err := edit(old, path[1:], op, value)
			if err != nil {
				return nil, err
			}
			d[p] = next
		}
		return d, nil
	case []any:
		if last && op == "add" && p == "-" {
			return append(d, value), nil
		}
		i, err := strconv.Atoi(p)
		if err != nil || i < 0 || i > len(d) || i == len(d) && (!last || op != "add") {
			return nil, badRequest("there is no element %q", p)
		}
		switch {
		case last && op == "add":
			return slices.Insert(d, i, value), nil
		case last && op == "remove":
			return slices.Delete(d, i, i+1), nil
		case last:
			d[i] = value
			return d, nil
		}
		d[i], err = edit(d[i], path[1:], op, value)
		return d, err
	}
	return nil, badRequest("there is nothing below %q", p)
}
