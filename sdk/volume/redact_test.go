package volume

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestRedact(t *testing.T) {
	cause := errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "login: %w", errors.New("x")), "Look at the key.")
	tests := []struct {
		name string
		opts map[string]string
		text string
		want string
	}{
		{"plain", map[string]string{"password": "hunter22"}, "pass=hunter22 refused", "pass=REDACTED refused"},
		{"any case", map[string]string{"AccessKey": "hunter22"}, "hunter22", "REDACTED"},
		{"quoted", map[string]string{"token": `a"b\c`}, fmt.Sprintf("arg %q", `a"b\c`), `arg "REDACTED"`},
		{"in a URL", map[string]string{"secret": "a b/c@d"}, "https://u:a%20b%2Fc%40d@h and a+b%2Fc%40d", "https://u:REDACTED@h and REDACTED"},
		{"one in another", map[string]string{"pass": "abcd", "token": "abcdef"}, "abcdef abcd", "REDACTED REDACTED"},
		{"no secret", map[string]string{"size": "hunter22"}, "hunter22", "hunter22"},
		{"too short to hide", map[string]string{"auth": "no"}, "no route", "no route"},
		{"none", nil, "x", "x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := redact(fmt.Errorf("%s: %w", tt.text, cause), tt.opts)
			if got, _, _ := strings.Cut(err.Error(), ": login"); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if !errors.Is(err, errdefs.ErrDenied) || len(errdefs.Hints(err)) != 1 {
				t.Errorf("class %q, hints %q", errdefs.Name(err), errdefs.Hints(err))
			}
		})
	}
	if redact(nil, nil) != nil {
		t.Error("an error of nothing")
	}
}
