package loop

import (
	"os"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
)

// ofDevice reads what the kernel says of the one device that holds an image below path.
func ofDevice(t *testing.T, path, what string) string {
	t.Helper()
	all := devices(t, path)
	if len(all) != 1 {
		t.Fatalf("devices are %v, want one", all)
	}
	text, err := os.ReadFile("/sys/block/" + all[0] + "/" + what)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestDirectIO: a volume has direct I/O, on a disk with sectors of 4 KiB too, which the pools of the
// tests have, and still when it shares blocks with a snapshot; and so has the snapshot.
func TestDirectIO(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for _, tt := range []struct{ pool, fs, size string }{{"ext4", "ext4", "32m"}, {"xfs", "ext4", "32m"}, {"xfs", "xfs", "300m"}} {
		path := poolOn(t, tt.pool)
		d := openPool(t, path, opts("fs="+tt.fs, "size="+tt.size))
		create(t, d, "one")
		want := func(when string) {
			t.Helper()
			if dio, sector := ofDevice(t, path, "loop/dio"), ofDevice(t, path, "queue/logical_block_size"); dio != "1" || sector != "4096" {
				t.Errorf("%s on %s, %s: direct I/O %s, sectors of %s", tt.fs, tt.pool, when, dio, sector)
			}
		}
		at, unmount := mounted(t, d, "one")
		synced(t, at+"/f", make([]byte, 1<<20))
		want("new")
		unmount()
		s, ok := d.(volume.Snapshotter)
		if !ok {
			continue
		}
		if err := s.CreateSnapshot(t.Context(), "one", "s", nil); err != nil {
			t.Fatal(err)
		}
		noDevices(t, path)
		_, unmount = mounted(t, d, "one")
		want("after a snapshot")
		unmount()
		noDevices(t, path)
		opener, target := d.(volume.SnapshotOpener), t.TempDir()
		dir, err := opener.OpenSnapshot(t.Context(), "one", "s", target)
		if err != nil {
			t.Fatal(err)
		}
		want("a snapshot")
		if err := opener.CloseSnapshot(t.Context(), "one", "s", dir); err != nil {
			t.Error(err)
		}
		noDevices(t, path)
	}
}

// TestSmallSectors: an image from elsewhere whose file system was made for smaller sectors is
// mounted, and so is one that ends between two large ones.
func TestSmallSectors(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	for name, mkfs := range map[string]string{
		"blocks":  "truncate -s 20m image && mkfs.ext4 -q -b 1024 image",
		"sectors": "truncate -s 300m image && mkfs.xfs -q -s size=512 image",
		"end":     "truncate -s $((20480 * 1024 + 512)) image && mkfs.ext4 -q -b 4096 image",
		"large":   "truncate -s 300m image && mkfs.xfs -q -s size=4096 image",
	} {
		if err := os.Mkdir(path+"/"+name, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := run.Output(t.Context(), nil, "sh", "-c", "cd "+path+"/"+name+" && "+mkfs); err != nil {
			t.Fatal(err)
		}
		create(t, d, name)
		at, unmount := mounted(t, d, name)
		write(t, at+"/f", name)
		want := "512"
		if name == "large" {
			want = "4096"
		}
		if got := ofDevice(t, path, "queue/logical_block_size"); got != want {
			t.Errorf("%s: sectors of %s, want %s", name, got, want)
		}
		unmount()
		noDevices(t, path)
	}
}
