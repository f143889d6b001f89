package sshfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

func startLive(t *testing.T) *live {
	t.Helper()
	s := startServer(t)
	d := s.pool(t, t.TempDir(), nil)
	return &live{remotetest.Start(t, d, s.options("v")), s, d}
}

// TestSshfsKilled: the program that serves the volume of a running container is killed. No
// byte goes to the host's disk, everybody is told, and the next mount is whole again.
func TestSshfsKilled(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	if got := l.Inside.Write(t, "before"); got != "written" {
		t.Fatalf("write: %s", got)
	}
	moment := remotetest.Moments(testenv.Seed(t))
	for i := range testenv.Rounds(20) {
		moment()
		pid := remotetest.Serving(t, l.At, "sshfs")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		remotetest.WaitFor(t, "the mount is dead", func() bool { return errors.Is(l.driver.looks.At(t.Context(), l.At), remote.ErrDead) })
		_, err := l.Handler.Path(t.Context(), "v") // at once, whatever the kernel remembers
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, "not connected")
		for range 3 {
			if got := l.Inside.Write(t, "lost"); !strings.Contains(got, "not connected") {
				t.Errorf("round %d: a write of the container: %s", i, got)
			}
		}
		l.NothingBelow(t)
		remotetest.WantErr(t, l.Handler.Ping(t.Context()), errdefs.ErrUnavailable, `volume "v": the program that served the file system is gone`)
		if info, err := l.driver.Inspect(t.Context(), "v"); err != nil || !strings.Contains(fmt.Sprint(info.Status["state"]), "does not answer") {
			t.Errorf("status is %v, %v", info.Status, err)
		}
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
	if _, err := os.Stat(l.data("v/lost")); err == nil {
		t.Error("a write that failed is on the server")
	}
	for i := range testenv.Rounds(20) {
		if err := l.Handler.Unmount(t.Context(), "v", fmt.Sprintf("again%d", i)); err != nil {
			t.Error(err)
		}
	}
	if err := l.Handler.Unmount(t.Context(), "v", "1"); err != nil {
		t.Error(err)
	}
	l.NothingLeft(t)
}

// TestSshfsKilledAndLeft: an engine takes back the mounts of a volume whose program is gone.
func TestSshfsKilledAndLeft(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	if err := syscall.Kill(remotetest.Serving(t, l.At, "sshfs"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := remotetest.Within(t, 10*time.Second, "unmount", func() error { return l.Handler.Unmount(t.Context(), "v", "1") }); err != nil {
		t.Fatal(err)
	}
	if got := l.Inside.Write(t, "lost"); !strings.Contains(got, "not connected") {
		t.Errorf("a write of the container: %s", got)
	}
	l.NothingLeft(t)
	if err := l.Handler.Remove(t.Context(), "v"); err != nil {
		t.Error(err)
	}
}

// TestServerRestarts: the server is killed under a live mount and comes back, and the
// container's own mount with it.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	moment := remotetest.Moments(testenv.Seed(t))
	for i := range testenv.Rounds(20) {
		moment()
		l.kill()
		err := remotetest.Within(t, 15*time.Second, "a look at the mount", func() error {
			var err error
			for start := time.Now(); err == nil && time.Since(start) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
				err = l.driver.looks.At(t.Context(), l.At)
			}
			return err
		})
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, "the server does not answer")
		if got := l.Inside.Write(t, "lost"); !strings.Contains(got, "error") && !strings.Contains(got, "reset") {
			t.Errorf("round %d: a write of the container: %s", i, got)
		}
		remotetest.WantErr(t, l.Handler.Ping(t.Context()), errdefs.ErrUnavailable, `volume "v"`)
		_, err = l.driver.Mount(t.Context(), "v", l.At)
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, "the server does not answer")
		l.NothingBelow(t)

		l.start()
		remotetest.WaitFor(t, "the mount is back", func() bool { return l.driver.looks.At(t.Context(), l.At) == nil })
		if got := l.Inside.Write(t, fmt.Sprintf("after%d", i)); got != "written" {
			t.Errorf("round %d: the container writes again: %s", i, got)
		}
		if err := l.Handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
	}
	if _, err := os.Stat(l.data("v/lost")); err == nil {
		t.Error("a write that failed is on the server")
	}
	if err := l.Handler.Unmount(t.Context(), "v", "1"); err != nil {
		t.Error(err)
	}
}

