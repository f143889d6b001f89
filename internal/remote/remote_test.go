package remote_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func shell(script string) remote.Command {
	return remote.Command{Name: "sh", Args: []string{"-c", script}}
}

func TestRunTellsWhatWasSaid(t *testing.T) {
	told, err := shell("echo out; echo one >&2; echo two >&2; exit 3").Run(t.Context())
	if !remote.Failed(err) || told != "one\ntwo\n" || remote.LastLine(told) != "two" {
		t.Errorf("told %q, %v", told, err)
	}
	if told, err := shell("echo fine >&2").Run(t.Context()); err != nil || told != "fine\n" {
		t.Errorf("told %q, %v", told, err)
	}
	_, err = remote.Command{Name: "no-such-program"}.Run(t.Context())
	if !errors.Is(err, errdefs.ErrUnsupported) || remote.Failed(err) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("what is not installed: %v", err)
	}
	if remote.LastLine(" \n\n") == "" {
		t.Error("nothing is said of nothing")
	}
}

func TestRunGivesSecretsByStdinAlone(t *testing.T) {
	t.Setenv("REMORA_SECRET", "of another")
	t.Setenv("SSH_AUTH_SOCK", "/agent")
	c := shell("cat >&2; env >&2")
	c.Stdin = []byte("hunter2\n")
	told, err := c.Run(t.Context())
	if err != nil || !strings.HasPrefix(told, "hunter2\n") || !strings.Contains(told, "LC_ALL=C\n") || !strings.Contains(told, "PATH=") {
		t.Errorf("told %q, %v", told, err)
	}
	if strings.Contains(told, "REMORA_SECRET") || strings.Contains(told, "SSH_AUTH_SOCK") {
		t.Errorf("the environment is handed on: %q", told)
	}
}

// TestRunLeavesWhatServes: what goes on in the background holds standard error open, and
// is neither waited for nor killed.
func TestRunLeavesWhatServes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	start := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := shell("sleep 60 & echo $! >" + file).Run(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the background was waited for, %v", took)
	}
	cancel()
	pid := readPid(t, file)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if sid, err := unix.Getsid(pid); err != nil || sid == mustSid(t) {
		t.Errorf("it has session %d, %v", sid, err)
	}
}

func TestRunIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	c := shell("sleep 60 & echo $! >" + file + "; wait")
	c.Limit = 300 * time.Millisecond
	start := time.Now()
	_, err := c.Run(t.Context())
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "not mounted within 300ms") {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	pid := readPid(t, file)
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // until the kernel and init are done with it
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(b), ") Z ") {
			break
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("its child lives on")
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errdefs.ErrInUse)
	if _, err := shell("sleep 60").Run(ctx); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("error is %v, want the cause", err)
	}
}

func readPid(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func mustSid(t *testing.T) int {
	t.Helper()
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	return sid
}

// fuse mounts a FUSE file system that this process would have to serve. As long as nobody
// does, it hangs; once hangup was called, it is dead.
func fuse(t *testing.T, dir string) (hangup func()) {
	t.Helper()
	testenv.Require(t, testenv.Root)
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs root: %v", err)
	}
	hangup = sync.OnceFunc(func() { _ = unix.Close(fd) })
	t.Cleanup(hangup)
	if err := unix.Mount("remora-test", dir, "fuse.remora", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return hangup
}

// TestLooksAtWhatHangs: many ask a file system that never answers. All are told in time, by
// one thread.
func TestLooksAtWhatHangs(t *testing.T) {
	dir := t.TempDir()
	hangup := fuse(t, dir)
	var looks remote.Looks
	before := threads(t)
	start := time.Now()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if err := looks.At(ctx, dir); !errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, remote.ErrDead) {
				t.Errorf("error is %v", err)
			}
		})
	}
	all.Wait()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	if n := threads(t) - before; n > 25 {
		t.Errorf("%d more threads", n)
	}
	if err := looks.At(t.Context(), dir); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 5s") {
		t.Errorf("error is %v", err)
	}
	hangup()
	for start := time.Now(); !errors.Is(looks.At(t.Context(), dir), remote.ErrDead); time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("dead, and error is %v", looks.At(t.Context(), dir))
		}
	}
	if err := looks.At(t.Context(), t.TempDir()); err != nil {
		t.Errorf("what answers: %v", err)
	}
}

