// Package hook runs commands before and after a snapshot, in a container or on the host, so that
// what is kept is what an application would have left in order.
//
// Which commands these are is in the configuration file alone. Nothing that an engine, a
// container or a label says becomes a part of them: what they learn of the volume is in
// variables.
package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Hook is one pair of commands, and what it is for.
type Hook struct {
	Name string
	// Pools, Volumes and Schedules are names, or patterns as for path.Match. An empty list is
	// all; of Schedules also what no schedule makes.
	Pools, Volumes, Schedules []string
	// Container is where the commands run: the name of a container, or a label KEY=VALUE of those
	// that have the volume. Empty is the host.
	Container string
	// User is who runs them in the container.
	User string
	// Before and After are programs with their arguments; empty is none.
	Before, After []string
	// Timeout bounds each.
	Timeout time.Duration
}

// Event is a snapshot that is made of a volume.
type Event struct {
	Pool   string `json:"pool"`
	Volume string `json:"volume"`
	// Schedule is whose it is; empty where a person makes it.
	Schedule string `json:"schedule,omitempty"`
}

// IsFor tells whether the hook is for a snapshot.
func (h Hook) IsFor(e Event) bool {
	return matches(h.Pools, e.Pool) && matches(h.Volumes, e.Volume) && matches(h.Schedules, e.Schedule)
}

func matches(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil && name != ""
	})
}

// moment is when a command runs.
type moment string

const (
	before moment = "before"
	after  moment = "after"
)

// run runs the command of one moment, if there is one.
func (h Hook) run(ctx context.Context, engines []engine.Engine, m moment, e Event) error {
	args := h.Before
	if m == after {
		args = h.After
	}
	if len(args) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout, errdefs.Errorf(context.DeadlineExceeded, "gave up after %s", h.Timeout))
	defer cancel()
	env := []string{
		"REMORA_HOOK=" + string(m), "REMORA_POOL=" + e.Pool, "REMORA_VOLUME=" + e.Volume, "REMORA_SCHEDULE=" + e.Schedule,
	}
	var err error
	if h.Container == "" {
		err = onHost(ctx, args, env)
	} else {
		err = h.inContainers(ctx, engines, engine.Command{Args: args, Env: env, User: h.User}, e)
	}
	if err != nil {
		return fmt.Errorf("hook %q %s: %w", h.Name, m, err)
	}
	return nil
}

// searchPath is where programs on the host are found, whatever the daemon was started with.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// reaped is how long a killed program may take to be gone, and the output of one that failed to be read.
const reaped = time.Second

// onHost runs a command as the daemon's user, without a shell and without the daemon's variables,
// which may hold secrets. What it leaves at work in the background, such as a client that holds a lock, is not waited for, and its
// output is read as long as it lives.
func onHost(ctx context.Context, args, env []string) error {
	name := args[0]
	if !strings.Contains(name, "/") {
		for dir := range strings.SplitSeq(searchPath, ":") {
			if found, err := exec.LookPath(path.Join(dir, name)); err == nil {
				name = found
				break
			}
		}
	}
	cmd := exec.CommandContext(ctx, name, args[1:]...) //nolint:gosec // that it runs what the configuration says is its purpose
	cmd.Env = append([]string{"PATH=" + searchPath, "HOME=/root"}, env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	said, err := start(cmd)
	if err == nil {
		err = wait(ctx, cmd)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s: not installed", args[0])
	}
	return withOutput(err, said.end())
}

// wait waits for a program, and not for one that the kernel holds when it was killed.
func wait(ctx context.Context, cmd *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(reaped):
		return context.Cause(ctx)
	}
}

// output is what a program says.
type output struct {
	mu   sync.Mutex
	tail engine.Tail
	all  chan struct{} // closed when nobody has it open any more
}

// start starts a program, and reads what it says.
func start(cmd *exec.Cmd) (*output, error) {
	o := &output{all: make(chan struct{})}
	read, write, err := os.Pipe()
	if err != nil {
		close(o.all)
		return o, err
	}
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	_ = write.Close()
	go func() {
		defer close(o.all)
		defer read.Close()
		_, _ = io.Copy(o, read)
	}()
	return o, err
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.Write(p)
}

// end returns the end of it as one line.
func (o *output) end() string {
	select {
	case <-o.all:
	case <-time.After(reaped):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.String()
}

func withOutput(err error, output string) error {
	if output == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, output)
}

// inContainers runs a command in the container of the name, or in each that has the label and the
// volume. In one that is stopped nobody writes, and nothing is done; that there is none at all
// is an error, as the name may be wrong.
func (h Hook) inContainers(ctx context.Context, engines []engine.Engine, cmd engine.Command, e Event) error {
	if len(engines) == 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "no engine here to ask for the container %q", h.Container),
			"name its socket: engine.sockets in the configuration")
	}
	isLabel := strings.Contains(h.Container, "=")
	found := false
	var errs []error
	for _, x := range engines {
		var all []engine.Container
		var err error
		if isLabel {
			all, err = x.Having(ctx, h.Container)
			all = slices.DeleteFunc(all, func(c engine.Container) bool { return !c.Has(e.Pool, e.Volume) })
		} else {
			var one engine.Container
			if one, err = x.Container(ctx, h.Container); err == nil {
				all = []engine.Container{one}
			}
		}
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			errs = append(errs, err)
		}
		for _, c := range all {
			found = true
			if !c.Running && !c.Paused { // of one that is paused the engine says that nothing can run in it
				continue
			}
			output, err := x.Exec(ctx, c.ID, cmd)
			if err != nil {
				errs = append(errs, withOutput(fmt.Errorf("container %q: %w", c.Name, err), output))
			}
		}
	}
	if found || len(errs) > 0 {
		return joined(errs)
	}
	if isLabel {
		return errdefs.Errorf(errdefs.ErrNotFound, "no container with the label %s has the volume", h.Container)
	}
	return errdefs.Errorf(errdefs.ErrNotFound, "container %q: no such container", h.Container)
}

// joined is errors.Join on one line.
func joined(errs []error) error {
	err := errors.Join(errs...)
	if err == nil || len(errs) == 1 {
		return err
	}
	return lineError{err}
}

type lineError struct{ error }

func (e lineError) Error() string { return errdefs.OneLine(e.error.Error()) }
func (e lineError) Unwrap() error { return e.error }
