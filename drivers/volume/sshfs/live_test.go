package sshfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// rounds is how often what is cut off is cut off.
func rounds() int {
	if os.Getenv("REMORA_SOAK") != "" {
		return 100
	}
	return 20
}

// live is a volume that a container has mounted, through all that stands in front of the
// driver.
type live struct {
	*server
	driver  *driver
	handler *volume.Handler
	root    string // of the mountpoints
	at      string
	inside  *container
}

func startLive(t *testing.T) *live {
	t.Helper()
	s := startServer(t)
	l := &live{server: s, driver: s.pool(t, t.TempDir(), nil), root: filepath.Join(t.TempDir(), "mounts")}
	h, err := volume.NewHandler(t.Context(), l.driver, volume.Options{
		MountRoot: l.root, Ledger: filepath.Join(t.TempDir(), "ledger"), Refresh: -1,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l.handler = h
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := h.Create(t.Context(), "v", s.options("v")); err != nil {
		t.Fatal(err)
	}
	l.mount(t, "1")
	t.Cleanup(func() { detach(l.root + "/v") })
	l.inside = enter(t, l.at)
	return l
}

func (l *live) mount(t *testing.T, id string) {
	t.Helper()
	at, err := l.handler.Mount(t.Context(), "v", id)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	l.at = at
}

// container is a shell in a mount namespace of its own, which has the volume by a bind
// mount, as that of an engine has.
type container struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

func enter(t *testing.T, mountpoint string) *container {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &container{in, bufio.NewScanner(out)}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	dir := t.TempDir()
	if got := c.sh(t, fmt.Sprintf("mount --bind %s %s && umount -l %s && cd %s && echo ok", mountpoint, dir, mountpoint, dir)); got != "ok" {
		t.Fatalf("the container has no volume: %s", got)
	}
	if got := c.sh(t, "cd / && cd "+dir+" && echo ok"); got != "ok" {
		t.Fatal(got)
	}
	return c
}

// sh runs a command and returns its last line.
func (c *container) sh(t *testing.T, command string) string {
	t.Helper()
	if _, err := fmt.Fprintf(c.in, "{ %s; } 2>&1; echo; echo END\n", command); err != nil {
		t.Fatal(err)
	}
	last := ""
	for c.out.Scan() {
		switch text := c.out.Text(); text {
		case "END":
			return last
		case "":
		default:
			last = text
		}
	}
	t.Fatal("the container has ended")
	return ""
}

// write has the container write a file, and tells what came of it.
func (c *container) write(t *testing.T, name string) string {
	t.Helper()
	return c.sh(t, "echo x > "+name+" && echo written")
}

// nothingBelow fails where something lies in the directory below the mounts, on the disk
// of the host. It looks into the file system of the directory above, past all mounts.
func nothingBelow(t *testing.T, root string) {
	t.Helper()
	bare := t.TempDir()
	if err := syscall.Mount(root, bare, "", syscall.MS_BIND, ""); err != nil { // not MS_REC: without what is mounted below
		t.Fatal(err)
	}
	defer detach(bare)
	dirs, err := os.ReadDir(bare)
	if err != nil || len(dirs) == 0 {
		t.Fatalf("below the mounts: %v, %v", dirs, err)
	}
	for _, dir := range dirs {
		fi, err := dir.Info()
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("below the mountpoint: %v, %v", fi, err)
		}
		if entries, err := os.ReadDir(filepath.Join(bare, dir.Name())); err != nil || len(entries) > 0 {
			t.Fatalf("written to the host's disk: %v, %v", entries, err)
		}
	}
}

// TestSshfsKilled: the program that serves the volume of a running container is killed. No
// byte goes to the host's disk, everybody is told, and the next mount is whole again.
func TestSshfsKilled(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	if got := l.inside.write(t, "before"); got != "written" {
		t.Fatalf("write: %s", got)
	}
	for i := range rounds() {
		pid := serving(t, l.at)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the mount is dead", func() bool { return errors.Is(l.driver.looks.At(t.Context(), l.at), remote.ErrDead) })
		_, err := l.handler.Path(t.Context(), "v") // at once, whatever the kernel remembers
		wantErr(t, err, errdefs.ErrUnavailable, "not connected")
		for range 3 {
			if got := l.inside.write(t, "lost"); !strings.Contains(got, "not connected") {
				t.Errorf("round %d: a write of the container: %s", i, got)
			}
		}
		nothingBelow(t, l.root)
		wantErr(t, l.handler.Ping(t.Context()), errdefs.ErrUnavailable, `volume "v": the program that served the file system is gone`)
		if info, err := l.driver.Inspect(t.Context(), "v"); err != nil || !strings.Contains(fmt.Sprint(info.Status["state"]), "does not answer") {
			t.Errorf("status is %v, %v", info.Status, err)
		}
		// The container is started again: its own mount stays dead, the new one is not.
		l.mount(t, fmt.Sprintf("again%d", i))
		if got := l.inside.write(t, "lost"); !strings.Contains(got, "not connected") {
			t.Errorf("round %d: a write of the container: %s", i, got)
		}
		l.inside = enter(t, l.at)
		if got := l.inside.write(t, fmt.Sprintf("after%d", i)); got != "written" {
			t.Fatalf("round %d: write after the mount: %s", i, got)
		}
		if err := l.handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
		nothingBelow(t, l.root)
	}
	if _, err := os.Stat(l.data("v/lost")); err == nil {
		t.Error("a write that failed is on the server")
	}
	for i := range rounds() {
		if err := l.handler.Unmount(t.Context(), "v", fmt.Sprintf("again%d", i)); err != nil {
			t.Error(err)
		}
	}
	if err := l.handler.Unmount(t.Context(), "v", "1"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(l.root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestSshfsKilledAndLeft: an engine takes back the mounts of a volume whose program is gone.
func TestSshfsKilledAndLeft(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	if err := syscall.Kill(serving(t, l.at), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := within(t, 10*time.Second, "unmount", func() error { return l.handler.Unmount(t.Context(), "v", "1") }); err != nil {
		t.Fatal(err)
	}
	if got := l.inside.write(t, "lost"); !strings.Contains(got, "not connected") {
		t.Errorf("a write of the container: %s", got)
	}
	if left, err := os.ReadDir(l.root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := l.handler.Remove(t.Context(), "v"); err != nil {
		t.Error(err)
	}
}

// TestServerRestarts: the server is killed under a live mount and comes back, and the
// container's own mount with it.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	for i := range rounds() {
		l.kill()
		err := within(t, 15*time.Second, "a look at the mount", func() error {
			var err error
			for start := time.Now(); err == nil && time.Since(start) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
				err = l.driver.looks.At(t.Context(), l.at)
			}
			return err
		})
		wantErr(t, err, errdefs.ErrUnavailable, "the server does not answer")
		if got := l.inside.write(t, "lost"); !strings.Contains(got, "error") && !strings.Contains(got, "reset") {
			t.Errorf("round %d: a write of the container: %s", i, got)
		}
		wantErr(t, l.handler.Ping(t.Context()), errdefs.ErrUnavailable, `volume "v"`)
		_, err = l.driver.Mount(t.Context(), "v", l.at)
		wantErr(t, err, errdefs.ErrUnavailable, "the server does not answer")
		nothingBelow(t, l.root)

		l.start()
		waitFor(t, "the mount is back", func() bool { return l.driver.looks.At(t.Context(), l.at) == nil })
		if got := l.inside.write(t, fmt.Sprintf("after%d", i)); got != "written" {
			t.Errorf("round %d: the container writes again: %s", i, got)
		}
		if err := l.handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
	}
	if _, err := os.Stat(l.data("v/lost")); err == nil {
		t.Error("a write that failed is on the server")
	}
	if err := l.handler.Unmount(t.Context(), "v", "1"); err != nil {
		t.Error(err)
	}
}

// TestLinkCut: the server says nothing more, and its connections stay open. Whoever asks is
// told within seconds, and what hangs holds up nothing else. Ten volumes are cut off at a time.
func TestLinkCut(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	mounts := map[string]*container{"v": l.inside}
	for i := range 9 {
		name := fmt.Sprintf("v%d", i)
		if err := l.handler.Create(t.Context(), name, l.options(name)); err != nil {
			t.Fatal(err)
		}
		at, err := l.handler.Mount(t.Context(), name, "1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { detach(at) })
		mounts[name] = enter(t, at)
	}
	const limit = remote.LookTime + 5*time.Second
	for i := range rounds() / len(mounts) {
		l.signal(syscall.SIGSTOP)
		wantErr(t, within(t, limit, "ping", func() error { return l.handler.Ping(t.Context()) }), errdefs.ErrUnavailable, "10 of 10 volumes that are mounted do not answer")
		var all sync.WaitGroup
		for name, inside := range mounts {
			at := filepath.Join(l.root, name)
			all.Go(func() {
				_, err := l.driver.Mount(t.Context(), name, at)
				wantErr(t, err, errdefs.ErrUnavailable, "answer")
			})
			all.Go(func() {
				if got := inside.write(t, "lost"); got == "written" {
					t.Errorf("round %d: the container writes to a server that is gone", i)
				}
			})
			all.Go(func() {
				_, err := l.handler.Path(t.Context(), name)
				wantErr(t, err, errdefs.ErrUnavailable, "mountpoint ")
			})
		}
		if err := within(t, 2*limit, "all of it", func() error { all.Wait(); return nil }); err != nil {
			t.Error(err)
		}
		nothingBelow(t, l.root)
		l.signal(syscall.SIGCONT)
		for name, inside := range mounts {
			waitFor(t, "the mount is back", func() bool { return l.driver.looks.At(t.Context(), filepath.Join(l.root, name)) == nil })
			waitFor(t, "the container writes again", func() bool { return inside.write(t, fmt.Sprintf("after%d", i)) == "written" })
		}
		if err := l.handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
	}
	// What hangs can be taken away all the same.
	l.signal(syscall.SIGSTOP)
	var all sync.WaitGroup
	for name := range mounts {
		all.Go(func() {
			if err := l.handler.Unmount(t.Context(), name, "1"); err != nil {
				t.Error(err)
			}
		})
	}
	if err := within(t, limit, "unmount", func() error { all.Wait(); return nil }); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(l.root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestMountOutlivesTheDriver: what is mounted is found again, and is nobody's child.
func TestMountOutlivesTheDriver(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	d := s.pool(t, dir, nil)
	if err := d.Create(t.Context(), "v", s.options("v")); err != nil {
		t.Fatal(err)
	}
	at, err := mountAt(t, d, "v")
	if err != nil {
		t.Fatal(err)
	}
	pid := serving(t, at)
	if sid, err := getsid(pid); err != nil || sid == os.Getpid() || sid != pid {
		t.Errorf("sshfs %d has session %d, %v", pid, sid, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := s.pool(t, dir, nil)
	waitFor(t, "the mount is found", func() bool { _, ok := again.monitor.Of("v"); return ok })
	if got, err := again.Mount(t.Context(), "v", at); err != nil || got != at || serving(t, at) != pid {
		t.Errorf("mounted at %q by %d, %v; before the restart at %q by %d", got, serving(t, at), err, at, pid)
	}
	f, err := os.Create(at + "/held")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, again.Unmount(t.Context(), "v", at), errdefs.ErrInUse, "busy")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := again.Unmount(t.Context(), "v", at); err != nil {
		t.Error(err)
	}
}

// getsid reads the session from proc_pid_stat(5).
func getsid(pid int) (sid int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	var state string
	var parent, group int
	_, err = fmt.Sscan(string(b[strings.LastIndexByte(string(b), ')')+1:]), &state, &parent, &group, &sid)
	return sid, err
}
