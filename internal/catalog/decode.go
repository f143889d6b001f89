package catalog

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// DecodeOptions makes a T of the "-o" pairs of a volume. Every error is ErrInvalid
// and one line: an unknown option with those that there are, or a wrong value with
// what is wanted instead. The value of a [Secret] is never shown.
func DecodeOptions[T any](opts map[string]string) (T, error) {
	values := make(map[string]any, len(opts))
	for k, v := range opts {
		values[k] = v
	}
	return decode[T]("option", values)
}

// DecodeTable makes a T of the table of a pool, as [DecodeOptions] does. Values are
// what TOML gives, or texts.
func DecodeTable[T any](table map[string]any) (T, error) {
	return decode[T]("key", table)
}

func decode[T any](noun string, values map[string]any) (T, error) {
	var result, zero T
	fields := fieldsOf(reflect.TypeFor[T]())
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.Name == k }) {
			return zero, unknown(noun, k, fields)
		}
	}
	out := reflect.ValueOf(&result).Elem()
	for _, f := range fields {
		val := f.def
		if raw, ok := values[f.Name]; ok {
			v, err := f.value(noun, raw)
			if err != nil {
				return zero, err
			}
			val = v
		} else if f.Required {
			return zero, errdefs.Errorf(errdefs.ErrInvalid, "%s %q is missing: %s", noun, f.Name, f.Help)
		}
		if !val.IsValid() {
			continue
		}
		dst := out.FieldByIndex(f.index)
		if dst.Kind() == reflect.Pointer {
			dst.Set(reflect.New(f.typ))
			dst = dst.Elem()
		}
		dst.Set(val)
	}
	return result, nil
}

// value makes a value of the field's type of raw.
func (f field) value(noun string, raw any) (reflect.Value, error) {
	text, ok := "", true
	switch raw := raw.(type) {
	case string:
		text = raw
	case bool:
		text, ok = strconv.FormatBool(raw), f.parser.truth
	case int64, int:
		text, ok = fmt.Sprint(raw), f.parser.number
	case []any:
		return f.list(noun, raw)
	case map[string]any:
		return f.table(noun, raw)
	default:
		ok = false
	}
	if ok {
		if v, err := f.parser.parse(text); err == nil {
			return reflect.ValueOf(v).Convert(f.typ), nil
		}
	}
	return reflect.Value{}, f.wrong(noun, raw)
}

func (f field) list(noun string, raw []any) (reflect.Value, error) {
	list := make([]string, len(raw))
	for i, item := range raw {
		s, ok := item.(string)
		if _, err := parseText(s); !ok || !f.parser.list || err != nil {
			return reflect.Value{}, f.wrong(noun, raw)
		}
		list[i] = s
	}
	return reflect.ValueOf(list), nil
}

// table takes the values as the texts that they would have been.
func (f field) table(noun string, raw map[string]any) (reflect.Value, error) {
	table := make(map[string]string, len(raw))
	for key, item := range raw {
		switch item := item.(type) {
		case string:
			table[key] = item
		case bool, int64, int:
			table[key] = fmt.Sprint(item)
		default:
			return reflect.Value{}, f.wrong(noun, raw)
		}
		if _, err := parseText(table[key]); !f.parser.table || err != nil {
			return reflect.Value{}, f.wrong(noun, raw)
		}
	}
	return reflect.ValueOf(table), nil
}

// maxShown bounds how much of a wrong value an error shows, in bytes.
const maxShown = 80

func (f field) wrong(noun string, raw any) error {
	if f.Secret {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s %q: the value (not shown) is not %s", noun, f.Name, f.parser.want)
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "%s %q: %q is not %s", noun, f.Name, cut(fmt.Sprint(raw)), f.parser.want)
}

func cut(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "…"
	}
	return s
}

func unknown(noun, key string, fields []field) error {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return Unknown(noun, key, names)
}

// Unknown is the error for a key or option that is none of names. noun is "key" or "option".
func Unknown(noun, key string, names []string) error {
	if len(names) == 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "unknown %s %q: there are none", noun, cut(key))
	}
	names = slices.Sorted(slices.Values(names))
	near := ""
	if n := Nearest(key, names); n != "" {
		near = fmt.Sprintf(", did you mean %q?", n)
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "unknown %s %q%s (there are: %s)", noun, cut(key), near, strings.Join(names, ", "))
}

// Nearest returns the one of names that was probably meant by word: the one with the
// fewest letters to change, if those are not more than a third. It is "" if there is
// none.
func Nearest(word string, names []string) string {
	if len(word) > maxShown {
		return ""
	}
	best, least := "", max(1, len(word)/3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(word), n); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the bytes to insert, delete, replace or swap with their neighbour
// to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
