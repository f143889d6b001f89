package daemonjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// member is one of the file's object, with where it stands in the text.
type member struct {
	key        string
	start      int // of the key
	value, end int // of the value
}

// object is the text of a file with its members.
type object struct {
	text        []byte
	open, close int // of the braces
	members     []member
}

// parse finds the members of the one object that the text is.
func parse(text []byte) (*object, error) {
	if bad := broken(text); bad != nil {
		return nil, bad
	}
	in := json.NewDecoder(bytes.NewReader(text))
	first, err := in.Token()
	if err != nil {
		return nil, err
	}
	if first != json.Delim('{') {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "is no object in braces")
	}
	o := &object{text: text, open: int(in.InputOffset()) - 1}
	seen := map[string]bool{}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: key.(string)}
		m.start = int(in.InputOffset()) - len(rawKey(text[:in.InputOffset()]))
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return nil, err
		}
		m.end = int(in.InputOffset())
		m.value = m.end - len(raw)
		if seen[m.key] {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "has %q twice", m.key)
		}
		seen[m.key] = true
		o.members = append(o.members, m)
	}
	if _, err := in.Token(); err != nil {
		return nil, err
	}
	o.close = int(in.InputOffset()) - 1
	return o, nil
}

// parseOrEmpty takes a file with nothing in it for an object without members.
func parseOrEmpty(text []byte) (*object, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{}\n")
	}
	return parse(text)
}

// rawKey returns the text of the key that ends text, quotes included.
func rawKey(text []byte) []byte {
	for i := len(text) - 2; i >= 0; i-- {
		if text[i] != '"' {
			continue
		}
		slashes := 0
		for i-slashes-1 >= 0 && text[i-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return text[i:]
		}
	}
	return nil
}

// broken says where the text is no JSON.
func broken(text []byte) error {
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		return errdefs.Errorf(errdefs.ErrInvalid, "begins with a byte order mark, which is no JSON")
	}
	in := json.NewDecoder(bytes.NewReader(text))
	var all json.RawMessage
	err := in.Decode(&all)
	at := int64(len(text))
	if err == nil {
		at = in.InputOffset() + int64(len(text[in.InputOffset():])-len(bytes.TrimLeft(text[in.InputOffset():], " \t\r\n")))
		if at == int64(len(text)) {
			return nil
		}
		err = errors.New("there is more after the object")
	}
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		at = max(syntax.Offset-1, 0)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("it ends too early")
	}
	line := 1 + bytes.Count(text[:at], []byte("\n"))
	column := at - int64(bytes.LastIndexByte(text[:at], '\n'))
	return errdefs.Errorf(errdefs.ErrInvalid, "is not JSON: line %d, column %d: %s", line, column, err)
}

func (o *object) find(key string) *member {
	for i := range o.members {
		if o.members[i].key == key {
			return &o.members[i]
		}
	}
	return nil
}

// set returns the text with a member of this value: in place of the one that is there, else as the last one.
func (o *object) set(key string, value []byte) []byte {
	if m := o.find(key); m != nil {
		return splice(o.text, m.value, m.end, value)
	}
	entry := fmt.Appendf(nil, "%q: %s", key, value)
	if len(o.members) > 0 {
		last := o.members[len(o.members)-1]
		return splice(o.text, last.end, last.end, append([]byte(","+o.before()), entry...))
	}
	// Between empty braces nothing is worth keeping.
	return splice(o.text, o.open+1, o.close, append(append([]byte("\n  "), entry...), '\n'))
}

// before returns what stands between a comma and the key after it.
func (o *object) before() string {
	last := o.members[len(o.members)-1]
	from := o.open + 1
	if len(o.members) > 1 {
		from = o.members[len(o.members)-2].end
	}
	gap := string(o.text[from:last.start])
	if i := strings.IndexByte(gap, ','); i >= 0 {
		gap = gap[i+1:]
	}
	return gap
}

// drop returns the text without a member, and without the comma that it needed.
func (o *object) drop(key string) []byte {
	for i, m := range o.members {
		switch {
		case m.key != key:
		case i > 0:
			return splice(o.text, o.members[i-1].end, m.end, nil)
		case len(o.members) > 1:
			return splice(o.text, m.start, o.members[1].start, nil)
		default:
			return splice(o.text, o.open+1, o.close, nil)
		}
	}
	return o.text
}

func splice(text []byte, from, to int, with []byte) []byte {
	return append(append(append(make([]byte, 0, len(text)+len(with)), text[:from]...), with...), text[to:]...)
}
