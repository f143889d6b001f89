package loop

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
)

func modified(t *testing.T, path string) time.Time {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.ModTime()
}

// synced writes a file, and returns when it is on the disk.
func synced(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestTimesOfAnImage: on xfs a write in a volume leaves the times of its image alone, so that
// an fsync has them not to commit; mount and unmount set them. Elsewhere each write does.
func TestTimesOfAnImage(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for fs, moves := range map[string]bool{"xfs": false, "ext4": true} {
		path := poolOn(t, fs)
		image := path + "/one/" + imageName
		d := small(t, path)
		create(t, d, "one")
		made := modified(t, image)
		at, unmount := mounted(t, d, "one")
		if unstamped := of(d).isUnstamped(t, "one"); unstamped == moves {
			t.Errorf("%s: opened without stamps: %v", fs, unstamped)
		}
		entered := modified(t, image)
		for i := range 3 { // the clock of a file system has ticks
			time.Sleep(20 * time.Millisecond)
			synced(t, at+"/f", []byte{byte(i)})
		}
		if now := modified(t, image); now.After(entered) != moves {
			t.Errorf("%s: modified at %v, and after writes at %v", fs, entered, now)
		}
		other, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Errorf("%s: lock the image of a volume that is mounted: %v", fs, err)
		}
		unmount()
		if left := modified(t, image); !left.After(entered) || !entered.After(made) && fs == "xfs" {
			t.Errorf("%s: modified at %v, mounted %v, unmounted %v", fs, made, entered, left)
		}
	}
}

// isUnstamped tells whether the image can be opened so.
func (d *driver) isUnstamped(t *testing.T, name string) bool {
	t.Helper()
	p, _, image, err := d.volume(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	defer image.Close()
	again := unstamped(image)
	if again == nil {
		return false
	}
	defer again.Close()
	var a, b unix.Stat_t
	if unix.Fstat(int(image.Fd()), &a) != nil || unix.Fstat(int(again.Fd()), &b) != nil || a.Ino != b.Ino || a.Dev != b.Dev {
		t.Errorf("another file: %d, and not %d", b.Ino, a.Ino)
	}
	return true
}

// TestPoolThatStops: what an fsync in a volume said is on the disk is there when the xfs of the
// pool stops without writing out its log, as after a power cut: new blocks of the image among it.
func TestPoolThatStops(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	disk, path := filepath.Join(t.TempDir(), "pool-disk"), t.TempDir()
	file, err := os.OpenFile(disk, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	up := func(format bool) {
		t.Helper()
		v, err := attach(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		defer v.close()
		if format {
			if err := kinds["xfs"].Make(t.Context(), onDevice(v.path, "pool", false)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := mount.Detach(v.path, "xfs", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Attach(".", path); err != nil {
			t.Fatal(err)
		}
	}
	down := func() { _ = unix.Unmount(path, 0) }
	up(true)
	t.Cleanup(down)
	d := small(t, path)
	create(t, d, "one")
	for round := range byte(5) {
		data := bytes.Repeat([]byte{round + 1}, 1<<20)
		at, unmount := mounted(t, d, "one")
		synced(t, at+"/"+string('a'+round), data)
		top, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		flags := uint32(2) // XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
		if err := ioctl(top, 0x8004587d, unsafe.Pointer(&flags)); err != nil {
			t.Fatal(err)
		}
		_ = top.Close()
		unmount()
		noDevices(t, path)
		if err := unix.Unmount(path, 0); err != nil {
			t.Fatal(err)
		}
		up(false)
		at, unmount = mounted(t, d, "one")
		if got, err := os.ReadFile(at + "/" + string('a'+round)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("round %d: %d bytes are left, %v", round, len(got), err)
		}
		unmount()
		noDevices(t, path)
	}
}
