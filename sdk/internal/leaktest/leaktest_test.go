package leaktest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

// recorder is a test that remembers what it was told.
type recorder struct {
	testing.TB
	dir      string
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) TempDir() string  { return r.dir }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		leak func(t *testing.T, r *recorder) (stop func())
		want string // "" for none
	}{
		{"nothing", func(*testing.T, *recorder) func() { return func() {} }, ""},
		{"goroutine", func(*testing.T, *recorder) func() {
			stop := make(chan struct{})
			go lingering(stop)
			return func() { close(stop) }
		}, "lingering"},
		{"file", func(t *testing.T, r *recorder) func() {
			f, err := os.Create(filepath.Join(r.dir, "open"))
			if err != nil {
				t.Fatal(err)
			}
			return func() { _ = f.Close() }
		}, "/open"},
		{"mount", func(t *testing.T, r *recorder) func() {
			testenv.Require(t, testenv.Root)
			if err := syscall.Mount("tmpfs", r.dir, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			return func() { _ = syscall.Unmount(r.dir, 0) }
		}, "mount "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &recorder{dir: t.TempDir()}
			check(r, 50*time.Millisecond)
			stop := tt.leak(t, r)
			r.cleanups[0]()
			stop()
			if tt.want == "" && len(r.errors) > 0 || tt.want != "" && (len(r.errors) != 1 || !strings.Contains(r.errors[0], tt.want)) {
				t.Errorf("reported: %q, want one with %q", r.errors, tt.want)
			}
		})
	}
}

func lingering(stop chan struct{}) { <-stop }
