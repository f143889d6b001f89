package mount

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
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// rounds is how often what is cut off is cut off.
func rounds() int {
	switch {
	case os.Getenv("REMORA_SOAK") != "":
		return 100
	case testing.Short():
		return 2
	}
	return 10
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

func startLive(t *testing.T, s *server, opts map[string]string) *live {
	t.Helper()
	testenv.Require(t, testenv.Netns)
	l := &live{server: s, driver: pool(t, t.TempDir(), nil), root: filepath.Join(t.TempDir(), "mounts")}
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
	if err := h.Create(t.Context(), "v", opts); err != nil {
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
	if got := c.sh(t, fmt.Sprintf("mount --bind %s %s && umount -i -l %s && cd %s && echo ok", mountpoint, dir, mountpoint, dir)); got != "ok" {
		t.Fatalf("the container has no volume: %s", got)
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
		if entries, err := os.ReadDir(filepath.Join(bare, dir.Name())); err != nil || len(entries) > 0 {
			t.Fatalf("written to the host's disk: %v, %v", entries, err)
		}
	}
}

// TestProgramKilled: the program that serves the volume of a running container is killed.
// No byte goes to the host's disk, everybody is told, and the next mount is whole again.
func TestProgramKilled(t *testing.T) { //nolint:tparallel // the two run beside each other, and beside no other
	t.Run("rclone", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		programKilled(t, startLive(t, s, s.rclone("v")))
	})
	t.Run("davfs", func(t *testing.T) {
		testenv.Require(t, testenv.Davfs)
		t.Parallel()
		s := startServer(t)
		programKilled(t, startLive(t, s, s.davfs("v")))
	})
}

func programKilled(t *testing.T, l *live) {
	for i := range rounds() {
		if got := l.inside.write(t, fmt.Sprintf("before%d", i)); got != "written" {
			t.Fatalf("round %d: write: %s", i, got)
		}
		if err := syscall.Kill(serving(t, l.at), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the mount is dead", func() bool { return errors.Is(l.driver.looks.At(t.Context(), l.at), remote.ErrDead) })
		if got := l.inside.write(t, "lost"); !strings.Contains(got, "not connected") {
			t.Errorf("round %d: a write of the container: %s", i, got)
		}
		nothingBelow(t, l.root)
		wantErr(t, l.handler.Ping(t.Context()), errdefs.ErrUnavailable, `volume "v": the program that served the file system is gone`)
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
	if got := l.inside.sh(t, `d=$PWD; cd / && umount -i "$d" && echo ok`); got != "ok" { // as an engine does before
		t.Error(got)
	}
	for i := range rounds() {
		if err := l.handler.Unmount(t.Context(), "v", fmt.Sprintf("again%d", i)); err != nil {
			t.Error(err)
		}
	}
	if err := l.handler.Unmount(t.Context(), "v", "1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.data("v/lost")); err == nil {
		t.Error("a write that failed is on the server")
	}
	if b, err := os.ReadFile(l.data("v/after0")); err != nil || string(b) != "x\n" {
		t.Errorf("what was written is %q, %v", b, err)
	}
	if left, err := os.ReadDir(l.root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if left, err := os.ReadDir(filepath.Join(l.driver.run, mountsName)); err != nil || len(left) > 0 {
		t.Errorf("records left behind: %v, %v", left, err)
	}
}

// TestServerRestarts: the server is killed under a live mount and comes back, and the
// container's own mount with it.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	l := startLive(t, s, s.rclone("v"))
	for i := range rounds() {
		l.kill()
		err := within(t, 10*time.Second, "ping", func() error { return l.handler.Ping(t.Context()) })
		wantErr(t, err, errdefs.ErrUnavailable, `volume "v": `+l.address()+": connection refused")
		if info, err := l.driver.Inspect(t.Context(), "v"); err != nil || !strings.Contains(fmt.Sprint(info.Status["state"]), "does not answer") {
			t.Errorf("status is %v, %v", info.Status, err)
		}
		_, err = l.driver.Mount(t.Context(), "v", l.at)
		wantErr(t, err, errdefs.ErrUnavailable, "connection refused")
		got := make(chan string, 1)
		go func() { got <- l.inside.write(t, "meanwhile") }()
		select {
		case <-got: // rclone keeps it and says so only at the end of a file, which a shell does not look at
		case <-time.After(30 * time.Second):
			t.Fatalf("round %d: a write of the container hangs", i)
		}
		nothingBelow(t, l.root)

		l.start()
		waitFor(t, "the container writes again", func() bool { return l.inside.write(t, fmt.Sprintf("after%d", i)) == "written" })
		waitFor(t, "it is on the server", func() bool { _, err := os.Stat(l.data(fmt.Sprintf("v/after%d", i))); return err == nil })
		if err := l.handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
	}
	if err := l.handler.Unmount(t.Context(), "v", "1"); err != nil {
		t.Error(err)
	}
}

// TestMountOutlivesTheDriver: what is mounted is found again, and is nobody's child.
func TestMountOutlivesTheDriver(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	d := pool(t, dir, nil)
	create(t, d, "v", s.rclone("v"))
	at, err := mountAt(t, d, "v")
	if err != nil {
		t.Fatal(err)
	}
	pid := serving(t, at)
	for _, path := range []string{"/proc/self/mountinfo", fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid)} {
		if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "horse") {
			t.Errorf("%s shows the password, or %v", path, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := pool(t, dir, nil)
	waitFor(t, "the mount is found", func() bool { _, ok := again.monitor.Of("v"); return ok })
	if got, err := again.Mount(t.Context(), "v", at); err != nil || got != at || serving(t, at) != pid {
		t.Errorf("mounted at %q by %d, %v; before the restart at %q by %d", got, serving(t, at), err, at, pid)
	}
	create(t, again, "w", s.rclone("w"))
	_, err = again.Mount(t.Context(), "w", at)
	wantErr(t, err, errdefs.ErrInUse, "something else is mounted")
	if err := again.Unmount(t.Context(), "v", at); err != nil {
		t.Error(err)
	}
	waitFor(t, "rclone has ended", func() bool { return syscall.Kill(pid, 0) != nil })
}
