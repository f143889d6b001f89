// Package faketest is what the tests of the fake clouds have in common: a cloud that is a process of its own,
// and disks that are written to.
package faketest

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/run"
)

// Process is a cloud that runs on its own, and ends with the test.
type Process struct {
	t            *testing.T
	cmd          *exec.Cmd
	ended        bool
	API, Control string
}

// Start builds the command in a folder beside the test, and starts it.
func Start(t *testing.T, folder string, args ...string) *Process {
	t.Helper()
	bin := filepath.Join(t.TempDir(), folder)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./"+folder).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p := &Process{t: t, cmd: exec.Command(bin, append([]string{"-dir", t.TempDir()}, args...)...)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.ended {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Post asks the control address for something.
func (p *Process) Post(path, body string) []byte {
	p.t.Helper()
	resp, err := http.Post(p.Control+path, "application/json", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		p.t.Fatalf("%s: %s", path, text)
	}
	return text
}

// Stop ends it as a person does, and wants it to leave nothing behind.
func (p *Process) Stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.ended = true
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("at its end: %v", err)
	}
}

// at is where on a device the tests write.
const at = 4096

// Write writes to a device, and to what lies below it.
func Write(t *testing.T, dev, text string) {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(text), at)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Read returns n bytes of what was written.
func Read(t *testing.T, dev string, n int) string {
	t.Helper()
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Mounted makes a file system on a device with "kept" in the file "before", and returns where it is mounted.
func Mounted(t *testing.T, dev string) (mountpoint string) {
	t.Helper()
	mountpoint = t.TempDir()
	if _, err := run.Output(t.Context(), nil, "mkfs.ext4", "-q", "-F", dev); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dev, mountpoint, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mountpoint, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(mountpoint, "before"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	return mountpoint
}

// Lost writes to a mount whose disk was taken away, and wants nothing of that on the disk, which is another
// device now: there is what "kept" says in the file "before", and no more.
func Lost(t *testing.T, mountpoint, dev string) {
	t.Helper()
	_ = os.WriteFile(filepath.Join(mountpoint, "after"), []byte("lost"), 0o600)
	unix.Sync()
	other := t.TempDir()
	if err := unix.Mount(dev, other, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(other, "before"))
	_, lost := os.Stat(filepath.Join(other, "after"))
	if string(kept) != "kept" || !os.IsNotExist(lost) {
		t.Errorf("before: %q %v, after: %v", kept, err, lost)
	}
	if err := errors.Join(unix.Unmount(other, 0), unix.Unmount(mountpoint, unix.MNT_DETACH)); err != nil {
		t.Error(err)
	}
}
