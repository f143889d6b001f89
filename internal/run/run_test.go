package run_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestOutput(t *testing.T) {
	got, err := run.Output(t.Context(), []byte("in"), "sh", "-c", "cat; echo talk >&2")
	if err != nil || string(got) != "in" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFailures(t *testing.T) {
	_, err := run.Output(t.Context(), nil, "sh", "-c", "printf 'one\ntwo\n' >&2; exit 3")
	if err == nil || err.Error() != "sh: exit status 3: one two" {
		t.Errorf("an exit status: %v", err)
	}
	_, err = run.Output(t.Context(), nil, "sh", "-c", "yes no | head -c 100000 >&2; exit 1")
	if err == nil || len(err.Error()) > 500 {
		t.Errorf("a lot of talk makes an error of %d bytes", len(err.Error()))
	}
	_, err = run.Output(t.Context(), nil, "no-such-program")
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestEndOfContext: what the program started dies with it.
func TestEndOfContext(t *testing.T) {
	cause := errors.New("gave up")
	pids := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for {
			if raw, err := os.ReadFile(pids); err == nil && len(raw) > 0 {
				cancel(cause)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	begun := time.Now()
	_, err := run.Output(ctx, nil, "sh", "-c", "sleep 60 & echo $! > "+pids+".new; mv "+pids+".new "+pids+"; wait")
	if !errors.Is(err, cause) || time.Since(begun) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
	raw, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	for _, c := range strings.TrimSpace(string(raw)) {
		pid = pid*10 + int(c-'0')
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(raw)), "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("what the program started lives on")
		}
	}
}
