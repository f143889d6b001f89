package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
)

func TestProgressLine(t *testing.T) {
	for _, tt := range []struct {
		p     control.Progress
		drawn bool
		want  string
	}{
		{control.Progress{Object: "db", Done: 3 << 20}, true, "db: 3.0 MiB, 1.5 MiB/s"},
		{control.Progress{Object: "db", Done: 1 << 20, Total: 4 << 20}, false, "db: 1.0 MiB  25 % of 4.0 MiB, 512.0 KiB/s, 6s left"},
		{control.Progress{Object: "db", Done: 2 << 20, Total: 4 << 20}, true, "db [" + strings.Repeat("#", 15) + strings.Repeat(".", 15) + "]  50 % of 4.0 MiB, 1.0 MiB/s, 2s left"},
		{control.Progress{Object: "db", Done: 4 << 20, Total: 4 << 20}, true, "db [" + strings.Repeat("#", 30) + "] 100 % of 4.0 MiB, 2.0 MiB/s"},
		{control.Progress{Object: "db", Total: 1 << 30}, false, "db: 0 B   0 % of 1.0 GiB, 0 B/s"},
	} {
		if got := progressLine(tt.p, 2*time.Second, tt.drawn); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.p, got, tt.want)
		}
	}
}

// Without a terminal there is a line now and then, and no bar.
func TestBarWithoutTerminal(t *testing.T) {
	var out strings.Builder
	b := (&app{Env: Env{Stderr: &out}}).bar()
	b.show(control.Progress{Object: "db", Done: 1, Total: 2})
	if out.Len() > 0 {
		t.Errorf("it begins with %q", out.String())
	}
	b.started, b.last = b.started.Add(-lineEvery), b.last.Add(-lineEvery)
	b.show(control.Progress{Object: "db", Done: 1, Total: 2})
	b.show(control.Progress{Object: "db", Done: 2, Total: 2})
	b.end()
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "db: 1 B  50 % of 2 B, ") || strings.Contains(got, "\x1b") {
		t.Errorf("it says %q", got)
	}
}
