package volume

import (
	"slices"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/secrets"
)

// redacted is an error whose text has lost its secrets and whose class has not.
type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.err }

// redact hides secrets in the text of err and of its hints: the values of secret options
// in opts wherever they stand, and what looks like a secret by what stands before it.
func redact(err error, opts map[string]string) error {
	if err == nil {
		return nil
	}
	known := secrets.Of(opts)
	text, hints := err.Error(), errdefs.Hints(err)
	clean, same := secrets.Hide(text, known), true
	for i, hint := range hints {
		hints[i] = secrets.Hide(hint, known)
		same = same && hints[i] == hint
	}
	if same && clean == text {
		return err
	}
	out := error(&redacted{clean, errdefs.Class(err)})
	for _, hint := range slices.Backward(hints) {
		out = errdefs.Hint(out, hint)
	}
	return out
}
