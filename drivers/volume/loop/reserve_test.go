package loop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/run"
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
	spans, err := unwritten(image, 0, st.Size)
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
		d := openPool(t, path, opts("fs="+fs, "size=300m", "mount_options=discard"))
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
			if strings.HasPrefix(o, "init_itable") || strings.HasPrefix(o, "discard") {
				t.Errorf("%s is mounted with %s, want %s", fs, o, option)
			}
		}
		err = d.(volume.Resizer).Resize(t.Context(), "one", 1<<30)
		if err != nil && (fs != "ext4" || !errors.Is(err, errdefs.ErrDenied)) {
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
		spans, err := unwritten(f, 0, 1<<30)
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

// TestReservedTooLate: what was given back, and is no more there, takes no room from others, and
// does not keep the volume from being mounted.
func TestReservedTooLate(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := filesystemOf(t, "ext4", 100<<20)
	d := small(t, path)
	create(t, d, "one", "sparse=false", "size=40m")
	if err := os.Truncate(path+"/one/image", 140<<20); err != nil { // more than there is
		t.Fatal(err)
	}
	had, _ := rooms(t, path+"/one/image")
	_, unmount := mounted(t, d, "one")
	if has, _ := rooms(t, path+"/one/image"); has > had+4<<20 {
		t.Errorf("%d bytes were reserved, and %d are", had, has)
	}
	unmount()
	noDevices(t, path)
}

// TestWritten: all of the volume is written, and what a resize adds, while it is mounted too; what
// is cut off leaves nothing.
func TestWritten(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := poolOn(t, "xfs")
	d := openPool(t, path, opts("written=true", "size=64m"))
	create(t, d, "one")
	create(t, d, "thin", "sparse=true")
	create(t, d, "room", "written=false", "sparse=false")
	for name, want := range map[string][2]int64{"one": {64 << 20, 64 << 20}, "thin": {0, 0}, "room": {64 << 20, 1 << 20}} {
		has, written := rooms(t, path+"/"+name+"/image")
		if has < want[0] || written < want[1] || want[1] < 64<<20 && written >= 40<<20 {
			t.Errorf("%s: %d bytes are reserved, and %d written", name, has, written)
		}
	}
	at, unmount := mounted(t, d, "one")
	write(t, at+"/f", "kept")
	err := d.(volume.Resizer).Resize(t.Context(), "one", 128<<20)
	if err != nil && !errors.Is(err, errdefs.ErrDenied) {
		t.Error(err)
	}
	if has, written := rooms(t, path+"/one/image"); has < 128<<20 || written < 128<<20 {
		t.Errorf("after a resize %d bytes are reserved, and %d written", has, written)
	}
	wantRead(t, at+"/f", "kept")
	unmount()
	noDevices(t, path)
	_, unmount = mounted(t, d, "one")
	unmount()
	noDevices(t, path)
	ctx, cancel := context.WithCancelCause(t.Context())
	before, enough := tree(t, path), errors.New("enough")
	image, err := os.OpenFile(path+"/one/image", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	cancel(enough)
	if err := d.Create(ctx, "two", opts("size=256m")); !errors.Is(err, enough) {
		t.Errorf("a volume that is cut off: %v", err)
	}
	if err := d.(volume.Resizer).Resize(ctx, "one", 512<<20); !errors.Is(err, enough) {
		t.Errorf("a resize that is cut off: %v", err)
	}
	if err := errors.Join(image.Truncate(256<<20), reserve(image, 128<<20, 256<<20)); err != nil {
		t.Fatal(err)
	}
	if err := writeOut(ctx, image, 0, 256<<20); !errors.Is(err, enough) {
		t.Errorf("writing that is cut off: %v", err)
	}
	if _, written := rooms(t, path+"/one/image"); written > (129<<20)+chunk {
		t.Errorf("%d bytes are written after it was cut off", written)
	}
	if err := image.Truncate(128 << 20); err != nil {
		t.Fatal(err)
	}
	if fi, err := image.Stat(); err != nil || fi.Size() != 128<<20 || !slices.Equal(before, tree(t, path)) {
		t.Errorf("left are %v, %v of %v", tree(t, path), fi.Size(), err)
	}
	wantErr(t, d.Create(t.Context(), "x", opts("written=true", "sparse=true")), errdefs.ErrInvalid, "cannot be sparse")
	wantErr(t, d.Create(t.Context(), "x", opts("mount_options=discard")), errdefs.ErrInvalid, "gives back the room")
	wantErr(t, d.(volume.Cloner).Clone(t.Context(), "x", "one", "", opts("written=true")), errdefs.ErrInvalid, "a clone shares what is written")
	wantErr(t, d.Create(t.Context(), "x", opts("size=8g")), errdefs.ErrUnavailable, "no space left on device")
}

// TestWrittenInPlace: a pool on a btrfs that writes in place keeps doing so for snapshots too.
func TestWrittenInPlace(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	base := poolOn(t, "btrfs")
	path := base + "/pool"
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Output(t.Context(), nil, "chattr", "+C", path); err != nil {
		t.Fatal(err)
	}
	d := small(t, path, "written=true")
	create(t, d, "one")
	at, unmount := mounted(t, d, "one")
	write(t, at+"/f", "before")
	s := d.(*cloning)
	if err := s.CreateSnapshot(t.Context(), "one", "s", nil); err != nil {
		t.Fatal(err)
	}
	write(t, at+"/f", "after")
	unmount()
	if err := s.Rollback(t.Context(), "one", "s"); err != nil {
		t.Fatal(err)
	}
	if err := s.Clone(t.Context(), "two", "one", "s", nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		at, unmount = mounted(t, d, name)
		wantRead(t, at+"/f", "before")
		unmount()
		out, err := run.Output(t.Context(), nil, "lsattr", path+"/"+name+"/image")
		if err != nil || !strings.Contains(strings.Fields(string(out))[0], "C") {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
	noDevices(t, path)
}
