package volumetest

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// leakTime is how long what is on its way out may take to be gone.
const leakTime = 5 * time.Second

// checkLeaks fails t when it ends with a goroutine, a file descriptor or a mount that
// was not there now. It is called before anything else has a cleanup.
func checkLeaks(t *testing.T) {
	goroutines, files := goroutines(), openFiles()
	var dir string
	t.Cleanup(func() {
		var left []string
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // the kernel's and the runtime's time, not a clock of ours
			left = nil
			for id, stack := range now(goroutines) {
				left = append(left, "goroutine "+id+"\n"+stack)
			}
			for fd, target := range openFiles() {
				if _, ok := files[fd]; !ok {
					left = append(left, "file descriptor "+fd+" → "+target)
				}
			}
			for _, point := range mountsBelow(t, dir) {
				left = append(left, "mount "+point)
			}
			if len(left) == 0 || time.Since(start) > leakTime {
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

// now returns the goroutines that are not among before.
func now(before map[string]string) map[string]string {
	all := goroutines()
	for id, stack := range all {
		_, old := before[id]
		// The signal handler and the tests' own timers are the runtime's.
		if old || strings.Contains(stack, "os/signal.") || strings.Contains(stack, "testing.(*M).startAlarm") {
			delete(all, id)
		}
	}
	return all
}

// goroutines returns the stacks of all goroutines but the caller's, by their number.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := map[string]string{}
	for i, block := range bytes.Split(buf, []byte("\n\n")) {
		head, stack, _ := strings.Cut(string(block), "\n")
		id, _, _ := strings.Cut(strings.TrimPrefix(head, "goroutine "), " ")
		if i > 0 { // the first is the caller
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

// mountsBelow returns the mountpoints below dir.
func mountsBelow(t *testing.T, dir string) []string {
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
