package conn

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// stripped stands for what is not to be seen.
const stripped = "***"

// mountFlags are secret to the specification, which does not mark them so.
const mountFlags protoreflect.FullName = "csi.v1.VolumeCapability.MountVolume.mount_flags"

func secret(f protoreflect.FieldDescriptor) bool {
	if f.FullName() == mountFlags {
		return true
	}
	o, ok := f.Options().(*descriptorpb.FieldOptions)
	if !ok || o == nil {
		return false
	}
	marked, ok := proto.GetExtension(o, csi.E_CsiSecret).(bool)
	return ok && marked
}

// visit calls f with every secret field of a message that is set, and of those in it.
func visit(m protoreflect.Message, f func(protoreflect.Message, protoreflect.FieldDescriptor, protoreflect.Value)) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case secret(fd):
			f(m, fd, v)
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					visit(v.Message(), f)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				visit(v.List().Get(i).Message(), f)
			}
		default:
			visit(v.Message(), f)
		}
		return true
	})
}

// Redacted returns a message as JSON, without what is secret in it.
func Redacted(m proto.Message) string {
	c := proto.Clone(m)
	visit(c.ProtoReflect(), func(in protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value) {
		hide := protoreflect.ValueOfString(stripped)
		switch {
		case fd.IsMap() && fd.MapValue().Kind() == protoreflect.StringKind:
			v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
				v.Map().Set(k, hide)
				return true
			})
		case fd.IsList() && fd.Kind() == protoreflect.StringKind:
			for i := range v.List().Len() {
				v.List().Set(i, hide)
			}
		case fd.Kind() == protoreflect.StringKind && !fd.IsList() && !fd.IsMap():
			in.Set(fd, hide)
		default:
			in.Clear(fd)
		}
	})
	text, err := protojson.Marshal(c)
	if err != nil {
		return "not to be shown"
	}
	return string(text)
}

// maxSecrets bounds what is remembered: a pool has a few, and mount flags of volumes come on top.
const maxSecrets = 512

// secrets are the values that no text may show: a driver may repeat them in an answer, or in one to a later call.
type secrets struct {
	mu     sync.Mutex
	values map[string]bool
	order  []string // oldest first
}

// add takes those of a request.
func (s *secrets) add(req any) {
	m, ok := req.(proto.Message)
	if !ok {
		return
	}
	visit(m.ProtoReflect(), func(_ protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch {
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				s.hide(v.String())
				return true
			})
		case fd.IsList():
			for i := range v.List().Len() {
				flag := v.List().Get(i).String()
				s.hide(flag)
				if _, value, ok := strings.Cut(flag, "="); ok {
					s.hide(value)
				}
			}
		default:
			s.hide(v.String())
		}
	})
}

func (s *secrets) hide(value string) {
	value = strings.TrimSpace(value)
	if value == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[value] {
		return
	}
	if s.values == nil {
		s.values = map[string]bool{}
	}
	if len(s.order) == maxSecrets {
		delete(s.values, s.order[0])
		s.order = s.order[1:]
	}
	s.values[value] = true
	s.order = append(s.order, value)
}

// Hide keeps values out of every error and log of the driver, such as those in its environment.
func (d *Driver) Hide(values ...string) {
	for _, v := range values {
		d.secrets.hide(v)
	}
}

// strip takes the secrets out of a text, also as they look in quotes, in a URL and in base64.
func (s *secrets) strip(text string) string {
	s.mu.Lock()
	values := slices.Clone(s.order)
	s.mu.Unlock()
	var forms []string
	for _, v := range values {
		quoted := strconv.Quote(v)
		forms = append(forms, v, quoted[1:len(quoted)-1], url.QueryEscape(v), url.PathEscape(v), base64.StdEncoding.EncodeToString([]byte(v)))
	}
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }) // one may be a part of another
	for _, form := range slices.Compact(forms) {
		text = replace(text, form)
	}
	return text
}

// short is below how many letters a value is only taken out where it stands alone: "no" is in half of all words.
const short = 5

func replace(text, value string) string {
	if len(value) >= short {
		return strings.ReplaceAll(text, value, stripped)
	}
	var b strings.Builder
	for from := 0; ; {
		i := strings.Index(text[from:], value)
		if i < 0 {
			b.WriteString(text[from:])
			return b.String()
		}
		start, end := from+i, from+i+len(value)
		before, _ := utf8.DecodeLastRuneInString(text[:start])
		after, _ := utf8.DecodeRuneInString(text[end:])
		b.WriteString(text[from:start])
		if start > 0 && letter(before) || end < len(text) && letter(after) {
			b.WriteString(value)
		} else {
			b.WriteString(stripped)
		}
		from = end
	}
}

func letter(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
