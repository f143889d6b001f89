package machine

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
)

func mkfs(t *testing.T, m *Machine, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", filepath.Join(m.Dev(), name)).CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs: %v: %s", err, out)
	}
	return mount(t, m, name)
}

func mount(t *testing.T, m *Machine, name string) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount(filepath.Join(m.Dev(), name), at, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, 0) })
	return at
}

func unmount(t *testing.T, at string) {
	t.Helper()
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatalf("unmount %s: %v", at, err)
	}
}

func put(t *testing.T, at, text string) {
	t.Helper()
	if err := write(at, text); err != nil {
		t.Fatal(err)
	}
}

// write writes a file and flushes it.
func write(at, text string) error {
	f, err := os.OpenFile(filepath.Join(at, "file"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func get(t *testing.T, at string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(at, "file"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestYank takes a disk from under its mount. The next holder finds what was flushed, and
// nothing that the old one writes later.
func TestYank(t *testing.T) {
	m, other := start(t), start(t)
	disk := EBS(image(t, "v"), volumeID)
	name := plug(t, m, disk)
	at := mkfs(t, m, name)
	put(t, at, "flushed before")
	if err := m.Yank(name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(m.Dev(), name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the node is still there: %v", err)
	}
	late := write(at, "written after")
	if testenv.Immutable.Check() == nil && late == nil {
		t.Error("the machine that lost the disk still writes without an error")
	}
	again := plug(t, other, disk)
	now := mount(t, other, again)
	if got := get(t, now); got != "flushed before" {
		t.Errorf("the next holder reads %q", got)
	}
	put(t, now, "by the next")
	_ = unix.Unmount(at, 0)
	unmount(t, now)
	if err := other.Unplug(again); err != nil {
		t.Fatal(err)
	}
	at = mount(t, other, plug(t, other, disk))
	if got := get(t, at); got != "by the next" {
		t.Errorf("in the end: %q", got)
	}
	unmount(t, at)
}

// TestMain is also the program that [TestKill] kills: it plugs a disk and waits.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MACHINE_TEST_DIR"); dir != "" {
		os.Exit(victim(dir, os.Getenv("MACHINE_TEST_FILE")))
	}
	os.Exit(testenv.Main(m))
}

func victim(dir, file string) int {
	m, err := New(dir)
	if err != nil {
		return 1
	}
	name, err := m.Plug(EBS(file, volumeID))
	if err != nil {
		return 1
	}
	_, _ = os.Stdout.WriteString(name + "\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// TestKill ends a process that has a disk plugged by SIGKILL, once with nothing mounted
// from it and once with a mount that outlives it.
func TestKill(t *testing.T) {
	for _, mounted := range []bool{false, true} {
		name := "idle"
		if mounted {
			name = "mounted"
		}
		t.Run(name, func(t *testing.T) {
			testenv.Require(t, testenv.Loop)
			noneLeft(t)
			dir, file := t.TempDir(), image(t, "v")
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), "MACHINE_TEST_DIR="+dir, "MACHINE_TEST_FILE="+file)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cmd.StdinPipe(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if holder(file) == "" {
				t.Fatal("the file is on no device")
			}
			var at string
			if mounted {
				at = mkfs(t, &Machine{dir: dir}, strings.TrimSpace(line))
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if mounted {
				if _, err := New(dir); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), at) {
					t.Errorf("the next start: %v, want EBUSY with %s", err, at)
				}
				unmount(t, at)
			}
			for end := time.Now().Add(5 * time.Second); holder(file) != "" && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			if loop := holder(file); loop != "" {
				t.Fatalf("%s is left on %s", file, loop)
			}
			m, err := New(dir)
			if err != nil {
				t.Fatal(err)
			}
			if entries, err := os.ReadDir(m.Dev()); err != nil || len(entries) > 0 {
				t.Errorf("the next start finds %v, %v", entries, err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
