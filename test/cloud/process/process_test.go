package process

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

// detached leaves a grandchild in a session of its own, as a daemon does, and goes on.
const detached = `setsid sleep 60.$1 & sleep 61.$1`

// with returns how many processes have word in their command line.
func with(t *testing.T, word string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), word) {
			n++
		}
	}
	return n
}

// until waits until n processes have word in their command line.
func until(t *testing.T, word string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := Wait(ctx, "the processes", func() error {
		if with(t, word) != n {
			return errors.New("not yet")
		}
		return nil
	}); err != nil {
		t.Fatalf("%d processes, want %d: %v", with(t, word), n, err)
	}
}

func start(t *testing.T, mark string) *Process {
	t.Helper()
	p, err := Start("test", filepath.Join(t.TempDir(), "log"), exec.Command("sh", "-c", detached, "sh", mark))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestKillEndsAllChildren(t *testing.T) {
	testenv.Require(t, testenv.Root)
	p := start(t, "777001")
	until(t, "1.777001", 1)
	until(t, "0.777001", 1)
	p.Kill()
	until(t, "777001", 0)
	if !p.Ended() || p.Err() == nil {
		t.Error("not ended")
	}
	p.Kill()
}

// TestInner is run by TestDiesWithItsParent as a process of its own.
func TestInner(t *testing.T) {
	if os.Getenv("REMORA_PROCESS_INNER") == "" {
		return
	}
	start(t, "777002")
	until(t, "0.777002", 1)
	t.Log("started")
	time.Sleep(time.Minute)
}

func TestDiesWithItsParent(t *testing.T) {
	testenv.Require(t, testenv.Root)
	cmd := exec.Command(os.Args[0], "-test.run=^TestInner$", "-test.v")
	cmd.Env = append(os.Environ(), "REMORA_PROCESS_INNER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "started"); {
	}
	if with(t, "777002") == 0 {
		t.Fatal("nothing runs")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	until(t, "777002", 0)
}

func TestErrSaysWhy(t *testing.T) {
	testenv.Require(t, testenv.Root)
	p, err := Start("server", filepath.Join(t.TempDir(), "log"), exec.Command("sh", "-c", "echo no such port; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	err = Wait(t.Context(), "it", func() error { return errors.New("not up") }, p)
	if err == nil || !strings.Contains(err.Error(), "server ended: exit status 3") || !strings.Contains(err.Error(), "no such port") {
		t.Errorf("got %v", err)
	}
}

func TestAddressesDiffer(t *testing.T) {
	a, err := NewAddress()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	b, err := NewAddress()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if a.IP == b.IP {
		t.Errorf("both are %s", a.IP)
	}
}
