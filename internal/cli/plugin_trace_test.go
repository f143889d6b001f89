package cli

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/trace"
)

// TestTraceForATerminal: what a plugin answers is shown, and does nothing to the terminal.
func TestTraceForATerminal(t *testing.T) {
	var out bytes.Buffer
	a := &app{Env: Env{Stdout: &out}}
	a.showCall(trace.Call{Method: "Volume\x1b[2J", Status: http.StatusOK, Request: "{}", Response: "{\"Err\":\"\u009b31mé\"}"}, "text")
	if got, want := out.String(), "Volume?[2J {} -> {\"Err\":\"?31mé\"}\n"; !strings.HasSuffix(got, want) {
		t.Errorf("shown is %q, want %q at its end", got, want)
	}
}
