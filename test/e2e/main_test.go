package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// build makes the lab once, when the first test that can run asks for it.
var build struct {
	once sync.Once
	dir  string
	lab  *lab.Lab
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if build.dir != "" {
		if err := os.RemoveAll(build.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// Tests run beside each other, for nearly all of each is waiting and each has hosts of its own. Those that kill at
// certain moments, or count what is lost meanwhile, run alone.

// newLab returns the lab, or skips the test where the machine cannot have one.
func newLab(t *testing.T, needs ...testenv.Need) *lab.Lab {
	t.Helper()
	testenv.Require(t, append([]testenv.Need{testenv.Root, testenv.Netns, testenv.Busybox}, needs...)...)
	build.once.Do(func() {
		busybox, err := testenv.BusyboxPath()
		if err == nil {
			build.dir, err = os.MkdirTemp("", "remora-e2e-")
		}
		if err == nil {
			build.lab, err = lab.New(build.dir, busybox)
		}
		build.err = err
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.lab
}

// engine is what a test on dockerd needs.
var engine = []testenv.Need{testenv.Dockerd, testenv.DockerCLI}

// want fails the test unless text has every part.
func want(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q lacks %q", text, p)
		}
	}
}

// is fails the test unless got is what is wanted.
func is[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
