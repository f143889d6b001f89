package loop

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func decoded(t *testing.T, table map[string]any) config {
	t.Helper()
	c, err := catalog.DecodeTable[config](table)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func envOf(t *testing.T) catalog.Env {
	t.Helper()
	return catalog.Env{PoolName: "test", StateDir: t.TempDir()}
}

// TestPoolTellsWhetherItCan: the type of the driver says whether there are snapshots.
func TestPoolTellsWhetherItCan(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for fs, want := range map[string]bool{"ext4": false, "xfs": true, "btrfs": true} {
		d := openPool(t, poolOn(t, fs), nil)
		if _, can := d.(volume.Snapshotter); can != want {
			t.Errorf("%s: snapshots %v, want %v", fs, can, want)
		}
	}
	// Where nobody could look, the call says it.
	path := filesystemOf(t, "ext4", 100<<20)
	late := path + "/late"
	d := small(t, late)
	s, ok := d.(volume.Snapshotter)
	if !ok {
		t.Fatal("a pool that is not there yet has no snapshots")
	}
	if err := os.Mkdir(late, 0o700); err != nil {
		t.Fatal(err)
	}
	create(t, d, "one")
	at, _ := mounted(t, d, "one")
	err := s.CreateSnapshot(t.Context(), "one", "s1", nil)
	wantErr(t, err, errdefs.ErrUnsupported, "cannot share blocks")
	if h := errdefs.Hints(err); len(h) != 1 || !strings.Contains(h[0], "xfs or btrfs") {
		t.Errorf("hints are %q", h)
	}
	write(t, at+"/f", "thawed")
	if all, err := s.Snapshots(t.Context(), "one"); err != nil || len(all) != 0 {
		t.Errorf("snapshots are %v, %v", all, err)
	}
}

func TestCloneByCopy(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := filesystemOf(t, "ext4", 200<<20)
	d := small(t, path)
	cl := d.(volume.Cloner)
	create(t, d, "one", "uid=7", "mount_options=noatime")
	at, unmount := mounted(t, d, "one")
	write(t, at+"/f", "data")
	err := cl.Clone(t.Context(), "two", "one", "", opts())
	wantErr(t, err, errdefs.ErrInUse, "it is mounted on "+at)
	if h := errdefs.Hints(err); len(h) == 0 || !strings.Contains(h[0], "unmount it") {
		t.Errorf("hints are %q", h)
	}
	unmount()
	for _, tt := range []struct{ option, want string }{
		{"size=16m", "is below the 32m"}, {"fs=xfs", "is ext4, not xfs"}, {"sparse=false", "cannot have room of its own"}, {"colour=blue", "unknown option"},
	} {
		wantErr(t, cl.Clone(t.Context(), "two", "one", "", opts(tt.option)), errdefs.ErrInvalid, tt.want)
	}
	if got := list(t, d); !slices.Equal(got, []string{"one"}) {
		t.Errorf("volumes are %v", got)
	}
	if err := cl.Clone(t.Context(), "two", "one", "", opts("size=64m", "gid=8")); err != nil {
		t.Fatal(err)
	}
	at, _ = mounted(t, d, "two")
	wantRead(t, at+"/f", "data")
	u, err := d.(volume.Sizer).Usage(t.Context(), "two")
	if err != nil || u.Limit != 64<<20 {
		t.Errorf("usage is %+v, %v", u, err)
	}
	one, err := os.Stat(path + "/one/image")
	if err != nil || one.Size() != 32<<20 {
		t.Errorf("the origin is %v, %v", one, err)
	}
	info, err := d.(volume.Inspector).Inspect(t.Context(), "two")
	if err != nil || info.Options["gid"] != "8" {
		t.Errorf("inspected: %+v, %v", info, err)
	}
}

// TestOneHostAtATime: who has locked the image is another host, or makes a copy. What a loop
// device holds stays locked when the process that made it is killed.
func TestOneHostAtATime(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := t.TempDir()
	d := small(t, path)
	create(t, d, "one")
	other, err := os.OpenFile(path+"/one/image", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	copied, err := os.Create(path + "/copied")
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if err := copyUnused(t.Context(), copied, other); err != nil {
		t.Fatal(err)
	}
	_, merr := d.Mount(t.Context(), "one", t.TempDir())
	for _, err := range []error{merr, d.Remove(t.Context(), "one")} {
		wantErr(t, err, errdefs.ErrInUse, "its image is mounted by another host, or being copied")
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	kill(t, "mounted", path)
	t.Cleanup(func() { _ = unix.Unmount(path+"/at", unix.MNT_DETACH) })
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("what is mounted is not locked: %v", err)
	}
	if _, err := d.Mount(t.Context(), "one", path+"/at"); err != nil {
		t.Errorf("the mount is not found again: %v", err)
	}
	if err := d.Unmount(t.Context(), "one", path+"/at"); err != nil {
		t.Error(err)
	}
	noDevices(t, path)
	if err := lock(t.Context(), other); err != nil {
		t.Errorf("after the unmount: %v", err)
	}
}

// TestSnapshotThatWasCutOff: facts make a snapshot, and an image without them is none.
func TestSnapshotThatWasCutOff(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := poolOn(t, "xfs")
	d := small(t, path).(*cloning)
	create(t, d, "one")
	for _, name := range []string{"s1", "s2"} {
		if err := d.CreateSnapshot(t.Context(), "one", name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path + "/one/snapshots/s1.json"); err != nil { // made without facts, or half removed
		t.Fatal(err)
	}
	all, err := d.Snapshots(t.Context(), "one")
	if err != nil || len(all) != 1 || all[0].Name != "s2" {
		t.Errorf("snapshots are %+v, %v", all, err)
	}
	if err := d.CreateSnapshot(t.Context(), "one", "s3", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + "/one/snapshots/s1.image"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left: %v", err)
	}
	if err := d.CreateSnapshot(t.Context(), "one", "s1", nil); err != nil {
		t.Errorf("the name again: %v", err)
	}
	// A rollback that was cut off leaves an image aside.
	write(t, path+"/one/"+newImageName, "half")
	_, unmount := mounted(t, d, "one")
	unmount()
	if _, err := os.Stat(path + "/one/" + newImageName); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left of a rollback: %v", err)
	}
}

// TestSnapshotOfAnUncleanFileSystem: its log is replayed when it is opened.
func TestSnapshotOfAnUncleanFileSystem(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			path := poolOn(t, "btrfs")
			d := openPool(t, path, opts("fs="+fs, "size=300m")).(*cloning)
			create(t, d, "cut")
			powerCut(t, d, path, "cut")
			if err := d.CreateSnapshot(t.Context(), "cut", "s1", nil); err != nil {
				t.Fatal(err)
			}
			dir, err := d.OpenSnapshot(t.Context(), "cut", "s1", t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			wantRead(t, dir+"/f", "synced")
			if err := d.CloseSnapshot(t.Context(), "cut", "s1", dir); err != nil {
				t.Error(err)
			}
			noDevices(t, path)
		})
	}
}

// TestRollbackKeepsTheSize: a volume that has grown since the snapshot stays as large.
func TestRollbackKeepsTheSize(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	path := poolOn(t, "xfs")
	d := openPool(t, path, opts("fs=xfs", "size=300m")).(*cloning)
	create(t, d, "one")
	at, unmount := mounted(t, d, "one")
	write(t, at+"/f", "before")
	if err := d.CreateSnapshot(t.Context(), "one", "s1", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Resize(t.Context(), "one", 400<<20); err != nil {
		t.Fatal(err)
	}
	write(t, at+"/f", "after")
	wantErr(t, d.Rollback(t.Context(), "one", "s1"), errdefs.ErrInUse, "it is mounted on "+at)
	unmount()
	if err := d.Rollback(t.Context(), "one", "s1"); err != nil {
		t.Fatal(err)
	}
	at, _ = mounted(t, d, "one")
	wantRead(t, at+"/f", "before")
	if u, err := d.Usage(t.Context(), "one"); err != nil || u.Limit != 400<<20 {
		t.Errorf("usage is %+v, %v", u, err)
	}
}
