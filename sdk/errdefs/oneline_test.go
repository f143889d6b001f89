package errdefs

import (
	"errors"
	"testing"
)

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                "",
		"a: b":            "a: b",
		"a\nb":            "a; b",
		"a\r\n\tb  \n\nc": "a; b; c",
		"\n":              "",
		errors.Join(errors.New("a"), errors.New("b")).Error(): "a; b",
	} {
		if got := OneLine(text); got != want {
			t.Errorf("OneLine(%q) = %q, want %q", text, got, want)
		}
	}
}
