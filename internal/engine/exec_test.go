package engine

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
)

func frame(stream byte, text string) string {
	head := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return string(head) + text
}

func TestCopyStreams(t *testing.T) {
	for _, tt := range []struct{ what, in, want, wrong string }{
		{"nothing", "", "", ""},
		{"both", frame(1, "out ") + frame(2, "err ") + frame(1, ""), "out err ", ""},
		{"cut off in a frame", frame(1, "out")[:9], "o", "output: EOF"},
		{"cut off in a head", frame(1, "out") + "\x01", "out", "output: unexpected EOF"},
		{"no frames", "plain text of a terminal", "", "not in frames"},
		{"too large", "\x01\x00\x00\x00\xff\xff\xff\xff", "", "not in frames"},
	} {
		var out strings.Builder
		err := copyStreams(&out, strings.NewReader(tt.in))
		if out.String() != tt.want || (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %q, %v", tt.what, out.String(), err)
		}
	}
}

func TestTail(t *testing.T) {
	var tail Tail
	for range 1000 {
		if n, err := tail.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := tail.String(); !strings.HasPrefix(got, "…line line") || len(got) > maxTail+3 {
		t.Errorf("tail is %q", got)
	}
}

func FuzzCopyStreams(f *testing.F) {
	f.Add([]byte(frame(1, "out") + frame(2, "err")))
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if copyStreams(&out, bytes.NewReader(in)); out.Len() > len(in) {
			t.Errorf("%d bytes came out of %d", out.Len(), len(in))
		}
		_, _ = io.Copy(io.Discard, &out)
	})
}
