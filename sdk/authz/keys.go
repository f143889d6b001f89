package authz

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// DecodeBody decodes Body into v, a pointer to a struct or to a slice of structs, as the
// engine does: keys match whatever their case, of scalars said twice the last counts,
// objects said twice are merged, and unknown keys are left alone. Unlike an engine it
// wants exactly one JSON value.
//
// Types into which that cannot be done are refused: an interface or a [json.RawMessage]
// anywhere in v, and a map on top, keep the case of keys and do not merge. A pointer where
// the engine has a pointer, as HostConfig, makes a null mean the same.
//
// The error is ErrInvalid and holds nothing of the body; returned from an Authorizer it
// denies. It is so too when there is no body.
func (r *Request) DecodeBody(v any) error {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer || reflect.ValueOf(v).IsNil() {
		return fmt.Errorf("decode body: %T is not a pointer to a struct", v)
	}
	if k := t.Elem().Kind(); k != reflect.Struct && k != reflect.Slice {
		return fmt.Errorf("decode body: %T is not a pointer to a struct or slice, and would not be decoded as the engine does", v)
	}
	if loose := looseType(t, nil); loose != nil {
		return fmt.Errorf("decode body: %T has a %v in it, which would not be decoded as the engine does", v, loose)
	}
	if len(r.Body) == 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "body: missing")
	}
	if err := json.Unmarshal(r.Body, v); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			// Its own text may quote a number out of the body.
			return errdefs.Errorf(errdefs.ErrInvalid, "body: %.64q is not of type %v", wrong.Field, wrong.Type)
		}
		return errdefs.Errorf(errdefs.ErrInvalid, "body: not one JSON value")
	}
	return nil
}

var (
	rawMessage  = reflect.TypeFor[json.RawMessage]()
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
)

// looseType returns a type inside t that keeps JSON as it came, or nil.
func looseType(t reflect.Type, seen []reflect.Type) reflect.Type {
	if t == rawMessage || t.Kind() == reflect.Interface {
		return t
	}
	if slices.Contains(seen, t) || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	seen = append(seen, t)
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return looseType(t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.Tag.Get("json") == "-" || !f.IsExported() && !f.Anonymous {
				continue
			}
			if loose := looseType(f.Type, seen); loose != nil {
				return loose
			}
		}
	}
	return nil
}

// freeForm are the keys, folded, whose objects in every body of the engine's API hold
// names that people made up. Two of those that differ in case are two.
var freeForm = []string{
	"ANNOTATIONS", "CONFIG", "DRIVEROPTS", "ENDPOINTSCONFIG", "EXPOSEDPORTS", "LABELS", "OPTIONS",
	"OPTS", "PORTBINDINGS", "STORAGEOPT", "SYSCTLS", "TMPFS", "VOLUMES",
}

// DuplicateKeys returns the keys in Body that stand more than once in one object, when
// case counts for nothing, as in "HostConfig.Privileged"; sorted, each once, at most eight.
// Two readers of such a body can come to two meanings. The Handler denies it before
// an Authorizer is asked, unless told otherwise. Names that people make up, such as those
// of labels, may differ in case alone.
//
// The error is ErrInvalid: Body is not exactly one JSON value. An empty Body has no keys.
func (r *Request) DuplicateKeys() ([]string, error) {
	if len(r.Body) == 0 {
		return nil, nil
	}
	// Valid also bounds how deep the walk below can go.
	if !json.Valid(r.Body) {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "body: not one JSON value")
	}
	w := keyWalk{dec: json.NewDecoder(bytes.NewReader(r.Body))}
	w.dec.UseNumber()
	if err := w.value("", false); err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "body: %w", err)
	}
	slices.Sort(w.found)
	return slices.Compact(w.found), nil
}

const (
	// maxFound bounds the keys that are reported.
	maxFound = 8
	// maxPath bounds the bytes of a key's path. It is for people, and must not cost a deep
	// body the square of its depth.
	maxPath = 256
)

// keyWalk looks for keys said twice.
type keyWalk struct {
	dec   *json.Decoder
	found []string
}

// value reads one value. free says that its keys, if it is an object, are made up.
func (w *keyWalk) value(at string, free bool) error {
	tok, err := w.dec.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		return w.object(at, free)
	case json.Delim('['):
		for w.dec.More() {
			if err := w.value(at, false); err != nil {
				return err
			}
		}
		_, err = w.dec.Token()
	}
	return err
}

func (w *keyWalk) object(at string, free bool) error {
	seen := map[string]bool{}
	for w.dec.More() {
		tok, err := w.dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string) // the body is valid, so it is one
		folded := fold(key)
		same := folded
		if free {
			same = key
		}
		name := key
		if at != "" {
			name = at + "." + key
		}
		name = name[:min(len(name), maxPath)]
		if seen[same] && len(w.found) < maxFound {
			w.found = append(w.found, name)
		}
		seen[same] = true
		if err := w.value(name, slices.Contains(freeForm, folded)); err != nil {
			return err
		}
	}
	_, err := w.dec.Token()
	return err
}

// fold maps a key to the form in which encoding/json compares it: each rune to the
// smallest that folds to it, so that "K" is the Kelvin sign, too.
func fold(key string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				// SimpleFold goes up the orbit and then back to its smallest.
				return next
			}
			r = next
		}
	}, key)
}
