// Package run starts programs of the system, without a shell, and takes their output.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	// patience is how long a program's output is waited for when the program has ended:
	// what it started may hold the pipe.
	patience = time.Second
	// maxShown bounds how much of what a program complained of an error shows, in bytes.
	maxShown = 400
)

// Output runs a program with stdin as its input and returns what it wrote to its standard
// output. When ctx ends, the program and all that it started are killed. An error ends in
// what the program wrote to its standard error, on one line; a program that is not
// installed is ErrUnavailable.
//
// Arguments can be read by every user of the machine: a secret goes by stdin or a file.
func Output(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = patience
	err := cmd.Run()
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "%s: not found in PATH", name)
	}
	said := strings.ToValidUTF8(strings.Join(strings.Fields(stderr.String()), " "), "�")
	if len(said) > maxShown {
		said = "…" + strings.ToValidUTF8(said[len(said)-maxShown:], "")
	}
	if said == "" {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return nil, fmt.Errorf("%s: %w: %s", name, err, said)
}
