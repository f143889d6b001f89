package errdefs

import (
	"errors"
	"slices"
	"strings"
)

// OneLine folds a text onto one line, such as that of errors.Join: whoever shows an error
// puts a prefix in front of it.
func OneLine(text string) string {
	if !strings.ContainsAny(text, "\r\n") {
		return text
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}

// Join wraps the errors that are not nil, as [errors.Join] does, but its text is one line.
func Join(errs ...error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	switch {
	case len(errs) == 0:
		return nil
	case len(errs) == 1 && !strings.ContainsAny(errs[0].Error(), "\r\n"):
		return errs[0]
	}
	return joined(errs)
}

type joined []error

func (j joined) Error() string { return OneLine(errors.Join(j...).Error()) }

func (j joined) Unwrap() []error { return j }
