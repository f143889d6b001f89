package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

func TestWithDependencies(t *testing.T) {
	dir := t.TempDir()
	text := "fs/fuse/fuse.ko:\nfs/fuse/virtiofs.ko: virtio/virtio.ko fs/fuse/fuse.ko\nvirtio/virtio.ko.xz:\nnet/other.ko: fs/fuse/fuse.ko\nvirtio/pci.ko: virtio/ring.ko virtio/virtio.ko\n"
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := withDependencies(dir, []string{"pci", "virtiofs", "part-of-the-kernel"})
	want := []string{"fs/fuse/fuse.ko", "virtio/virtio.ko", "fs/fuse/virtiofs.ko", "virtio/ring.ko", "virtio/pci.ko"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("order is %q, %v, want %q", got, err, want)
	}
	if _, err := withDependencies(t.TempDir(), nil); err == nil {
		t.Error("no modules.dep, and no error")
	}
}

func TestTimeout(t *testing.T) {
	for arg, want := range map[string]time.Duration{
		"-test.timeout=3m0s": 3 * time.Minute, "-test.timeout=0": 10 * time.Minute, "-test.v=true": 10 * time.Minute,
	} {
		if got := timeout([]string{"binary", arg}); got != want {
			t.Errorf("%s: %v, want %v", arg, got, want)
		}
	}
}

// TestMachine: what runs in the machine has the host's files, keeps nothing on the host, and
// ends with its own output and status; and a machine that ends without one is an error.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("short: starts virtual machines")
	}
	testenv.Require(t, testenv.Need{Name: testenv.VM.Name, Check: func() error { _, err := testenv.FindMachine(); return err }})
	dir := t.TempDir()
	bin := filepath.Join(dir, "testvm")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from outside\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `cat file && echo "$WORD $1" && echo changed > file && echo new > new && cat file && uname -n && exit 3`
	run := func(script string) (string, int) {
		cmd := exec.CommandContext(t.Context(), bin, "/bin/sh", "-c", script, "sh", "-test.timeout=1m")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "WORD=given")
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return string(out), exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return string(out), 0
	}
	out, status := run(script)
	if want := "from outside\ngiven -test.timeout=1m\nchanged\ntestvm\n"; out != want || status != 3 {
		t.Errorf("printed %q with status %d, want %q with 3", out, status, want)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "from outside\n" {
		t.Errorf("the host's file is %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("a file came out of the machine")
	}
	if out, status := run("echo o > /proc/sysrq-trigger; sleep 60"); status != 1 || !strings.Contains(out, "the machine ended without a result") {
		t.Errorf("switched off: %q with status %d", out, status)
	}
}
