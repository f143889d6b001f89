package record

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// format is the first byte of an encoded record. A host refuses one that it does not know.
const format = 1

const deletedFlag = 1

// fixed is the length of what comes before the kind.
const fixed = 1 + len(Cluster{}) + len(Host{}) + 8 + 8 + 8 + 1

// Sign returns r signed by key, whose public half becomes its writer. A record that exceeds the limits is
// ErrInvalid.
func Sign(r Record, key ed25519.PrivateKey) (Record, error) {
	copy(r.Writer[:], key.Public().(ed25519.PublicKey))
	r.Written = r.Written.Truncate(time.Millisecond)
	if err := r.check(); err != nil {
		return Record{}, err
	}
	copy(r.Signature[:], ed25519.Sign(key, r.appendSigned(nil)))
	return r, nil
}

// Verify reports whether r is as its writer signed it.
func (r Record) Verify() bool {
	return ed25519.Verify(r.Writer[:], r.appendSigned(nil), r.Signature[:])
}

// Append appends r to b, as Decode reads it. r has to be within the limits.
func (r Record) Append(b []byte) []byte { return append(r.appendSigned(b), r.Signature[:]...) }

// Size is the number of bytes that Append appends.
func (r Record) Size() int {
	return fixed + 1 + len(r.Kind) + 1 + len(r.Name) + 4 + len(r.Body) + len(r.Signature)
}

func (r Record) appendSigned(b []byte) []byte {
	b = append(b, format)
	b = append(b, r.Cluster[:]...)
	b = append(b, r.Writer[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Incarnation)
	b = binary.BigEndian.AppendUint64(b, r.Counter)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Written.UnixMilli()))
	var flags byte
	if r.Deleted {
		flags |= deletedFlag
	}
	b = append(b, flags, byte(len(r.Kind)))
	b = append(b, r.Kind...)
	b = append(b, byte(len(r.Name)))
	b = append(b, r.Name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Body)))
	return append(b, r.Body...)
}

// Decode reads one record from the start of b and returns what comes after it. The record's Body is a part
// of b. What is no record is ErrInvalid; whether the writer signed it, [Record.Verify] says.
func Decode(b []byte) (r Record, rest []byte, err error) {
	in := reader{b: b}
	if f := in.byte(); !in.short && f != format {
		return Record{}, nil, errdefs.Errorf(errdefs.ErrInvalid, "record: format %d, this version reads %d", f, format)
	}
	copy(r.Cluster[:], in.take(len(r.Cluster)))
	copy(r.Writer[:], in.take(len(r.Writer)))
	r.Incarnation, r.Counter = in.uint64(), in.uint64()
	r.Written = time.UnixMilli(int64(in.uint64()))
	flags := in.byte()
	r.Deleted = flags&deletedFlag != 0
	r.Kind = string(in.take(int(in.byte())))
	r.Name = string(in.take(int(in.byte())))
	n := in.uint32()
	if n > MaxBody {
		return Record{}, nil, errdefs.Errorf(errdefs.ErrInvalid, "record: a body of %d bytes, at most %d are read", n, MaxBody)
	}
	r.Body = in.take(int(n))
	copy(r.Signature[:], in.take(len(r.Signature)))
	switch {
	case in.short:
		return Record{}, nil, errdefs.Errorf(errdefs.ErrInvalid, "record: cut off after %d bytes", len(b))
	case flags&^deletedFlag != 0:
		return Record{}, nil, errdefs.Errorf(errdefs.ErrInvalid, "record: flags %#x are not known", flags)
	}
	if err := r.check(); err != nil {
		return Record{}, nil, err
	}
	return r, in.b, nil
}

// check says what is wrong with the shape of r.
func (r Record) check() error {
	why := ""
	switch {
	case r.Cluster == Cluster{}:
		why = "no cluster"
	case r.Kind == "" || len(r.Kind) > MaxKind || !isKind(r.Kind):
		why = fmt.Sprintf("kind %q: not 1 to %d lower-case letters", r.Kind, MaxKind)
	case len(r.Name) > MaxName || !utf8.ValidString(r.Name):
		why = fmt.Sprintf("name: not at most %d bytes of UTF-8", MaxName)
	case len(r.Body) > MaxBody:
		why = fmt.Sprintf("a body of %d bytes, at most %d may be", len(r.Body), MaxBody)
	case r.Deleted && len(r.Body) > 0:
		why = "deleted, with a body"
	case r.Incarnation == 0 || r.Counter == 0:
		why = "no version"
	}
	if why == "" {
		return nil
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "record: %s", why)
}

func isKind(s string) bool {
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return true
}

// reader takes pieces off a slice and remembers that there was too little.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	piece := r.b[:n:n]
	r.b = r.b[n:]
	return piece
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
