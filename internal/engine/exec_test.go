package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
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

// A command that has closed its output is waited for, as its end is what counts.
func TestExecEndsAfterItsOutput(t *testing.T) {
	for _, code := range []string{"0", "3"} {
		asked := 0
		e := serving(t, func(w http.ResponseWriter, r *http.Request) {
			text := `{"Id":"x"}`
			switch r.URL.Path {
			case "/exec/x/start":
				text = frame(1, "said")
			case "/exec/x/json":
				text = `{"Running":true,"ExitCode":null}`
				if asked++; asked == 3 {
					text = `{"Running":false,"ExitCode":` + code + `}`
				}
			}
			_, _ = io.WriteString(w, text)
		})
		output, err := e.Exec(t.Context(), "db", Command{Args: []string{"true"}})
		if output != "said" || asked != 3 || (code == "0") != (err == nil) || err != nil && err.Error() != "exit status 3" {
			t.Errorf("it said %q, %v, asked %d times", output, err, asked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := e.Exec(ctx, "db", Command{Args: []string{"true"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of one that does not end: %v", err)
		}
		cancel()
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
