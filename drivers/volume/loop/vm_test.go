package loop

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
)

// TestVMGrowsUnderAWriter: a volume that is full grows three times while a container writes, on
// the device it has, and nothing that was written is lost.
func TestVMGrowsUnderAWriter(t *testing.T) {
	testenv.Require(t, testenv.VM)
	if testenv.NoResizeExt4(t) != "" {
		t.Fatal("the virtual machine lacks CAP_SYS_RESOURCE")
	}
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			path := poolOn(t, "ext4")
			d := openPool(t, path, opts("fs="+fs))
			size := int64(32 << 20)
			if fs == "xfs" {
				size = 320 << 20
			}
			create(t, d, "one", fmt.Sprintf("size=%d", size))
			at, unmount := mounted(t, d, "one")
			before := devices(t, path)
			script := `i=0; while [ ! -e "$0/stop" ]; do echo "$i" > "$0/w$((i % 50)).new" && sync "$0/w$((i % 50)).new" && mv "$0/w$((i % 50)).new" "$0/w$((i % 50))"; i=$((i+1)); done; echo "$i"`
			writer := exec.Command("sh", "-c", script, at)
			out, err := writer.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := writer.Start(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				size += 64 << 20
				if err := d.(volume.Resizer).Resize(t.Context(), "one", size); err != nil {
					t.Fatalf("to %d: %v", size, err)
				}
				var st unix.Statfs_t
				if err := unix.Statfs(at, &st); err != nil || int64(st.Blocks)*st.Bsize < size*8/10 {
					t.Errorf("the container has %d bytes of %d, %v", int64(st.Blocks)*st.Bsize, size, err)
				}
				name := fmt.Sprintf("%s/big%d", at, i)
				if err := os.WriteFile(name, make([]byte, 40<<20), 0o600); err != nil {
					t.Errorf("what should fit now: %v", err)
				}
			}
			write(t, at+"/stop", "")
			var rounds int
			if _, err := fmt.Fscan(out, &rounds); err != nil || rounds < 3 {
				t.Errorf("the writer went %d rounds, %v", rounds, err)
			}
			if err := writer.Wait(); err != nil {
				t.Error(err)
			}
			wantRead(t, fmt.Sprintf("%s/w%d", at, (rounds-1)%50), fmt.Sprintf("%d\n", rounds-1))
			if after := devices(t, path); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the devices were %v and are %v", before, after)
			}
			unmount()
			image := path + "/one/" + imageName
			check := exec.Command("e2fsck", "-f", "-n", image)
			if fs == "xfs" {
				check = exec.Command("xfs_repair", "-n", "-f", image)
			}
			if text, err := check.CombinedOutput(); err != nil {
				t.Errorf("after all that: %v: %s", err, text)
			}
		})
	}
}
