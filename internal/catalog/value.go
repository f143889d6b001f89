package catalog

import (
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
)

// errValue is what a parser answers; the decoder says what is wanted instead.
var errValue = errors.New("wrong value")

// Bytes is a size in bytes. Its text is a whole number or a decimal one with a unit:
// k, m, g, t, p, each 1024 times the one before, in either case, and with "b" or "ib"
// behind it if one likes: "10g", "10GiB" and "10240m" are the same, as they are to
// "docker run --memory".
type Bytes int64

// units are the letters of [Bytes], each worth 1024 times the one before.
const units = "bkmgtp"

// ParseBytes reads the text of a [Bytes]. A negative size, and one that does not fit,
// is an error.
func ParseBytes(s string) (Bytes, error) {
	num := strings.ToLower(strings.TrimSpace(s))
	shift := 0
	if i := strings.IndexAny(num, units); i >= 0 {
		unit := num[i:]
		num = strings.TrimSpace(num[:i])
		if len(unit) > 1 && unit[1:] != "b" && unit[1:] != "ib" || len(unit) > 1 && unit[0] == 'b' {
			return 0, errValue
		}
		shift = 10 * strings.IndexByte(units, unit[0])
	}
	if n, err := strconv.ParseInt(num, 10, 64); err == nil {
		if n < 0 || num[0] == '+' || n > math.MaxInt64>>shift {
			return 0, errValue
		}
		return Bytes(n << shift), nil
	}
	whole, part, ok := strings.Cut(num, ".")
	if !ok || shift == 0 || strings.Trim(whole+part, "0123456789") != "" {
		return 0, errValue
	}
	f, err := strconv.ParseFloat(num, 64)
	if f *= float64(int64(1) << shift); err != nil || f >= math.MaxInt64 {
		return 0, errValue
	}
	return Bytes(f), nil
}

// String returns the shortest text that [ParseBytes] reads back as the same size.
func (b Bytes) String() string {
	n, unit := int64(b), 0
	for n != 0 && n%1024 == 0 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10) + units[unit:unit+1]
}

// MarshalText returns the text of [Bytes.String].
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// Secret is a text that is printed by nobody: every way of showing it says REDACTED.
// The zero Secret is empty. Two Secrets are never compared with ==.
type Secret struct {
	// A pointer, because fmt prints the fields of a struct below an unexported field
	// without asking its methods.
	text *string
	_    [0]func()
}

const redacted = "REDACTED"

// NewSecret returns a Secret that holds s.
func NewSecret(s string) Secret { return Secret{text: &s} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String returns "REDACTED", and "" for an empty Secret.
func (s Secret) String() string {
	if s.Reveal() == "" {
		return ""
	}
	return redacted
}

// GoString returns what [Secret.String] does.
func (s Secret) GoString() string { return s.String() }

// LogValue returns what [Secret.String] does.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what [Secret.String] does.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func parseText(s string) (any, error) {
	if strings.ContainsRune(s, 0) { // no path and no mount option can hold one
		return nil, errValue
	}
	return s, nil
}

func parseBool(s string) (any, error) {
	switch s {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return nil, errValue
}

// parseMode takes the permission bits with set-user-ID, set-group-ID and sticky.
func parseMode(s string) (any, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o7777 || s == "" {
		return nil, errValue
	}
	mode := fs.FileMode(n) & fs.ModePerm
	for bit, m := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= m
		}
	}
	return mode, nil
}

// parseList splits at commas; an empty text is an empty list.
func parseList(s string) (any, error) {
	list := []string{}
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if _, err := parseText(item); err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, nil
}

// parseTable reads KEY=VALUE between commas; an empty text is an empty table.
func parseTable(s string) (any, error) {
	list, err := parseList(s)
	if err != nil {
		return nil, err
	}
	table := map[string]string{}
	for _, item := range list.([]string) {
		key, value, ok := strings.Cut(item, "=")
		if _, twice := table[key]; !ok || key == "" || twice {
			return nil, errValue
		}
		table[key] = value
	}
	return table, nil
}

func intParser(low, high int64, want string) parser {
	return parser{name: "number", want: want, number: true, parse: func(s string) (any, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < low || n > high {
			return nil, errValue
		}
		return n, nil
	}}
}

// enumParser takes one of the words. Where true and false are among them, so is what else
// stands for a truth value.
func enumParser(words []string) parser {
	truth := slices.Contains(words, "true") && slices.Contains(words, "false")
	return parser{
		name:  strings.Join(words, "|"),
		want:  "one of " + strings.Join(words, ", "),
		truth: truth,
		parse: func(s string) (any, error) {
			if b, err := parseBool(s); truth && err == nil {
				s = strconv.FormatBool(b.(bool))
			}
			if !slices.Contains(words, s) {
				return nil, errValue
			}
			return s, nil
		},
	}
}
