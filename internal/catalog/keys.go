package catalog

import (
	"fmt"
	"io/fs"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key describes one key of a pool, or one option of a volume.
type Key struct {
	Name string
	// Type is "text", "bool", "number", "size", "duration", "mode", "list", "table", "secret",
	// or the allowed words with a bar between them.
	Type string
	// Default is the text of the default, empty if there is none.
	Default string
	// Help is one line without a full stop.
	Help string
	// Required is set where there is no sense in a default.
	Required bool
	// Secret is set where the value must not be shown.
	Secret bool
}

// Describe returns the keys of T in the order of its fields. T is a struct; each
// exported field is a key and has the tags
//
//	opt:"name" or opt:"name,required"
//	default:"the text of the default"   optional
//	enum:"this,or,that"                 optional, for a string
//	help:"one line"
//
// and one of the types string, bool, int, int64, uint32, [Bytes], [time.Duration],
// [fs.FileMode], []string, map[string]string and [Secret], or a pointer to one of these, which stays nil
// where nothing was given and there is no default. The fields of an embedded struct are
// keys like those beside it, so that drivers can have keys in common.
//
// A T with wrong tags is a programmer's error and panics.
func Describe[T any]() []Key {
	fields := fieldsOf(reflect.TypeFor[T]())
	keys := make([]Key, len(fields))
	for i, f := range fields {
		keys[i] = f.Key
	}
	return keys
}

// Markdown returns keys as the table that stands in a README.
func Markdown(keys []Key) string {
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	var b strings.Builder
	b.WriteString("| Key | Type | Default | What it does |\n|---|---|---|---|\n")
	for _, k := range keys {
		def := k.Default
		switch {
		case k.Required:
			def = "required"
		case def != "":
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, cell.Replace(k.Type), cell.Replace(def), cell.Replace(k.Help))
	}
	return b.String()
}

// field is a key with the place and the parser of its value.
type field struct {
	Key
	index  []int
	typ    reflect.Type // without the pointer
	def    reflect.Value
	parser parser
}

// parser turns the text of a value into one of a field's type.
type parser struct {
	name   string // Key.Type
	want   string // ends the sentence "… is not"
	parse  func(string) (any, error)
	number bool // a number in TOML stands for itself
	truth  bool // a truth value in TOML stands for itself
	list   bool // an array of text in TOML stands for itself
	table  bool // a table of texts, numbers and truth values in TOML stands for itself
}

func fieldsOf(t reflect.Type) []field {
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("catalog: %v: not a struct", t))
	}
	var fields []field
	seen := make(map[string]bool)
	for _, sf := range flat(t, nil) {
		if !sf.IsExported() {
			panic(fmt.Sprintf("catalog: %v.%s: not exported", t, sf.Name))
		}
		f := newField(t, sf)
		f.index = sf.Index
		if seen[f.Name] {
			panic(fmt.Sprintf("catalog: %v: two keys are called %q", t, f.Name))
		}
		seen[f.Name] = true
		fields = append(fields, f)
	}
	return fields
}

// flat returns the fields of t, with those of an embedded struct in its place.
func flat(t reflect.Type, at []int) (all []reflect.StructField) {
	for i := range t.NumField() {
		sf := t.Field(i)
		sf.Index = append(slices.Clone(at), i)
		if sf.Anonymous && sf.Type.Kind() == reflect.Struct {
			all = append(all, flat(sf.Type, sf.Index)...)
		} else {
			all = append(all, sf)
		}
	}
	return all
}

func newField(t reflect.Type, sf reflect.StructField) field {
	name, flag, _ := strings.Cut(sf.Tag.Get("opt"), ",")
	f := field{
		Key: Key{
			Name:     name,
			Help:     sf.Tag.Get("help"),
			Default:  sf.Tag.Get("default"),
			Required: flag == "required",
		},
		typ: sf.Type,
	}
	if f.typ.Kind() == reflect.Pointer {
		f.typ = f.typ.Elem()
	}
	wrong := func(what string) {
		panic(fmt.Sprintf("catalog: %v.%s: %s", t, sf.Name, what))
	}
	switch {
	case name == "":
		wrong("no name in its tag")
	case flag != "" && flag != "required":
		wrong("flag " + strconv.Quote(flag) + " is unknown")
	case f.Help == "":
		wrong("no help in its tag")
	}
	words := sf.Tag.Get("enum")
	p, ok := parserOf(f.typ)
	switch {
	case !ok:
		wrong("type " + sf.Type.String() + " cannot be decoded")
	case words != "" && f.typ.Kind() != reflect.String:
		wrong("an enum that is not a string")
	case words != "":
		p = enumParser(strings.Split(words, ","))
	}
	f.parser, f.Type = p, p.name
	f.Secret = f.typ == reflect.TypeFor[Secret]()
	if f.Default != "" {
		v, err := p.parse(f.Default)
		if err != nil {
			wrong("default " + strconv.Quote(f.Default) + " is not " + p.want)
		}
		f.def = reflect.ValueOf(v).Convert(f.typ)
	}
	return f
}

func parserOf(t reflect.Type) (parser, bool) {
	switch t {
	case reflect.TypeFor[Bytes]():
		return parser{
			name: "size", want: "a size such as 512m or 10g", number: true,
			parse: func(s string) (any, error) { return ParseBytes(s) },
		}, true
	case reflect.TypeFor[time.Duration]():
		return parser{
			name: "duration", want: "a duration such as 90s or 5m",
			parse: func(s string) (any, error) { return time.ParseDuration(s) },
		}, true
	case reflect.TypeFor[fs.FileMode]():
		return parser{name: "mode", want: `an octal mode such as "0755"`, parse: parseMode}, true
	case reflect.TypeFor[Secret]():
		return parser{
			name: "secret", want: "text",
			parse: func(s string) (any, error) { return NewSecret(s), nil },
		}, true
	case reflect.TypeFor[[]string]():
		return parser{name: "list", want: "a list of texts", list: true, parse: parseList}, true
	case reflect.TypeFor[map[string]string]():
		return parser{name: "table", want: "a table such as { key = \"value\" }, or text such as key=value,key=value", table: true, parse: parseTable}, true
	}
	switch t.Kind() {
	case reflect.String:
		return parser{name: "text", want: "text", parse: parseText}, true
	case reflect.Bool:
		return parser{name: "bool", want: "true or false", truth: true, parse: parseBool}, true
	case reflect.Int, reflect.Int64:
		return intParser(math.MinInt64, math.MaxInt64, "a whole number"), true
	case reflect.Uint32:
		return intParser(0, math.MaxUint32, "a whole number from 0 to 4294967295"), true
	}
	return parser{}, false
}
