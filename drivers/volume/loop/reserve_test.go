package loop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// rooms returns how much of an image has blocks, and how much of it was written.
func rooms(t *testing.T, path string) (has, written int64) {
	t.Helper()
	image, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	has = st.Blocks * 512
	spans, err := unwritten(image, st.Size)
	if err != nil {
		t.Fatal(err)
	}
	written = has
	for _, s := range spans {
		written -= s.to - s.from
	}
	return has, written
}

// TestReservedJournal: the journal of a volume with room of its own is written when the volume
// is made, so that no commit in it has a block to commit outside; that of a sparse one is not.
func TestReservedJournal(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for _, pool := range []string{"ext4", "xfs"} {
		path := poolOn(t, pool)
		d := openPool(t, path, opts("size=512m"))
		for _, tt := range []struct {
			fs      string
			journal int64 // of 512 MiB, as mkfs finds right
		}{{"ext4", 16 << 20}, {"xfs", 64 << 20}} {
			create(t, d, tt.fs, "fs="+tt.fs, "sparse=false")
			create(t, d, tt.fs+"-sparse", "fs="+tt.fs)
			if has, written := rooms(t, path+"/"+tt.fs+"/image"); has < 512<<20 || written < tt.journal || written > tt.journal+64<<20 {
				t.Errorf("%s on %s: %d bytes are reserved, and %d written", tt.fs, pool, has, written)
			}
			if _, written := rooms(t, path+"/"+tt.fs+"-sparse/image"); written > 12<<20 {
				t.Errorf("%s on %s, sparse: %d bytes are written", tt.fs, pool, written)
			}
		}
		noDevices(t, path)
	}
}

// TestReservedStays: neither the kernel's own zeroing nor a grow gives back what is reserved,
// and what somebody else gave back is there again after a mount.
func TestReservedStays(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for fs, option := range map[string]string{"ext4": "noinit_itable", "btrfs": "nodiscard"} {
		path := poolOn(t, "xfs")
		d := openPool(t, path, opts("fs="+fs, "size=300m"))
		create(t, d, "one", "sparse=false")
		image := path + "/one/image"
		at, unmount := mounted(t, d, "one")
		m, err := mountAt(at)
		if err != nil || m == nil {
			t.Fatal(m, err)
		}
		given := strings.Split(m.Options, ",")
		if fs == "ext4" { // which tells only this of it
			text, err := os.ReadFile(filepath.Join("/proc/fs/ext4", filepath.Base(m.Source), "options"))
			if err != nil {
				t.Fatal(err)
			}
			given = strings.Fields(string(text))
		}
		for _, o := range given {
			if fs == "ext4" && strings.HasPrefix(o, "init_itable") || fs == "btrfs" && strings.HasPrefix(o, "discard") {
				t.Errorf("%s is mounted with %s, want %s", fs, o, option)
			}
		}
		err = d.(volume.Resizer).Resize(t.Context(), "one", 1<<30)
		if err != nil && (fs != "ext4" || errdefs.Class(err) != errdefs.ErrDenied) {
			t.Error(err)
		}
		if has, _ := rooms(t, image); err == nil && has < 1<<30 {
			t.Errorf("%s: after a grow %d bytes are reserved", fs, has)
		}
		unmount()
		noDevices(t, path)
		f, err := os.OpenFile(image, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		spans, err := unwritten(f, 1<<30)
		if err != nil || len(spans) == 0 {
			t.Fatal(spans, err)
		}
		last := spans[len(spans)-1]
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, last.from, last.to-last.from); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		_, unmount = mounted(t, d, "one")
		if has, _ := rooms(t, image); has < 1<<30 {
			t.Errorf("%s: after a mount %d bytes are reserved", fs, has)
		}
		unmount()
		noDevices(t, path)
	}
}
