package mount_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestMountListUnmount(t *testing.T) {
	testenv.Require(t, testenv.Root)
	base := t.TempDir()
	dir := filepath.Join(base, `a b\c`) // the kernel escapes both
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	want := func(mounted bool) {
		t.Helper()
		if got, err := mount.At(dir); err != nil || got != mounted {
			t.Errorf("mounted is %v, %v, want %v", got, err, mounted)
		}
	}
	want(false)
	if err := mount.Mount("remora-test", dir, "tmpfs", 0, "size=1m,mode=0750"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mount.Unmount(dir) })
	want(true)
	list, err := mount.List(base)
	if err != nil || len(list) != 1 {
		t.Fatalf("list is %+v, %v", list, err)
	}
	if m := list[0]; m.Mountpoint != dir || m.FSType != "tmpfs" || m.Source != "remora-test" || !strings.Contains(m.Options, "size=1024k") {
		t.Errorf("listed as %+v", m)
	}

	f, err := os.Create(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.Unmount(dir); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("unmount of what is used: %v", err)
	}
	// One that is used for a moment more, as by a program that is being started, is waited for.
	time.AfterFunc(100*time.Millisecond, func() { _ = f.Close() })
	for range 2 {
		if err := mount.Unmount(dir); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}
	want(false)
}

func TestErrors(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	if _, err := mount.At(gone); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("at nothing: %v", err)
	}
	if err := mount.Unmount(gone); err != nil {
		t.Errorf("unmount nothing: %v", err)
	}
	if list, err := mount.List(gone); err != nil || len(list) != 0 {
		t.Errorf("list below nothing: %v, %v", list, err)
	}
	testenv.Require(t, testenv.Root)
	if err := mount.Mount("x", gone, "tmpfs", 0, ""); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("mount on nothing: %v", err)
	}
	if err := mount.Mount("x", filepath.Dir(gone), "tmpfs", 0, "size=nonsense"); err == nil || !strings.HasPrefix(err.Error(), "mount tmpfs on ") {
		t.Errorf("wrong option: %v", err)
	}
}
