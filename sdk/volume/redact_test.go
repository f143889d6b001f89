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
		{"in a URL", map[string]string{"secret": "a b/c@d"}, "https://u:a%20b%2Fc%40d@h and a+b%2Fc%40d", "https://REDACTED@h and REDACTED"},
		{"one in another", map[string]string{"pass": "abcd", "token": "abcdef"}, "abcdef abcd", "REDACTED REDACTED"},
		{"no secret", map[string]string{"size": "hunter22"}, "hunter22", "hunter22"},
		{"among others", map[string]string{"o": "username=u,password=hunter22"}, "login hunter22 as u", "login REDACTED as u"},
		{"of a share", map[string]string{"device": "//u:hunter22@h/s"}, "hunter22 at h/s", "REDACTED at h/s"},
		{"options of a command", nil, "mount -o username=u,password=hunter22,ro: exit status 32", "mount -o username=u,password=REDACTED,ro: exit status 32"},
		{"last of them", nil, "mount -o passwd=hunter22: exit status 32", "mount -o passwd=REDACTED: exit status 32"},
		{"quoted command", nil, `["mount" "-o" "u=v,pass=hu\"nter22"]`, `["mount" "-o" "u=v,pass=REDACTED"]`},
		{"quoted value", nil, `API_TOKEN="hunter 22" x`, `API_TOKEN=REDACTED x`},
		{"JSON", nil, `{"secretKey": "hun\"ter22","user":"u"}`, `{"secretKey": "REDACTED","user":"u"}`},
		{"query", nil, "GET https://h/x?a=b&sas-token=hunter22", "GET https://h/x?a=b&sas-token=REDACTED"},
		{"user of a URL", nil, "https://u:hunt@er22@h/x refused", "https://REDACTED@h/x refused"},
		{"user of a share", nil, "//u:hunter22@h/x refused", "//REDACTED@h/x refused"},
		{"nothing like it", nil, "https://h/x of a@b: key is not there, pass= none (keys=)", "https://h/x of a@b: key is not there, pass= none (keys=)"},
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
	err := redact(errdefs.Hint(cause, "try key=hunter22 again"), nil)
	if got := errdefs.Hints(err); len(got) != 2 || got[0] != "try key=REDACTED again" || got[1] != "Look at the key." || !errors.Is(err, errdefs.ErrDenied) {
		t.Errorf("hints %q", got)
	}
	if redact(nil, nil) != nil {
		t.Error("an error of nothing")
	}
}
