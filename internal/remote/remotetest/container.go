package remotetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/volume"
)

// Live is the volume v that a container has mounted, through all that stands in front of a driver.
type Live struct {
	Handler *volume.Handler
	Root    string // of the mountpoints
	At      string // where the volume is mounted
	Inside  *Container
}

// Start makes the volume and starts a container with it.
func Start(t *testing.T, d volume.Driver, opts map[string]string) *Live {
	t.Helper()
	l := &Live{Root: filepath.Join(t.TempDir(), "mounts")}
	h, err := volume.NewHandler(t.Context(), d, volume.Options{
		MountRoot: l.Root, GuardMountpoints: true, Ledger: filepath.Join(t.TempDir(), "ledger"), Refresh: -1,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Handler = h
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := h.Create(t.Context(), "v", opts); err != nil {
		t.Fatal(err)
	}
	l.Mount(t, "1")
	t.Cleanup(func() { Detach(l.Root + "/v") })
	l.Inside = Enter(t, l.At)
	return l
}

// Mount mounts the volume for one more.
func (l *Live) Mount(t *testing.T, id string) {
	t.Helper()
	at, err := l.Handler.Mount(t.Context(), "v", id)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	l.At = at
}

// Container is a shell in a mount namespace of its own, which has the volume by a bind mount, as
// that of an engine has.
type Container struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// Enter starts a container with what is mounted at mountpoint.
func Enter(t *testing.T, mountpoint string) *Container {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &Container{in, bufio.NewScanner(out)}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	dir := t.TempDir()
	if got := c.Sh(t, fmt.Sprintf("mount --bind %s %s && umount -i -l %s && cd %s && echo ok", mountpoint, dir, mountpoint, dir)); got != "ok" {
		t.Fatalf("the container has no volume: %s", got)
	}
	return c
}

// Sh runs a command and returns its last line.
func (c *Container) Sh(t *testing.T, command string) string {
	t.Helper()
	if _, err := fmt.Fprintf(c.in, "{ %s; } 2>&1; echo; echo END\n", command); err != nil {
		t.Fatal(err)
	}
	last := ""
	for c.out.Scan() {
		switch text := c.out.Text(); text {
		case "END":
			return last
		case "":
		default:
			last = text
		}
	}
	t.Fatal("the container has ended")
	return ""
}

// Write has the container write a file, and tells what came of it.
func (c *Container) Write(t *testing.T, name string) string {
	t.Helper()
	return c.Sh(t, "echo x > "+name+" && echo written")
}

// NothingBelow fails where something lies in the directories below the mounts, on the disk of the
// host. It looks into the file system of the directory above, past all mounts.
func (l *Live) NothingBelow(t *testing.T) {
	t.Helper()
	bare := t.TempDir()
	if err := syscall.Mount(l.Root, bare, "", syscall.MS_BIND, ""); err != nil { // not MS_REC: without what is mounted below
		t.Fatal(err)
	}
	defer Detach(bare)
	dirs, err := os.ReadDir(bare)
	if err != nil || len(dirs) == 0 {
		t.Fatalf("below the mounts: %v, %v", dirs, err)
	}
	for _, dir := range dirs {
		if fi, err := dir.Info(); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("below the mountpoint: %v, %v", fi, err)
		}
		if entries, err := os.ReadDir(filepath.Join(bare, dir.Name())); err != nil || len(entries) > 0 {
			t.Fatalf("written to the host's disk: %v, %v", entries, err)
		}
	}
}

// NothingLeft fails where a mountpoint is left.
func (l *Live) NothingLeft(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(l.Root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
