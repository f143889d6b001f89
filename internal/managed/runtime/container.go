package runtime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/go-runc"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// runcTime bounds one call of runc, which does not take as long unless the host is in trouble.
const runcTime = 30 * time.Second

// runcCommand returns the client of runc that writes what goes wrong into a file of its own. What it began is killed
// when the daemon dies, so that the next daemon meets nobody half way.
func (r *Runtime) runcCommand(log string) *runc.Runc {
	return &runc.Runc{
		Command: r.opts.Runc, Root: filepath.Join(r.opts.RunDir, "runc"), Log: log, LogFormat: runc.JSON, PdeathSignal: syscall.SIGKILL,
	}
}

// files is the stdio of a container: files that are its own, and no input.
type files struct{ stdout, stderr *os.File }

func (f files) Set(cmd *exec.Cmd)     { cmd.Stdout, cmd.Stderr = f.stdout, f.stderr }
func (f files) Close() error          { return nil }
func (f files) Stdin() io.WriteCloser { return nil }
func (f files) Stdout() io.ReadCloser { return nil }
func (f files) Stderr() io.ReadCloser { return nil }

// create makes the container, whose process waits before the plugin's first instruction, and returns that process.
func (r *Runtime) create(ctx context.Context, id string, stdout, stderr *os.File) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, runcTime)
	defer cancel()
	log, pidFile := r.path(id, "runc.log"), r.path(id, "bundle", "pid")
	_ = os.Remove(log)
	err := r.runcCommand(log).Create(ctx, id, r.path(id, "bundle"), &runc.CreateOpts{
		IO: files{stdout, stderr}, PidFile: pidFile,
	})
	if err != nil {
		return nil, r.runcError(ctx, log, err)
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("pid file of runc: %w", err)
	}
	return openProcess(pid, 0)
}

// start lets the process of a created container go on.
func (r *Runtime) start(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, runcTime)
	defer cancel()
	log := r.path(id, "runc.log")
	if err := r.runcCommand(log).Start(ctx, id); err != nil {
		return r.runcError(ctx, log, err)
	}
	return nil
}

// destroy removes the container with all its processes, also one of which runc knows half, or nothing. Where serves is
// set those stay that serve a device.
func (r *Runtime) destroy(ctx context.Context, id string, serves bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runcTime)
	defer cancel()
	left := sweepTime
	if serves {
		left = servesTime
		if err := letServe(cgroupOf(id)); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(filepath.Join(r.opts.RunDir, "runc", id)); err == nil {
		log := r.path(id, "runc.log")
		_ = os.Remove(log)
		if err := r.runcCommand(log).Delete(ctx, id, &runc.DeleteOpts{Force: true}); err != nil && errors.Is(err, exec.ErrNotFound) {
			return r.runcError(ctx, log, err)
		}
	}
	if err := sweepCgroup(ctx, cgroupOf(id)); err != nil {
		return err
	}
	released(ctx, filepath.Join(r.opts.Dir, id), left)
	return removeTree(filepath.Join(r.opts.RunDir, "runc", id))
}

// runcError makes one line of what runc wrote to its log.
func (r *Runtime) runcError(ctx context.Context, log string, err error) error {
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: not installed", r.opts.Runc), "install runc, which runs managed plugins")
	case ctx.Err() != nil:
		return fmt.Errorf("runc: %w", context.Cause(ctx))
	}
	if said := lastError(log); said != "" {
		return fmt.Errorf("runc: %s", said)
	}
	return fmt.Errorf("runc: %w", err)
}

// lastError returns the last error in a log of runc.
func lastError(log string) string {
	data, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	said := ""
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			said = entry.Msg
		}
	}
	return oneLine(strings.TrimPrefix(said, "runc create failed: "), maxText)
}

// maxText bounds what an error quotes.
const maxText = 600

// oneLine returns the end of a text as one line.
func oneLine(text string, limit int) string {
	line := strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(line) > limit {
		line = "…" + strings.ToValidUTF8(line[len(line)-limit:], "")
	}
	return line
}
