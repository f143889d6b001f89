package errdefs

import "errors"

// hinted is an error with advice beside it.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// Hint attaches advice for a person to err: one sentence that says what to do.
// It does not show in the error's text. Hint(nil, …) is nil.
func Hint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

// Hints returns the advice attached to err, outermost first.
func Hints(err error) []string {
	var hints []string
	for err != nil {
		if h, ok := err.(*hinted); ok { //nolint:errorlint // walks the chain itself
			hints = append(hints, h.hint)
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				hints = append(hints, Hints(e)...)
			}
			return hints
		}
		err = errors.Unwrap(err)
	}
	return hints
}
