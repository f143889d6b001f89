package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Logs returns what a plugin wrote: the last tail lines, all that are kept for tail < 0, and with follow what it writes
// from then on, over its restarts, until it is stopped or ctx ends.
func (r *Runtime) Logs(ctx context.Context, id string, tail int, follow bool) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		if err := checkID(id); err != nil {
			yield(Line{}, err)
			return
		}
		lines, more, leave, err := r.readLogs(id, tail, follow)
		if err != nil {
			yield(Line{}, fmt.Errorf("plugin %q: logs: %w", id, err))
			return
		}
		defer leave()
		for _, line := range lines {
			if !yield(line, nil) {
				return
			}
		}
		for more != nil {
			select {
			case line, ok := <-more:
				if !ok || !yield(line, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func (r *Runtime) readLogs(id string, tail int, follow bool) (lines []Line, more chan Line, leave func(), err error) {
	leave = func() {}
	dir := filepath.Join(r.opts.Dir, id)
	var out *output
	if in := r.find(id); in != nil {
		out = in.output()
	}
	if out != nil {
		out.drain()
		out.mu.Lock()
		defer out.mu.Unlock()
		if follow && !out.closed {
			ch := make(chan Line, followed)
			more = ch
			out.followers[ch] = struct{}{}
			leave = func() {
				out.mu.Lock()
				defer out.mu.Unlock()
				delete(out.followers, ch)
			}
		}
	}
	lines, err = readLog(dir, tail)
	if err != nil {
		err = state.Classify(err)
	}
	return lines, more, leave, err
}

// Stdio is what a program in a plugin is given. Nil is nothing, or a place where everything vanishes.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// execIO gives a Stdio to runc. Its input is copied beside, as who gives it may never end it.
type execIO struct{ Stdio }

func (s execIO) Set(cmd *exec.Cmd) {
	cmd.Stdout, cmd.Stderr = s.Out, s.Err
	if s.Out == nil {
		cmd.Stdout = io.Discard
	}
	if s.Err == nil {
		cmd.Stderr = io.Discard
	}
	if s.In == nil {
		return
	}
	if f, ok := s.In.(*os.File); ok {
		cmd.Stdin = f
		return
	}
	w, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(w, s.In)
		_ = w.Close()
	}()
}

func (execIO) Close() error          { return nil }
func (execIO) Stdin() io.WriteCloser { return nil }
func (execIO) Stdout() io.ReadCloser { return nil }
func (execIO) Stderr() io.ReadCloser { return nil }

// Exec runs a program in a plugin that runs, as its user and with its environment but without its secrets, and returns the
// program's exit status. When ctx ends the program is killed.
func (r *Runtime) Exec(ctx context.Context, id string, argv []string, stdio Stdio) (int, error) {
	p, err := r.up(id)
	if err != nil {
		return -1, err
	}
	if len(argv) == 0 {
		return -1, p.errorf("exec: %w", errdefs.Errorf(errdefs.ErrInvalid, "no program is given"))
	}
	spec, err := p.Spec(r.path(id, "s"), cgroupOf(id))
	if err != nil {
		return -1, p.errorf("exec: %w", err)
	}
	process := *spec.Process
	process.Args = argv
	dir, err := os.MkdirTemp(r.path(id, "bundle"), "exec-")
	if err != nil {
		return -1, p.errorf("exec: %w", state.Classify(err))
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return r.exec(ctx, p, process, stdio, filepath.Join(dir, "log"))
}

func (r *Runtime) exec(ctx context.Context, p *Plugin, process specs.Process, stdio Stdio, log string) (int, error) {
	// When runc is killed the program goes on. So it is the program that is killed, and runc ends by that.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	started, ended := make(chan int, 1), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
			killExec(p.ID, <-started, ended)
			cancel()
		case <-ended:
		}
	})
	err := r.runcCommand("").Exec(inner, p.ID, process, &runc.ExecOpts{IO: execIO{stdio}, LogFile: log, Started: started})
	close(ended)
	wg.Wait()
	if ctx.Err() != nil {
		return -1, p.errorf("exec: %w", context.Cause(ctx))
	}
	if err == nil {
		return 0, nil
	}
	if said := lastError(log); said != "" {
		return -1, p.errorf("exec: %w", errdefs.Errorf(errdefs.ErrInvalid, "%s", strings.TrimPrefix(said, "exec failed: ")))
	}
	if status, ok := errors.AsType[*runc.ExitError](err); ok {
		return status.Status, nil
	}
	return -1, p.errorf("exec: %w", r.runcError(ctx, log, err))
}

// killExec kills what a runc has started in a plugin, which is its child, as soon as it is there. It returns when that
// runc has ended, or after a while.
func killExec(id string, runcPid int, ended <-chan struct{}) {
	for deadline := time.Now().Add(sweepTime); time.Now().Before(deadline); {
		if dirs, err := cgroupDirs(cgroupOf(id)); err == nil {
			for _, pid := range cgroupPids(dirs) {
				killChild(pid, runcPid)
			}
		}
		select {
		case <-ended:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func killChild(pid, parent int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if st, err := readStat(pid); err == nil && st.parent == parent {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// Processes is a table of processes, as ps(1) writes it.
type Processes struct {
	Titles []string
	Rows   [][]string
}

// Top returns the processes of a plugin that runs.
func (r *Runtime) Top(ctx context.Context, id string) (Processes, error) {
	p, err := r.up(id)
	if err != nil {
		return Processes{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, runcTime)
	defer cancel()
	top, err := r.runcCommand("").Top(ctx, id, "-ef")
	if err != nil {
		return Processes{}, p.errorf("top: %w", r.runcError(ctx, "", err))
	}
	return Processes{top.Headers, top.Processes}, nil
}

// up returns a plugin that runs.
func (r *Runtime) up(id string) (*Plugin, error) {
	name := id
	if in := r.find(id); in != nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		name = in.plugin.Name
		if in.state.Status == Running {
			p := in.plugin
			return &p, nil
		}
	}
	return nil, errdefs.Errorf(errdefs.ErrUnavailable, "plugin %q: does not run", name)
}
