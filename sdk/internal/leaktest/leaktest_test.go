package leaktest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// recorder is a test that remembers what it was told.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestCheck(t *testing.T) {
	for _, leaks := range []bool{false, true} {
		r := &recorder{}
		check(r, 50*time.Millisecond)
		stop := make(chan struct{})
		if leaks {
			go lingering(stop)
		}
		r.cleanups[0]()
		close(stop)
		if leaks != (len(r.errors) == 1 && strings.Contains(r.errors[0], "lingering")) {
			t.Errorf("leaks: %t, reported: %q", leaks, r.errors)
		}
	}
}

func lingering(stop chan struct{}) { <-stop }