// TestLooksAtWhatTakesThePlace: what is mounted where something hung before is looked at itself.
func TestLooksAtWhatTakesThePlace(t *testing.T) {
	dir := t.TempDir()
	fuse(t, dir)
	var looks remote.Looks
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := looks.At(ctx, dir); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("error is %v", err)
	}
	if err := remote.Detach(dir); err != nil {
		t.Fatal(err)
	}
	if err := mount.Mount("remora-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = remote.Detach(dir) })
	if err := looks.At(t.Context(), dir); err != nil {
		t.Errorf("what answers: %v", err)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestUnmount(t *testing.T) {
	testenv.Require(t, testenv.Root)
	var looks remote.Looks
	dir := t.TempDir()
	if err := looks.Unmount(t.Context(), dir); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	for range 2 {
		if err := mount.Mount("remora-test", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(dir + "/held")
	if err != nil {
		t.Fatal(err)
	}
	if err := looks.Unmount(t.Context(), dir); !errors.Is(err, errdefs.ErrInUse) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("of what is used: %v", err)
	}
	if m, ok, err := remote.At(dir); err != nil || !ok || m.Source != "remora-test" {
		t.Errorf("found %+v, %v, %v", m, ok, err)
	}
	_ = f.Close()
	if err := looks.Unmount(t.Context(), dir); err != nil {
		t.Errorf("of two, one above the other: %v", err)
	}
	fuse(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), remote.LookTime+5*time.Second)
	defer cancel()
	if err := looks.Unmount(ctx, dir); err != nil {
		t.Errorf("of what hangs: %v", err)
	}
	if _, ok, err := remote.At(dir); err != nil || ok {
		t.Errorf("still mounted: %v, %v", ok, err)
	}
}

func TestMonitor(t *testing.T) {
	good, bad := t.TempDir(), t.TempDir()
	hangup := fuse(t, bad)
	hangup()
	var log strings.Builder
	var mu sync.Mutex
	mounts := map[string]string{"good": good, "bad": bad}
	var looks remote.Looks
	m := remote.NewMonitor(t.Context(), time.Hour, slog.New(slog.NewTextHandler(&log, nil)), func() (map[string]string, error) {
		mu.Lock()
		defer mu.Unlock()
		return mounts, nil
	}, func(ctx context.Context, name, mountpoint string) error {
		if mountpoint != map[string]string{"good": good, "bad": bad}[name] {
			t.Errorf("%q is looked at as %q", mountpoint, name)
		}
		return looks.At(ctx, mountpoint)
	})
	got := m.Look(t.Context())
	if got["good"].Err != nil || !errors.Is(got["bad"].Err, remote.ErrDead) || len(got) != 2 {
		t.Errorf("looks like %+v", got)
	}
	since := got["bad"].Since
	if err := m.Ping(t.Context()); !errors.Is(err, remote.ErrDead) || !strings.HasPrefix(err.Error(), `volume "bad": `) {
		t.Errorf("ping: %v", err)
	}
	if err := exec.CommandContext(t.Context(), "umount", "-l", bad).Run(); err != nil {
		t.Fatal(err)
	}
	got = m.Look(t.Context())
	if h, ok := m.Of("bad"); !ok || h.Err != nil || !h.Since.After(since) || got["bad"] != h {
		t.Errorf("back as %+v", h)
	}
	mu.Lock()
	mounts = map[string]string{"good": good}
	mu.Unlock()
	m.Look(t.Context())
	if _, ok := m.Of("bad"); ok {
		t.Error("what is not mounted is remembered")
	}
	m.Close()
	text := log.String()
	if strings.Count(text, "volume does not answer") != 1 || strings.Count(text, "volume answers again") != 1 {
		t.Errorf("log is %s", text)
	}
}
