package daemon

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

// removeHost removes a place of a daemon with all that a test that failed has left mounted there.
func removeHost(t *testing.T, dir string) {
	t.Helper()
	left, err := mount.List(dir)
	for _, m := range slices.Backward(left) {
		err = errors.Join(err, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	if err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil { // mountpoints of the daemon's have a flag
		_ = exec.Command("chattr", "-R", "-i", dir).Run()
		_ = os.RemoveAll(dir)
	}
}

// Whatever a test leaves mounted is gone with its place.
func TestRemoveHost(t *testing.T) {
	if !testenv.Apart() {
		t.Skip("needs root, and a mount namespace of its own")
	}
	dir := t.TempDir()
	at := dir + "/run/a"
	err := errors.Join(os.MkdirAll(at, 0o700), unix.Mount("left", at, "tmpfs", 0, "size=1m"), os.Mkdir(at+"/below", 0o700), unix.Mount("left", at+"/below", "tmpfs", 0, "size=1m"))
	if err != nil {
		t.Fatal(err)
	}
	removeHost(t, dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if left, err := mount.List(dir); err != nil || len(left) > 0 {
		t.Errorf("mounted are %v, %v", left, err)
	}
}
