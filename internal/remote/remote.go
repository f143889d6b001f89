// Package remote is what the drivers share whose file systems a program serves, or a
// server on another machine: to run the program that mounts and to hear why it could
// not, to tell whether what is mounted still answers, and to take away what does not.
//
// Storage of this kind ends by not answering. So nothing here waits for it without a
// limit: a look at a mountpoint that hangs keeps one thread, however often somebody asks,
// and what is taken away is taken from the table of mounts first.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Command is a program that mounts a file system and ends, or goes on in the background
// to serve it.
type Command struct {
	Name string
	Args []string
	// Stdin is where a password goes: arguments and environment can be read by others.
	Stdin []byte
	// Env is the whole environment; nil is PATH and HOME and the language of the errors.
	Env []string
	// Limit bounds it besides the context; 0 is [DefaultLimit].
	Limit time.Duration
}

// DefaultLimit is how long a [Command] may take to mount.
const DefaultLimit = 60 * time.Second

// maxTold is how much of what a program says is read, in bytes.
const maxTold = 16 << 10

// killTime is how long a program that was killed may take to be gone. One that the kernel
// holds is left to it.
const killTime = 2 * time.Second

// Run runs the program to the end of its first process, which is the moment at which the
// file system is mounted, and returns what it wrote to standard error. The error is nil
// if it succeeded, an [*exec.ExitError] if it failed, ErrUnsupported if it is not
// installed, and the cause of ctx if that came first.
//
// The program has a session of its own: what it leaves in the background outlives this
// process, and no signal for this process's group reaches it.
func (c Command) Run(ctx context.Context) (told string, err error) {
	path, err := exec.LookPath(c.Name)
	if err != nil {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "program %q is not installed", c.Name),
			"install the package that has it, such as by: apt install "+c.Name)
	}
	limit := c.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errdefs.Errorf(errdefs.ErrUnavailable, "%s: not mounted within %s", c.Name, limit))
	defer cancel()
	// A pipe would have no end as long as what stays in the background holds it.
	fd, err := unix.MemfdCreate("stderr", unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.Name, err)
	}
	stderr := os.NewFile(uintptr(fd), "stderr")
	defer stderr.Close()
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir = "/" // holds no file system from being unmounted
	cmd.Stderr = stderr
	cmd.Env = c.Env
	if cmd.Env == nil {
		cmd.Env = environment()
	}
	if len(c.Stdin) > 0 {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killTime
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%s: %w", c.Name, err)
	}
	ended := make(chan struct{})
	var waited error
	go func() { waited = cmd.Wait(); close(ended) }()
	select {
	case <-ended:
		err = waited
	case <-ctx.Done():
		select {
		case <-ended:
		case <-time.After(2 * killTime):
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text, _ := io.ReadAll(io.NewSectionReader(stderr, 0, maxTold))
	return string(text), err
}

// environment is what a program gets of ours. Not among it are an agent with keys, and
// secrets that the daemon has for others.
func environment() []string {
	env := []string{"LC_ALL=C", "HOME=/root"}
	for _, name := range []string{"PATH", "HOME"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// LastLine returns the last line of what a program told that says something, for an error
// that has nothing better.
func LastLine(told string) string {
	lines := strings.FieldsFunc(told, func(r rune) bool { return r == '\n' || r == '\r' })
	for _, line := range slices.Backward(lines) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return "no reason given"
}

// Failed tells whether err is that of a program that ran and failed, so that what it told
// is the reason.
func Failed(err error) bool {
	_, ok := errors.AsType[*exec.ExitError](err)
	return ok
}
