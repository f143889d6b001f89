package enginetest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asPlugin is set in the environment of a test program that is to be the plugin.
const asPlugin = "REMORA_TEST_AS_PLUGIN"

// Main is a TestMain for a plugin's package: the test program can be run as the plugin,
// too, which is main.
func Main(m *testing.M, main func()) {
	if os.Getenv(asPlugin) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Plugin is the test program at work as the plugin.
type Plugin struct {
	cmd   *exec.Cmd
	lines chan string
	ended chan struct{}
	err   error
}

// RunPlugin runs the plugin on the machine itself until the test ends. What it logs, the
// test logs.
func RunPlugin(t testing.TB, args ...string) *Plugin {
	t.Helper()
	return run(t, exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...))
}

// RunPlugin runs the plugin on the host until the test ends.
func (h *Host) RunPlugin(t testing.TB, args ...string) *Plugin {
	t.Helper()
	return run(t, h.Command(context.WithoutCancel(t.Context()), os.Args[0], args...))
}

func run(t testing.TB, cmd *exec.Cmd) *Plugin {
	t.Helper()
	p := &Plugin{cmd: cmd, lines: make(chan string, 1000), ended: make(chan struct{})}
	cmd.Env = append(os.Environ(), asPlugin+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			fmt.Fprintln(t.Output(), s.Text())
			p.lines <- s.Text()
		}
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.Stop(t, syscall.SIGTERM) // the test that cares stops it itself
	})
	return p
}

// Says waits for a line of the plugin's log.
func (p *Plugin) Says(t testing.TB, part string) {
	t.Helper()
	late := time.After(startTime)
	for {
		select {
		case line := <-p.lines:
			if strings.Contains(line, part) {
				return
			}
		case <-late:
			t.Fatalf("no line with %q", part)
		}
	}
}

// Signal sends the plugin a signal.
func (p *Plugin) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the plugin by a signal, if it has not ended, and returns how it ended.
func (p *Plugin) Stop(t testing.TB, sig os.Signal) error {
	t.Helper()
	_ = p.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-p.ended:
		return p.err
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill() // so that it does not outlive the test
		t.Errorf("the plugin does not stop within %v", stopTime)
		<-p.ended
		return p.err
	}
}

// RefusesArguments fails the test unless the plugin, run with args, ends with an error and
// says why.
func RefusesArguments(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asPlugin+"=1")
	if out, err := cmd.CombinedOutput(); err == nil || len(out) == 0 {
		t.Errorf("%q: %v, %s", args, err, out)
	}
}
