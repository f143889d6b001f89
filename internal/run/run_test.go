package run_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestOutput(t *testing.T) {
	out, err := run.Output(t.Context(), []byte("in"), "sh", "-c", "cat; echo aside >&2")
	if err != nil || string(out) != "in" {
		t.Errorf("output is %q, %v", out, err)
	}
}

func TestErrors(t *testing.T) {
	out, err := run.Output(t.Context(), nil, "sh", "-c", "echo half; printf 'sh: first\nsecond  word\n' >&2; exit 3", "secret")
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 3 || string(out) != "half\n" || err.Error() != "sh: first second word: exit status 3" {
		t.Errorf("%q, %v", out, err)
	}
	_, err = run.Output(t.Context(), nil, "sh", "-c", "yes | head -c 100000 >&2; echo the end >&2; false")
	if err == nil || len(err.Error()) > 600 || !strings.Contains(err.Error(), "y the end: exit") {
		t.Errorf("a long one: %v", err)
	}
	if _, err = run.Output(t.Context(), nil, "no-such-program"); !errors.Is(err, errdefs.ErrUnavailable) || err.Error() != "no-such-program: not installed" {
		t.Errorf("not installed: %v", err)
	}
}

// TestPipeStaysOpen: what a program wrote that ended is no less for somebody who has its pipe open a little longer.
func TestPipeStaysOpen(t *testing.T) {
	out, err := run.Output(t.Context(), nil, "sh", "-c", "echo out; sleep 2 &")
	if err != nil || string(out) != "out\n" {
		t.Errorf("output is %q, %v", out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = run.Output(ctx, nil, "sh", "-c", "setsid sleep 20; true") // in a group of its own, it is not killed
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 8*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
}

// TestEndOfContext: what the program started ends with it.
func TestEndOfContext(t *testing.T) {
	pipe := t.TempDir() + "/pipe"
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := run.Output(ctx, nil, "sh", "-c", `sh -c 'echo x; exec sleep 600' >"$0"; wait`, pipe)
		ended <- err
	}()
	f, err := os.Open(pipe) // waits for the grandchild
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	late := errors.New("too late")
	cancel(late)
	start := time.Now()
	if err := <-ended; !errors.Is(err, late) {
		t.Errorf("error is %v", err)
	}
	if err := f.SetReadDeadline(start.Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 8); err == nil; { // until the last writer is gone
		_, err = f.Read(buf)
	}
	if err.Error() != "EOF" || time.Since(start) > 20*time.Second {
		t.Errorf("the grandchild lives on: %v", err)
	}
}
