package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// recorder is a test that remembers how it ended. Only the methods below are called.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestRequire(t *testing.T) {
	has := Need{"root", func() error { return nil }}
	lacks := Need{"dockerd", func() error { return errors.New("no dockerd in PATH") }}
	for _, tt := range []struct {
		name             string
		mustRun, maySkip string
		needs            []Need
		skipped, failed  string // how it ends; both empty: it goes on
	}{
		{name: "nothing needed"},
		{name: "present", needs: []Need{has}},
		{name: "present and required", mustRun: "all", needs: []Need{has}},
		{name: "missing", needs: []Need{has, lacks}, skipped: "needs dockerd: no dockerd in PATH"},
		{
			name: "missing and required by name", mustRun: "root,dockerd", needs: []Need{lacks},
			failed: "needs dockerd, and REMORA_TEST_MUST_RUN forbids to skip: no dockerd in PATH",
		},
		{
			name: "missing and all required", mustRun: "all", needs: []Need{lacks},
			failed: "needs dockerd, and REMORA_TEST_MUST_RUN forbids to skip: no dockerd in PATH",
		},
		{
			name: "another is required", mustRun: "root podman", needs: []Need{lacks},
			skipped: "needs dockerd: no dockerd in PATH",
		},
		{
			name: "excepted from all", mustRun: "all", maySkip: "systemd, dockerd", needs: []Need{lacks},
			skipped: "needs dockerd: no dockerd in PATH",
		},
		{
			name: "by name wins over the exception", mustRun: "dockerd", maySkip: "dockerd", needs: []Need{lacks},
			failed: "needs dockerd, and REMORA_TEST_MUST_RUN forbids to skip: no dockerd in PATH",
		},
		{
			name: "spelt wrong", mustRun: "dokcerd", needs: []Need{has},
			failed: `REMORA_TEST_MUST_RUN or REMORA_TEST_MAY_SKIP: ["dokcerd"] is no need; known are root, dockerd, docker-cli, podman, netns, systemd, busybox, sshd, s3`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &recorder{}
			wentOn := false
			done := make(chan struct{})
			go func() {
				defer close(done)
				require(r, NewPolicy(tt.mustRun, tt.maySkip), tt.needs)
				wentOn = true
			}()
			<-done
			if r.skipped != tt.skipped || r.failed != tt.failed {
				t.Errorf("skipped %q, failed %q; want %q, %q", r.skipped, r.failed, tt.skipped, tt.failed)
			}
			if want := tt.skipped == "" && tt.failed == ""; wentOn != want {
				t.Errorf("went on: %v, want %v", wentOn, want)
			}
		})
	}
}

// TestInner is run by TestProcess as a process of its own.
func TestInner(t *testing.T) {
	if os.Getenv("REMORA_TESTENV_INNER") == "" {
		return
	}
	Require(t, Dockerd)
	t.Log("inner went on")
}

func TestProcess(t *testing.T) {
	for _, tt := range []struct {
		name, mustRun string
		want          string
		fails         bool
	}{
		{"skips", "", "needs dockerd: no dockerd in PATH; install docker.io", false},
		{"must run", "dockerd", "needs dockerd, and REMORA_TEST_MUST_RUN forbids to skip", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInner$", "-test.v")
			cmd.Env = []string{"PATH=" + t.TempDir(), "REMORA_TESTENV_INNER=1", "REMORA_TEST_MUST_RUN=" + tt.mustRun}
			out, err := cmd.CombinedOutput()
			if failed := err != nil; failed != tt.fails {
				t.Errorf("failed: %v, want %v", failed, tt.fails)
			}
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("no %q in:\n%s", tt.want, out)
			}
		})
	}
}

func TestNeedsAreNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range All() {
		if n.Name == "" || n.Check == nil || seen[n.Name] {
			t.Errorf("need %q has no name, no check, or is there twice", n.Name)
		}
		seen[n.Name] = true
	}
}

func TestBusyboxPathWantsStatic(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := BusyboxPath(); err == nil {
		t.Error("a busybox was found in an empty PATH")
	}
	if err := os.WriteFile(dir+"/busybox", []byte("#!/bin/sh\n"+strings.Repeat("# no ELF file\n", 10)), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := BusyboxPath(); err == nil || !strings.Contains(err.Error(), "bad magic") {
		t.Errorf("a script passed for a static busybox: %v", err)
	}
}
