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

func TestJoin(t *testing.T) {
	a, b := errors.New("a"), Errorf(ErrNotFound, "b")
	if err := Join(nil, nil); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	if err := Join(nil, a); err != a { //nolint:errorlint // the same
		t.Errorf("of one: %v", err)
	}
	err := Join(a, nil, b)
	if err.Error() != "a; b" || !errors.Is(err, a) || !errors.Is(err, ErrNotFound) {
		t.Errorf("of two: %v", err)
	}
	if err := Join(errors.Join(a, b)); err.Error() != "a; b" || !errors.Is(err, ErrNotFound) {
		t.Errorf("of one with two lines: %v", err)
	}
}
