package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
)

// child is a daemon in a process of its own.
type child struct {
	*host
	cmd *exec.Cmd
	log *bytes.Buffer
}

// passed is a socket that systemd hands over.
type passed struct {
	name string
	file *os.File
}

// startChild starts a daemon at h's place, and hands sockets over as systemd does.
func startChild(h *host, sockets ...passed) *child {
	h.t.Helper()
	c := &child{host: h, log: &bytes.Buffer{}}
	exe, err := os.Executable()
	h.must(err)
	var names []string
	var files []*os.File
	for _, s := range sockets {
		names = append(names, s.name)
		files = append(files, s.file)
	}
	// LISTEN_PID is the process itself, which only a shell that becomes it can know.
	c.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, exe)
	c.cmd.Env = append(os.Environ(), childEnv+"="+h.dir)
	if len(files) > 0 {
		c.cmd.Env = append(c.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	c.cmd.ExtraFiles = files
	c.cmd.Stderr = c.log
	h.must(c.cmd.Start())
	h.t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
		if h.t.Failed() {
			h.t.Logf("the daemon's log:\n%s", c.log)
		}
	})
	h.await("ready", h.served)
	return c
}

func (c *child) signal(s os.Signal) {
	c.t.Helper()
	c.must(c.cmd.Process.Signal(s))
}

// end stops the process in order.
func (c *child) end() {
	c.t.Helper()
	c.signal(syscall.SIGTERM)
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("daemon: %v", err)
	}
}

func TestKilledDaemonKnowsItsMounts(t *testing.T) {
	h := newHost(t, "[pool.a]\n")
	c := startChild(h)
	ctx := t.Context()
	h.must(h.plugin("a").Create(ctx, "data", nil))
	mountpoint, err := h.plugin("a").Mount(ctx, "data", "one")
	h.must(err)
	for range 2 {
		_, err = h.plugin("a").Mount(ctx, "data", "two")
		h.must(err)
	}
	c.signal(syscall.SIGKILL)
	_ = c.cmd.Wait() // killed
	h.control.Close()
	if _, err := os.Lstat(h.dir + "/p/a.sock"); err != nil {
		t.Errorf("a killed daemon cannot have taken its socket away: %v", err)
	}

	c = startChild(h)
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Name: "data"})
	h.must(err)
	counts := map[string]int{}
	for _, m := range v.Mounts {
		counts[m.ID] = m.Count
	}
	if v.Mountpoint != mountpoint || len(counts) != 2 || counts["one"] != 1 || counts["two"] != 2 {
		t.Errorf("after the kill the volume is %+v, mounted at %q before", v, mountpoint)
	}
	for _, id := range []string{"one", "two", "two"} {
		if err := h.plugin("a").Remove(ctx, "data"); err == nil {
			t.Fatal("removed while it was mounted")
		}
		h.must(h.plugin("a").Unmount(ctx, "data", id))
	}
	h.must(h.plugin("a").Remove(ctx, "data"))
	c.end()
}

func TestSIGHUP(t *testing.T) {
	h := newHost(t, "[pool.a]\n")
	c := startChild(h)
	h.configure("[pool.a]\n[pool.b]\n")
	c.signal(syscall.SIGHUP)
	h.await("the new pool", func() bool { return slices.Contains(h.pools(), "b") })
	h.configure("bogus\n")
	c.signal(syscall.SIGHUP)
	h.await("the error", func() bool { return h.status().ConfigError != "" })
	if !slices.Equal(h.pools(), []string{"a", "b"}) {
		t.Errorf("pools are %v", h.pools())
	}
	c.end()
}

// A socket that systemd keeps is served, through changes of its pool too, and is still
// there after the stop.
func TestSocketActivation(t *testing.T) {
	h := newHost(t, "[pool.a]\n[pool.b]\n")
	h.must(os.Mkdir(h.dir+"/p", 0o755))
	var sockets []passed
	for i, name := range []string{"a", "other"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("%s/p/%s.sock", h.dir, []string{"a", "spare"}[i]), Net: "unix"})
		h.must(err)
		l.SetUnlinkOnClose(false)
		defer l.Close()
		f, err := l.File()
		h.must(err)
		defer f.Close()
		sockets = append(sockets, passed{name, f})
	}
	c := startChild(h, sockets...)
	ctx := t.Context()
	h.must(h.plugin("a").Create(ctx, "data", nil))
	for i := range 3 {
		r, err := h.reload(fmt.Sprintf("[pool.a]\nlinger = \"%ds\"\n[pool.b]\n", i+1))
		h.must(err)
		if !slices.Equal(r.Changed, []string{"a"}) {
			t.Errorf("reload: %+v", r)
		}
		if _, err := h.plugin("a").Get(ctx, "data"); err != nil {
			t.Errorf("after reload %d: %v", i, err)
		}
	}
	// The one for which there is no pool answers, and waits for its pool.
	h.refused("spare")
	_, err := h.reload("[pool.a]\n[pool.b]\n[pool.spare]\n")
	h.must(err)
	h.must(h.plugin("spare").Create(ctx, "data", nil))
	c.end()
	for _, name := range []string{"a", "spare"} {
		if fi, err := os.Lstat(h.dir + "/p/" + name + ".sock"); err != nil || fi.Mode().Type() != os.ModeSocket {
			t.Errorf("systemd's socket %s: %v", name, err)
		}
	}
	if _, err := os.Lstat(h.dir + "/p/b.sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the daemon's own socket: %v", err)
	}
	if log := c.log.String(); !strings.Contains(log, "systemd passed a socket for which there is no pool") || !strings.Contains(log, "name=other") {
		t.Errorf("the log does not tell of the spare socket:\n%s", log)
	}

	// The next one takes the same sockets.
	c = startChild(h, sockets...)
	if _, err := h.plugin("a").Get(ctx, "data"); err != nil {
		t.Error(err)
	}
	c.end()
}

// listenNotify stands in for systemd (sd_notify(3)), and returns what it was told.
func listenNotify(t *testing.T, path string) func() []string {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	var mu sync.Mutex
	var told []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			mu.Lock()
			told = append(told, string(buf[:n]))
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
}

func TestNotify(t *testing.T) {
	h := newHost(t, "[pool.a]\n")
	told := listenNotify(t, h.dir+"/notify")
	h.start()
	h.await("READY", func() bool { return slices.Contains(told(), "READY=1") })
	if _, ok, err := h.page("/readyz"); !ok {
		t.Errorf("told to be ready, and is not: %v", err)
	}
	_, err := h.reload("[pool.a]\n[pool.b]\n")
	h.must(err)
	if _, err := h.reload("bogus"); err == nil {
		t.Error("took a wrong configuration over")
	}
	h.must(h.stop())
	h.await("STOPPING", func() bool { return slices.Contains(told(), "STOPPING=1") })
	var states []string
	for _, s := range told() {
		state, rest, _ := strings.Cut(s, "\n")
		states = append(states, state)
		var usec int64
		if _, err := fmt.Sscanf(rest, "MONOTONIC_USEC=%d", &usec); state == "RELOADING=1" && (err != nil || usec <= 0) {
			t.Errorf("RELOADING comes with %q", rest)
		}
	}
	want := []string{"READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"}
	if !slices.Equal(states, want) {
		t.Errorf("systemd was told %q, want %q", states, want)
	}
}

// A start that is stopped half way ends in order.
func TestStoppedAtStart(t *testing.T) {
	h := newHost(t, "[pool.a]\n")
	h.start()
	h.must(h.stop())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.control.Status(ctx); err == nil {
		t.Error("a stopped daemon answers")
	}
}
