package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// live is a volume that a container has mounted, with its server and its driver.
type live struct {
	*remotetest.Live
	*server
	driver *driver
}

func startLive(t *testing.T, s *server, opts map[string]string) *live {
	t.Helper()
	testenv.Require(t, testenv.Netns)
	d := pool(t, t.TempDir(), nil)
	return &live{remotetest.Start(t, d, opts), s, d}
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
	moment := remotetest.Moments(testenv.Seed(t))
	for i := range testenv.Rounds(10) {
		if got := l.Inside.Write(t, fmt.Sprintf("before%d", i)); got != "written" {
			t.Fatalf("round %d: write: %s", i, got)
		}
		moment()
		if err := syscall.Kill(remotetest.Serving(t, l.At, "rclone", "mount.davfs"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		remotetest.WaitFor(t, "the mount is dead", func() bool { return errors.Is(l.driver.looks.At(t.Context(), l.At), remote.ErrDead) })
		if got := l.Inside.Write(t, "lost"); !strings.Contains(got, "not connected") {
			t.Errorf("round %d: a write of the container: %s", i, got)
		}
		l.NothingBelow(t)
		remotetest.WantErr(t, l.Handler.Ping(t.Context()), errdefs.ErrUnavailable, `volume "v": the program that served the file system is gone`)
		// The container is started again: its own mount stays dead, the new one is not.
		l.Mount(t, fmt.Sprintf("again%d", i))
		if got := l.Inside.Write(t, "lost"); !strings.Contains(got, "not connected") {
			t.Errorf("round %d: a write of the container: %s", i, got)
		}
		l.Inside = remotetest.Enter(t, l.At)
		if got := l.Inside.Write(t, fmt.Sprintf("after%d", i)); got != "written" {
			t.Fatalf("round %d: write after the mount: %s", i, got)
		}
		if err := l.Handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
		l.NothingBelow(t)
	}
	if got := l.Inside.Sh(t, `d=$PWD; cd / && umount -i "$d" && echo ok`); got != "ok" { // as an engine does before
		t.Error(got)
	}
	for i := range testenv.Rounds(10) {
		if err := l.Handler.Unmount(t.Context(), "v", fmt.Sprintf("again%d", i)); err != nil {
			t.Error(err)
		}
	}
	if err := l.Handler.Unmount(t.Context(), "v", "1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.data("v/lost")); err == nil {
		t.Error("a write that failed is on the server")
	}
	if b, err := os.ReadFile(l.data("v/after0")); err != nil || string(b) != "x\n" {
		t.Errorf("what was written is %q, %v", b, err)
	}
	l.NothingLeft(t)
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
	moment := remotetest.Moments(testenv.Seed(t))
	for i := range testenv.Rounds(10) {
		moment()
		l.kill()
		err := remotetest.Within(t, 10*time.Second, "ping", func() error { return l.Handler.Ping(t.Context()) })
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, `volume "v": `+l.address()+": connection refused")
		if info, err := l.driver.Inspect(t.Context(), "v"); err != nil || !strings.Contains(fmt.Sprint(info.Status["state"]), "does not answer") {
			t.Errorf("status is %v, %v", info.Status, err)
		}
		_, err = l.driver.Mount(t.Context(), "v", l.At)
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, "connection refused")
		_, err = l.Handler.Mount(t.Context(), "v", "another")
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, "connection refused")
		_, err = l.Handler.Path(t.Context(), "v")
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, "connection refused")
		got := make(chan string, 1)
		go func() { got <- l.Inside.Write(t, "meanwhile") }()
		select {
		case <-got: // rclone keeps it and says so only at the end of a file, which a shell does not look at
		case <-time.After(30 * time.Second):
			t.Fatalf("round %d: a write of the container hangs", i)
		}
		l.NothingBelow(t)

		l.start()
		remotetest.WaitFor(t, "the container writes again", func() bool { return l.Inside.Write(t, fmt.Sprintf("after%d", i)) == "written" })
		remotetest.WaitFor(t, "it is on the server", func() bool { _, err := os.Stat(l.data(fmt.Sprintf("v/after%d", i))); return err == nil })
		if err := l.Handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
	}
	if err := l.Handler.Unmount(t.Context(), "v", "1"); err != nil {
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
	at, err := remotetest.MountAt(t, d, "v")
	if err != nil {
		t.Fatal(err)
	}
	pid := remotetest.Serving(t, at, "rclone", "mount.davfs")
	for _, path := range []string{"/proc/self/mountinfo", fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid)} {
		if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "horse") {
			t.Errorf("%s shows the password, or %v", path, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := pool(t, dir, nil)
	remotetest.WaitFor(t, "the mount is found", func() bool { _, ok := again.monitor.Of("v"); return ok })
	if got, err := again.Mount(t.Context(), "v", at); err != nil || got != at || remotetest.Serving(t, at, "rclone", "mount.davfs") != pid {
		t.Errorf("mounted at %q by %d, %v; before the restart at %q by %d", got, remotetest.Serving(t, at, "rclone", "mount.davfs"), err, at, pid)
	}
	create(t, again, "w", s.rclone("w"))
	_, err = again.Mount(t.Context(), "w", at)
	remotetest.WantErr(t, err, errdefs.ErrInUse, "something else is mounted")
	if err := again.Unmount(t.Context(), "v", at); err != nil {
		t.Error(err)
	}
	remotetest.WaitFor(t, "rclone has ended", func() bool { return serving("rclone", at) == 0 })
}
