package runtime

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestCalled: what is no managed plugin is not called one, and a line of klog has its own level.
func TestCalled(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(called{slog.NewTextHandler(&buf, nil), "CSI driver"}).With("pool", "p")
	log.Warn("managed plugin ended, and is started again")
	if got := buf.String(); !strings.Contains(got, `level=WARN msg="CSI driver ended, and is started again" pool=p`) {
		t.Error(got)
	}
	klog, plain := &output{klog: true}, &output{}
	for text, want := range map[string]slog.Level{
		"I1129 10:00:00.000000       1 main.go:1] well": slog.LevelInfo,
		"W1129 10:00:00.000000       1 main.go:1] hm":   slog.LevelWarn,
		"E1129 10:00:00.000000       1 main.go:1] ill":  slog.LevelError,
		"F1129 10:00:00.000000       1 main.go:1] dead": slog.LevelError,
		"Error: no": slog.LevelInfo,
		"":          slog.LevelInfo,
	} {
		if got := klog.level(Line{Stream: Stderr, Text: text}); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
		if got := plain.level(Line{Stream: Stderr, Text: text}); got != slog.LevelError {
			t.Errorf("a plugin's %q is %s", text, got)
		}
	}
	if got := klog.level(Line{Stream: Stdout, Text: "E1129 x"}); got != slog.LevelInfo {
		t.Errorf("on stdout it is %s", got)
	}
}
