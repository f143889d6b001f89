package testenv

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// apartEnv marks the process in which the tests run.
const apartEnv = "REMORA_TEST_APART"

// Main runs the tests of a package that mounts, and returns the exit status for TestMain. As root
// they run in a process with a mount namespace of its own: what they mount goes with them even where
// they are killed, and no namespace that another package's tests make at the same time holds a copy
// of it, with which a disk would stay in use.
func Main(m *testing.M) int {
	if status, done := apart(); done {
		return status
	}
	return m.Run()
}

// Apart reports whether the tests run in a mount namespace of their own.
func Apart() bool { return os.Getenv(apartEnv) != "" }

// apart runs the tests in such a process. done is false where that cannot be, or this is that process.
func apart() (status int, done bool) {
	if os.Geteuid() != 0 || Apart() {
		return 0, false
	}
	exe, err := os.Executable() // by its path: tests start it again, through other programs too
	if err != nil {
		return 0, false
	}
	runtime.LockOSThread() // the signal comes when the thread ends
	cmd := exec.CommandContext(context.Background(), exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), apartEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return 0, false // in a container, say
	}
	if status = cmd.ProcessState.ExitCode(); status < 0 {
		status = 1
	}
	return status, true
}
