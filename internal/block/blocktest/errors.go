package blocktest

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// WantErr wants an error of a class, on one line, with each of the words in its text or its hints, and
// nothing that is secret. One of the class ErrUnavailable, with which people are left alone most, has to
// have a hint.
func WantErr(t testing.TB, err, class error, secret string, words ...string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("error is %v, want %v", err, class)
	}
	all := err.Error() + " | " + strings.Join(errdefs.Hints(err), " | ")
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("error does not say %q: %s", w, all)
		}
	}
	if strings.Contains(all, "\n") || secret != "" && strings.Contains(all, secret) {
		t.Errorf("error is not one line without secrets: %q", all)
	}
	if errors.Is(class, errdefs.ErrUnavailable) && len(errdefs.Hints(err)) == 0 {
		t.Errorf("error does not say what to do: %v", err)
	}
}
