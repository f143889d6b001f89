// Package leaktest fails a test that leaves something behind.
package leaktest

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long what is on its way out may take to be gone.
const patience = 5 * time.Second

// Check fails t when it ends with a goroutine or a file descriptor that was not there at
// the call, or with a mount below the test's temporary directories. It is called before
// anything else of the test has a cleanup, and by tests that do not run beside others.
func Check(t testing.TB) {
	t.Helper()
	check(t, patience)
}

func check(t testing.TB, patience time.Duration) {
	t.Helper()
	stacks, files := goroutines(), openFiles()
	var dir string
	t.Cleanup(func() {
		var left []string
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // the kernel's and the runtime's time, not a clock of ours
			left = nil
			for id, stack := range goroutines() {
				if _, ok := stacks[id]; !ok {
					left = append(left, "goroutine "+id+"\n"+stack)
				}
			}
			for fd, target := range openFiles() {
				if _, ok := files[fd]; !ok {
					left = append(left, "file descriptor "+fd+" → "+target)
				}
			}
			for _, point := range MountsBelow(t, dir) {
				left = append(left, "mount "+point)
			}
			if len(left) == 0 || time.Since(start) > patience {
				break
			}
		}
		for _, what := range left {
			t.Errorf("left behind: %s", what)
		}
	})
	// Asked for after the cleanup above, so that it is removed before it.
	dir = filepath.Dir(t.TempDir())
}

// goroutines returns the stacks of all goroutines but the caller's, by their number. The
// signal handler and the tests' own timers are the runtime's and not among them.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	all := map[string]string{}
	for i, block := range bytes.Split(buf[:n], []byte("\n\n")) {
		head, stack, _ := strings.Cut(string(block), "\n")
		id, _, _ := strings.Cut(strings.TrimPrefix(head, "goroutine "), " ")
		if i > 0 && !strings.Contains(stack, "os/signal.") && !strings.Contains(stack, "testing.(*M).startAlarm") { // the first is the caller
			all[id] = stack
		}
	}
	return all
}

// openFiles returns what each file descriptor stands for, but for those of the runtime's
// poller.
func openFiles() map[string]string {
	all := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return all
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		// The directory that is being read is open only here.
		if err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasSuffix(target, "/fd") {
			all[e.Name()] = target
		}
	}
	return all
}

// MountsBelow returns the mountpoints below dir.
func MountsBelow(t testing.TB, dir string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Errorf("mount table: %v", err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	return points
}
