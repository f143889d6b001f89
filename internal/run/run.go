// Package run runs the programs of the system that do what no system call does.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxText bounds what an error quotes of a program's own words.
const maxText = 500

// reaped is how long a killed program may keep its pipes open, as one does whose child
// left the process group.
const reaped = time.Second

// drained is how long a pipe may stay open after its program has ended by itself. On a busy host another
// program that is just being started has it open too, until it is there.
const drained = 10 * time.Second

// Output runs a program, without a shell, and returns what it wrote to its standard output.
// stdin may be nil. When ctx ends the program is killed with all that it started. An error
// is one line with what the program wrote to its standard error, and it never holds the
// arguments; an [exec.ExitError] in it has the exit status. A program that is not installed
// is ErrUnavailable.
func Output(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, text bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &text
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = drained
	cmd.Cancel = func() error {
		cmd.WaitDelay = reaped // it is looked at after this
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	err := cmd.Run()
	name = filepath.Base(name)
	switch {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return out.Bytes(), fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "%s: not installed", name)
	}
	if said := strings.TrimPrefix(oneLine(text.String()), name+": "); said != "" {
		err = fmt.Errorf("%s: %s: %w", name, said, err)
	} else {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return out.Bytes(), err
}

// oneLine returns the end of a text, where programs say what went wrong, as one line.
func oneLine(text string) string {
	line := strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(line) > maxText {
		line = "…" + strings.ToValidUTF8(line[len(line)-maxText:], "")
	}
	return line
}
