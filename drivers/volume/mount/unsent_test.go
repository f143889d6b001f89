package mount

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestRemoveKeepsWhatIsNotSent: what a container wrote, and rclone has yet to send when it is unmounted, does not go with the volume.
func TestRemoveKeepsWhatIsNotSent(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	d := pool(t, t.TempDir(), nil)
	opts := s.rclone("v")
	opts["vfs-write-back"] = "3s"
	if err := d.Create(t.Context(), "v", opts); err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	t.Cleanup(func() { _ = remote.Detach(target) })
	mount := func() {
		t.Helper()
		if _, err := d.Mount(t.Context(), "v", target); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() {
		t.Helper()
		if err := d.Unmount(t.Context(), "v", target); err != nil {
			t.Fatal(err)
		}
	}
	mount()
	if err := os.MkdirAll(filepath.Join(target, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "sub/precious"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	unmount()
	if _, err := os.Stat(s.data("v/sub/precious")); err == nil {
		t.Fatal("it has been sent already")
	}
	remotetest.WantErr(t, d.Remove(t.Context(), "v"), errdefs.ErrInUse, "sub/precious")
	mount()
	remotetest.WaitFor(t, "it is on the server", func() bool { _, err := os.Stat(s.data("v/sub/precious")); return err == nil })
	start := time.Now()
	unmount()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the unmount took %s", took)
	}
	if err := d.Remove(t.Context(), "v"); err != nil {
		t.Errorf("after it was sent: %v", err)
	}
	if left, _ := filepath.Glob(d.dir + "/cache/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
