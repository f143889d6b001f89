package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// gate waits for a line before the program's first instruction, so that it is in its control group by then and ends by itself
// when a daemon dies that has not let it go.
const gate = `read -r go && exec "$@" </dev/null`

// createOnHost starts a program of the host, which waits at the gate, and returns its process.
func (in *instance) createOnHost() (*process, error) {
	p := &in.plugin
	if fi, err := os.Stat(p.Command[0]); err != nil || fi.IsDir() || fi.Mode()&0o111 == 0 {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: there is no such program", p.Command[0])
	}
	secrets, err := p.readSecrets()
	if err != nil {
		return nil, err
	}
	stdout, stderr, err := in.out.ends()
	if err != nil {
		return nil, state.Classify(err)
	}
	defer stdout.Close()
	defer stderr.Close()
	hold, open, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", gate, p.Command[0]}, p.Command...)...) //nolint:noctx // it outlives all that has a context
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", hold, stdout, stderr
	cmd.Env = slices.Concat([]string{defaultPath}, p.Settings.Env, secrets)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = open.Close()
		return nil, fmt.Errorf("start: %w", err)
	}
	proc, err := openProcess(cmd.Process.Pid, 0)
	if err == nil {
		err = enterCgroup(cgroupOf(in.id), cmd.Process.Pid)
	}
	if err != nil {
		_ = open.Close() // it ends by that
		_ = cmd.Wait()
		if proc != nil {
			proc.close()
		}
		return nil, err
	}
	go func() { // it is reaped when how it ended was seen
		<-proc.exited
		_ = cmd.Wait()
	}()
	in.gate = open
	return proc, nil
}

// start lets what was created go on.
func (in *instance) start(ctx context.Context) error {
	if in.gate == nil {
		return in.rt.start(ctx, in.id)
	}
	_, err := in.gate.Write([]byte("\n"))
	err = errors.Join(err, in.gate.Close())
	in.gate = nil
	return err
}
