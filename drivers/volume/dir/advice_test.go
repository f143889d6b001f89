package dir

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestAdviceWhereBound: quota is turned on where the file system is mounted, and not where a directory of it is bound.
func TestAdviceWhereBound(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Loop)
	image, whole, bound := filepath.Join(t.TempDir(), "disk"), t.TempDir(), t.TempDir()
	script := `truncate -s 16M "$0" && mkfs.ext4 -q "$0" && mount -o loop "$0" "$1" && mkdir "$1/pools" && mount --bind "$1/pools" "$2"`
	t.Cleanup(func() {
		for _, at := range []string{bound, whole} {
			if err := unix.Unmount(at, 0); err != nil {
				t.Errorf("unmount: %v", err)
			}
		}
	})
	if out, err := exec.Command("sh", "-c", script, image, whole, bound).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	advice := openPool(t, bound).Advice()
	if !strings.Contains(advice.Text, "ext4 at "+whole+")") || !strings.HasPrefix(advice.Mend, "umount "+whole+" && ") {
		t.Errorf("advice is %+v, want to turn quota on at %s", advice, whole)
	}
}