// TestLinkCut: the server says nothing more, and its connections stay open. Whoever asks is
// told within seconds, and what hangs holds up nothing else. Ten volumes are cut off at a time.
func TestLinkCut(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	mounts := map[string]*remotetest.Container{"v": l.Inside}
	for i := range 9 {
		name := fmt.Sprintf("v%d", i)
		if err := l.Handler.Create(t.Context(), name, l.options(name)); err != nil {
			t.Fatal(err)
		}
		at, err := l.Handler.Mount(t.Context(), name, "1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { remotetest.Detach(at) })
		mounts[name] = remotetest.Enter(t, at)
	}
	const limit = remote.LookTime + 5*time.Second
	moment := remotetest.Moments(testenv.Seed(t))
	for i := range testenv.Rounds(20) / len(mounts) {
		moment()
		l.signal(syscall.SIGSTOP)
		remotetest.WantErr(t, remotetest.Within(t, limit, "ping", func() error { return l.Handler.Ping(t.Context()) }), errdefs.ErrUnavailable, "10 of 10 volumes that are mounted do not answer")
		var all sync.WaitGroup
		for name, inside := range mounts {
			at := filepath.Join(l.Root, name)
			all.Go(func() {
				_, err := l.driver.Mount(t.Context(), name, at)
				remotetest.WantErr(t, err, errdefs.ErrUnavailable, "answer")
			})
			all.Go(func() {
				if got := inside.Write(t, "lost"); got == "written" {
					t.Errorf("round %d: the container writes to a server that is gone", i)
				}
			})
			all.Go(func() {
				_, err := l.Handler.Path(t.Context(), name)
				remotetest.WantErr(t, err, errdefs.ErrUnavailable, "mountpoint ")
			})
		}
		if err := remotetest.Within(t, 2*limit, "all of it", func() error { all.Wait(); return nil }); err != nil {
			t.Error(err)
		}
		l.NothingBelow(t)
		l.signal(syscall.SIGCONT)
		for name, inside := range mounts {
			remotetest.WaitFor(t, "the mount is back", func() bool { return l.driver.looks.At(t.Context(), filepath.Join(l.Root, name)) == nil })
			remotetest.WaitFor(t, "the container writes again", func() bool { return inside.Write(t, fmt.Sprintf("after%d", i)) == "written" })
		}
		if err := l.Handler.Ping(t.Context()); err != nil {
			t.Errorf("round %d: ping: %v", i, err)
		}
	}
	// What hangs can be taken away all the same.
	l.signal(syscall.SIGSTOP)
	var all sync.WaitGroup
	for name := range mounts {
		all.Go(func() {
			if err := l.Handler.Unmount(t.Context(), name, "1"); err != nil {
				t.Error(err)
			}
		})
	}
	if err := remotetest.Within(t, limit, "unmount", func() error { all.Wait(); return nil }); err != nil {
		t.Error(err)
	}
	l.NothingLeft(t)
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
	at, err := remotetest.MountAt(t, d, "v")
	if err != nil {
		t.Fatal(err)
	}
	pid := remotetest.Serving(t, at, "sshfs")
	if sid, err := getsid(pid); err != nil || sid == os.Getpid() || sid != pid {
		t.Errorf("sshfs %d has session %d, %v", pid, sid, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := s.pool(t, dir, nil)
	remotetest.WaitFor(t, "the mount is found", func() bool { _, ok := again.monitor.Of("v"); return ok })
	if got, err := again.Mount(t.Context(), "v", at); err != nil || got != at || remotetest.Serving(t, at, "sshfs") != pid {
		t.Errorf("mounted at %q by %d, %v; before the restart at %q by %d", got, remotetest.Serving(t, at, "sshfs"), err, at, pid)
	}
	f, err := os.Create(at + "/held")
	if err != nil {
		t.Fatal(err)
	}
	remotetest.WantErr(t, again.Unmount(t.Context(), "v", at), errdefs.ErrInUse, "busy")
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
