package daemon

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
)

// apartEnv marks the process in which the tests run.
const apartEnv = "REMORA_DAEMON_TEST_APART"

// apart runs the tests in a process with a mount namespace of its own, so that what they mount goes
// with them even where they are killed. done is false where that cannot be, or this is that process.
func apart() (status int, done bool) {
	if os.Geteuid() != 0 || os.Getenv(apartEnv) != "" {
		return 0, false
	}
	runtime.LockOSThread() // the signal comes when the thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), apartEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return 0, false // in a container, say
	}
	if status = cmd.ProcessState.ExitCode(); status < 0 {
		status = 1
	}
	return status, true
}

// removeHost removes a place of a daemon with all that a test that failed has left mounted there.
func removeHost(t *testing.T, dir string) {
	t.Helper()
	left, err := mount.List(dir)
	for _, m := range slices.Backward(left) {
		err = errors.Join(err, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	if err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil { // mountpoints of the daemon's have a flag
		_ = exec.Command("chattr", "-R", "-i", dir).Run()
		_ = os.RemoveAll(dir)
	}
}

// Whatever a test leaves mounted is gone with its place.
func TestRemoveHost(t *testing.T) {
	if os.Getenv(apartEnv) == "" {
		t.Skip("needs root, and a mount namespace of its own")
	}
	dir := t.TempDir()
	at := dir + "/run/a"
	err := errors.Join(os.MkdirAll(at, 0o700), unix.Mount("left", at, "tmpfs", 0, "size=1m"), os.Mkdir(at+"/below", 0o700), unix.Mount("left", at+"/below", "tmpfs", 0, "size=1m"))
	if err != nil {
		t.Fatal(err)
	}
	removeHost(t, dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if left, err := mount.List(dir); err != nil || len(left) > 0 {
		t.Errorf("mounted are %v, %v", left, err)
	}
}
