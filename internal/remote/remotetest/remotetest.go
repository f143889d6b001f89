// Package remotetest is what the tests of drivers have in common whose volumes are on a server:
// a container that has such a volume, and what it takes to kill and cut under it.
package remotetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Moments returns what waits for a random while of up to 50 ms, so that what is cut off is cut off
// at other moments in each round.
func Moments(seed uint64) (wait func()) {
	chance := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not secrets
	return func() { time.Sleep(time.Duration(chance.Int64N(int64(50 * time.Millisecond)))) }
}

// MountAt mounts at a directory of the test's, and has it taken away at the end.
func MountAt(t testing.TB, d volume.Driver, name string) (string, error) {
	t.Helper()
	target := filepath.Join(t.TempDir(), "target")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Detach(target) })
	return d.Mount(t.Context(), name, target)
}

// Detach takes away all that is mounted at a mountpoint, whether it answers or not.
func Detach(target string) {
	for syscall.Unmount(target, syscall.MNT_DETACH) == nil { //nolint:revive // until nothing is mounted there
	}
}

// Serving returns the process, of one of the programs, that serves a mountpoint.
func Serving(t testing.TB, target string, programs ...string) (pid int) {
	t.Helper()
	WaitFor(t, "something serves "+target, func() bool {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range lines {
			b, err := os.ReadFile(path)
			name, _, _ := strings.Cut(string(b), "\x00")
			if err == nil && slices.Contains(programs, filepath.Base(name)) && strings.Contains(string(b), "\x00"+target+"\x00") {
				pid, err = strconv.Atoi(filepath.Base(filepath.Dir(path)))
				return err == nil
			}
		}
		return false
	})
	return pid
}

// FreePort returns a port of loopback at which nobody listens.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// WaitFor waits for other processes and the kernel, who have no clock to fake.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Within fails where f takes longer than limit, or never ends.
func Within(t testing.TB, limit time.Duration, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- f() }()
	select {
	case err := <-done:
		if took := time.Since(start); took > limit {
			t.Errorf("%s took %v, of at most %v", what, took, limit)
		}
		return err
	case <-time.After(3 * limit):
		t.Fatalf("%s hangs", what)
		return errors.New("hangs")
	}
}

// WantErr fails where the error is not one line of a class that has text.
func WantErr(t testing.TB, err, class error, text string) {
	t.Helper()
	if !errors.Is(errdefs.Class(err), class) || !strings.Contains(fmt.Sprint(err), text) || strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("error is %q of class %v, want one line with %q of class %v", err, errdefs.Class(err), text, class)
	}
}

// With returns options with more of them, key and value in turn. "-" for a value takes one away.
func With(opts map[string]string, more ...string) map[string]string {
	for i := 0; i < len(more); i += 2 {
		opts[more[i]] = more[i+1]
		if more[i+1] == "-" {
			delete(opts, more[i])
		}
	}
	return opts
}
