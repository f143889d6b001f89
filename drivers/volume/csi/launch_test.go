package csi

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// launched is this binary as a CSI driver that a pool starts.
func launched() bool {
	dir := os.Getenv("REMORA_TEST_LAUNCHED")
	if dir == "" {
		return false
	}
	o := csitest.All()
	o.NodeID = os.Getenv("NODE_ID")
	if err := csitest.Serve(o, dir, strings.TrimPrefix(os.Getenv("CSI_ENDPOINT"), "unix://"), ""); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	return true
}

// TestLaunched: a pool starts its CSI driver, whose death and whose pool's end no mount notices, and takes it over.
func TestLaunched(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir, err := os.MkdirTemp("", "csi") // the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	noErr := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	noErr(os.MkdirAll(dir+"/at/v", 0o755))
	noErr(os.Mkdir(dir+"/mock", 0o755))
	h := &host{t: t, dir: dir, c: config{
		Keys: launch.Keys{Command: []string{os.Args[0]}, Env: []string{"REMORA_TEST_LAUNCHED=" + dir + "/mock"}, NodeID: "node-1"},
		Name: "csitest.remora.example", Namespace: "test", Size: 64 << 20, Reclaim: "delete", Detach: time.Hour, Wait: time.Second,
	}}
	d := h.open(t)
	t.Cleanup(func() {
		last := h.open(t)
		noErr(last.run.Stop(context.WithoutCancel(t.Context())))
		_ = last.Close()
		noErr(last.unprepare())
		left, err := mount.List(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left are the mounts %v, %v", left, err)
			return
		}
		noErr(os.RemoveAll(dir))
	})
	noErr(d.run.Ready(t.Context()))
	noErr(d.Ping(t.Context()))
	noErr(d.Create(t.Context(), "v", nil))
	at, err := d.Mount(t.Context(), "v", dir+"/at/v")
	noErr(err)
	noErr(os.WriteFile(at+"/file", []byte("data"), 0o600))
	first := d.run.State().Pid
	noErr(d.Close())
	d = h.open(t)
	noErr(d.run.Ready(t.Context()))
	if pid := d.run.State().Pid; pid != first {
		t.Errorf("the driver %d was not taken over: %d", first, pid)
	}
	noErr(syscall.Kill(first, syscall.SIGKILL))
	noErr(d.Unmount(t.Context(), "v", dir+"/at/v")) // though the driver is only just being started again
	if at, err = d.Mount(t.Context(), "v", dir+"/at/v"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(at + "/file"); err != nil || string(data) != "data" {
		t.Errorf("the volume has %q, %v", data, err)
	}
	if pid := d.run.State().Pid; pid == first {
		t.Errorf("process %d was killed", pid)
	}
	noErr(d.Unmount(t.Context(), "v", dir+"/at/v"))
	noErr(d.Remove(t.Context(), "v"))
}

// TestNotLaunched: a pool whose CSI driver does not come is there all the same, and says why.
func TestNotLaunched(t *testing.T) {
	testenv.Require(t, testenv.Root)
	h := newHost(t, csitest.All(), func(c *config) {
		c.Keys = launch.Keys{Command: []string{"/no/such/program"}}
	})
	d := h.open(t)
	t.Cleanup(func() {
		_ = d.run.Stop(context.WithoutCancel(t.Context()))
		_ = d.Close()
		_ = d.unprepare()
	})
	for end := time.Now().Add(20 * time.Second); d.run.State().Error == ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is said")
		}
	}
	err := d.Ping(t.Context())
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "the CSI driver does not run: /no/such/program: there is no such program") {
		t.Error(err)
	}
	if _, err := Driver().Open(t.Context(), map[string]any{"image": "x", "endpoint": "/y"}, catalog.Env{PoolName: strconv.Itoa(1), StateDir: t.TempDir(), RunDir: t.TempDir()}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
}
