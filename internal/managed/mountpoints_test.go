package managed

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestMountpoints: what is mounted is known without a look at it, which would hang where its server does.
func TestMountpoints(t *testing.T) {
	testenv.Require(t, testenv.Root)
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip("needs fuse: ", err)
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "real", "v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	// Nobody reads from the descriptor: whoever looks at the root waits.
	if err := unix.Mount("hangs", at, "fuse", 0, "fd="+strconv.Itoa(int(fuse.Fd()))+",rootmode=40000,user_id=0,group_id=0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = fuse.Close() // who waits is told
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(err)
		}
	})
	found := make(chan map[string]bool, 1)
	go func() { found <- mountpoints(filepath.Join(dir, "link")) }()
	select {
	case there := <-found:
		if len(there) != 1 || !there[filepath.Join(dir, "link", "v")] {
			t.Errorf("mounted are %v", there)
		}
	case <-time.After(10 * time.Second):
		t.Error("it hangs")
	}
}
