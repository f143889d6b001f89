// Package process runs the servers that tests start for themselves, so that none of them
// outlives its test.
//
// Each server is the first process of a PID namespace of its own: whatever it forks, and
// however far that detached itself, the kernel ends together with it. A server also dies when
// the test's process does, be it by a time-out or by SIGKILL.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is a running server.
type Process struct {
	name string
	log  string
	pid  int
	done chan struct{}
	err  error // how it ended, once done is closed
}

// Start starts cmd, whose output goes to the file log. The command may not have been
// started before, and its Cancel is of no use: [Process.Stop] ends it.
func Start(name, log string, cmd *exec.Cmd) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID}
	p := &Process{name: name, log: log, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread that forked ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// Pid is the number of the process, as this host has it.
func (p *Process) Pid() int { return p.pid }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Err says that the process ended by itself, with the last lines of its log, or is nil while it
// runs.
func (p *Process) Err() error {
	if !p.Ended() {
		return nil
	}
	return fmt.Errorf("%s ended: %w%s", p.name, errors.Join(p.err), Tail(p.log))
}

// Stop asks the process to end, waits for as long as grace, then kills it and all its children.
func (p *Process) Stop(grace time.Duration) {
	if grace > 0 && !p.Ended() {
		_ = syscall.Kill(p.pid, syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
		}
	}
	p.Kill()
}

// Kill ends the process and all its children at once.
func (p *Process) Kill() {
	if !p.Ended() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.done
	}
}

// Wait calls ok until it returns nil. It gives up when the context ends, or when one of the
// processes that ok depends on has ended.
func Wait(ctx context.Context, what string, ok func() error, on ...*Process) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		for _, p := range on {
			if ended := p.Err(); ended != nil {
				return fmt.Errorf("wait for %s: %w", what, ended)
			}
		}
		select {
		case <-ctx.Done():
			var tails strings.Builder
			for _, p := range on {
				tails.WriteString(Tail(p.log))
			}
			return fmt.Errorf("wait for %s: %w: %w%s", what, context.Cause(ctx), err, tails.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Listening returns nil where somebody listens at the address.
func Listening(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// Run runs a command to its end and returns what it printed. What it wrote to standard error
// is in the error.
func Run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 10 * time.Second // where much is started at once, others have its pipe open for a moment
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errout.String()))
	}
	return out.String(), nil
}

// Tail returns the last lines of a log, for an error, or nothing where it is empty.
func Tail(log string) string {
	b, err := os.ReadFile(log)
	b = bytes.TrimSpace(b)
	if err != nil || len(b) == 0 {
		return ""
	}
	lines := bytes.Split(b, []byte("\n"))
	return fmt.Sprintf("\n--- %s:\n%s", log, bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}
