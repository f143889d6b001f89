package tap

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// frame is a message as it came.
type frame struct{ bytes []byte }

// read decodes the message and tells whether it was one of the kind.
func (f frame) read(m proto.Message) bool { return proto.Unmarshal(f.bytes, m) == nil }

// raw passes messages on byte for byte, so that fields which this program does not know arrive too.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) ([]byte, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("%T is no frame", v)
	}
	return f.bytes, nil
}

func (raw) Unmarshal(b []byte, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("%T is no frame", v)
	}
	f.bytes = append([]byte(nil), b...)
	return nil
}
