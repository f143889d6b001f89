// Package leaktest fails a test that leaves goroutines behind.
package leaktest

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long what is on its way out may take to be gone.
const patience = 5 * time.Second

// Check fails t when it ends with a goroutine that was not there at the call. It is
// called before anything else of the test has a cleanup, and by tests that do not run
// beside others.
func Check(t testing.TB) {
	t.Helper()
	check(t, patience)
}

func check(t testing.TB, patience time.Duration) {
	t.Helper()
	before := stacks()
	t.Cleanup(func() {
		var left map[string]string
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // the runtime's time, not a clock of ours
			left = stacks()
			for id, stack := range left {
				_, old := before[id]
				if old || strings.Contains(stack, "os/signal.") || strings.Contains(stack, "testing.(*M).startAlarm") {
					delete(left, id)
				}
			}
			if len(left) == 0 || time.Since(start) > patience {
				break
			}
		}
		for id, stack := range left {
			t.Errorf("left behind: goroutine %s\n%s", id, stack)
		}
	})
}

// stacks returns the stacks of all goroutines but the caller's, by their number.
func stacks() map[string]string {
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
		if i > 0 { // the first is the caller
			all[id] = stack
		}
	}
	return all
}
