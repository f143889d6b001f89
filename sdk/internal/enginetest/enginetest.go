// Package enginetest gives a test an engine of its own, on a host of its own: a mount
// namespace in which /run and /etc/docker are directories of the test. What an engine and
// a plugin do there is seen by no other engine of the machine.
//
// It needs root, dockerd and the commands unshare and nsenter; the caller asks for them
// with testenv.Require. Engines have no bridge and change no firewall, so containers run
// with "--network none".
//
// These tests take their time, so "go test -short" leaves them out. What runs them apart
// from the others finds them by name: it begins with TestEngine.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Image is the name of the image that [Engine.ImportBusybox] makes.
const Image = "busybox:test"

// startTime bounds how long an engine may take to answer, and stopTime to end.
const startTime, stopTime = 60 * time.Second, 30 * time.Second

// Host is a mount namespace. Run and Etc are, seen from the test, what /run and
// /etc/docker are in it.
type Host struct {
	Run, Etc string
	dir      string
	pid      int
}

// NewHost makes a host, or skips the test with -short. The host ends with the test.
func NewHost(t testing.TB) *Host {
	t.Helper()
	if !strings.HasPrefix(t.Name(), "TestEngine") {
		t.Fatalf("a test with an engine is called TestEngine…, not %s", t.Name())
	}
	if testing.Short() {
		t.Skip("short: it starts an engine")
	}
	// Not t.TempDir: paths of sockets below it must stay short.
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left behind: %v", err)
		}
	})
	h := &Host{Run: filepath.Join(dir, "run"), Etc: filepath.Join(dir, "etc"), dir: dir}
	for _, d := range []string{h.Run, h.Etc} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Mkdir("/etc/docker", 0o755) == nil { // a place to mount on
		t.Cleanup(func() { _ = os.Remove("/etc/docker") })
	}
	script := `mount --bind "$0/run" /run && mount --bind "$0/etc" /etc/docker && echo ready && exec sleep infinity`
	holder := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, dir)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	holder.Stderr = t.Output()
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = holder.Process.Kill(), holder.Wait() })
	if line, err := io.ReadAll(io.LimitReader(out, int64(len("ready\n")))); err != nil || string(line) != "ready\n" {
		t.Fatalf("no mount namespace: %q, %v", line, err)
	}
	h.pid = holder.Process.Pid
	return h
}

// Command returns a command that runs on the host. A signal to its process reaches the
// program itself.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	args = append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", h.pid), "--", name}, args...)
	c := exec.CommandContext(ctx, "nsenter", args...)
	c.Dir = "/"
	return c
}

// Engine is a dockerd that runs on a [Host].
type Engine struct {
	host   *Host
	args   []string
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error
	output *output
}

// Start starts an engine with further arguments and waits until it answers. It ends with
// the test.
func (h *Host) Start(t testing.TB, args ...string) *Engine {
	t.Helper()
	e := &Engine{host: h, args: args, output: &output{to: t.Output()}}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// TryStart starts an engine that is to fail, and returns what it said in the end.
func (h *Host) TryStart(t testing.TB, args ...string) (log string) {
	t.Helper()
	e := &Engine{host: h, args: args, output: &output{to: t.Output()}}
	if err := e.start(); err == nil {
		t.Error("the engine started")
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}
	return e.output.String()
}

// Socket is the engine's socket, seen from the test.
func (e *Engine) Socket() string { return filepath.Join(e.host.Run, "docker.sock") }

func (e *Engine) start() error {
	d := e.host.dir
	args := append([]string{
		"--host=unix:///run/docker.sock", "--data-root=" + d + "/data", "--exec-root=" + d + "/exec",
		"--pidfile=" + d + "/docker.pid", "--bridge=none", "--iptables=false", "--ip-masq=false",
	}, e.args...)
	// Not the context of the test, which ends before its clean-up.
	e.cmd = e.host.Command(context.Background(), "dockerd", args...)
	e.cmd.Stdout, e.cmd.Stderr = e.output, e.output
	if err := e.cmd.Start(); err != nil {
		return err
	}
	e.ended = make(chan struct{})
	go func() { e.err = e.cmd.Wait(); close(e.ended) }()
	deadline := time.Now().Add(startTime)
	for time.Now().Before(deadline) {
		select {
		case <-e.ended:
			return fmt.Errorf("dockerd ended: %w", e.err)
		case <-time.After(50 * time.Millisecond):
		}
		// Any status will do: an authorization plugin may deny this, too.
		if r, err := e.Client().Get("http://docker/_ping"); err == nil {
			_ = r.Body.Close()
			return nil
		}
	}
	return errors.Join(fmt.Errorf("dockerd does not answer within %v", startTime), e.stop())
}

func (e *Engine) stop() error {
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-e.ended:
		return nil
	case <-time.After(stopTime):
		return errors.Join(fmt.Errorf("dockerd did not end within %v", stopTime), e.cmd.Process.Kill())
	}
}

// Restart stops the engine and starts it again.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
}

// Client returns a client of the engine's API; any host in a URL will do. A large body
// that may be refused unread is sent with the header "Expect: 100-continue".
func (e *Engine) Client() *http.Client {
	return &http.Client{Timeout: startTime, Transport: &http.Transport{
		DisableKeepAlives:     true,
		ExpectContinueTimeout: startTime,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", e.Socket())
		},
	}}
}

// Docker runs the command docker against the engine and returns what it said on both
// streams, trimmed.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "docker", append([]string{"--host=unix://" + e.Socket()}, args...)...)
	c.Env = append(os.Environ(), "DOCKER_CONFIG="+e.host.dir)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// ImportBusybox makes [Image] of the static program at path.
func (e *Engine) ImportBusybox(t testing.TB, path string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "docker", "--host=unix://"+e.Socket(), "import", "-", Image)
	c.Stdin = BusyboxTar(t, path)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("import: %v: %s", err, out)
	}
}

// BusyboxTar returns the file system of an image, to be imported, that has the static
// program at path and a few commands.
func BusyboxTar(t testing.TB, path string) io.Reader {
	t.Helper()
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	for _, name := range []string{"sh", "cat", "ls", "echo", "sleep"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return &b
}

// output keeps what a process said and passes it on to the test.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	to   io.Writer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	return o.to.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
