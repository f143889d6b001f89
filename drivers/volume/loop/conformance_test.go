package loop

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

// TestConformance runs the suite on pools that can share blocks and on one that cannot, with
// each file system in the volumes.
func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for _, tt := range []struct {
		pool, fs, size string
		resize         int64
	}{
		{"ext4", "ext4", "32m", 48 << 20},
		{"xfs", "ext4", "32m", 48 << 20},
		{"xfs", "xfs", "300m", 320 << 20},
		{"btrfs", "btrfs", "256m", 272 << 20},
	} {
		t.Run(tt.fs+" on "+tt.pool, func(t *testing.T) {
			if testing.Short() && tt.pool != "ext4" {
				t.Skip("short: the other pools")
			}
			base := poolOn(t, tt.pool)
			config := opts("fs="+tt.fs, "size="+tt.size)
			var deviates map[string]string
			if why := testenv.NoResizeExt4(t); tt.fs == "ext4" && why != "" {
				deviates = map[string]string{"Resize": why}
			}
			volumetest.Run(t, volumetest.Config{
				New: func(t *testing.T) volume.Driver {
					path, err := os.MkdirTemp(base, "pool-")
					if err != nil {
						t.Fatal(err)
					}
					d := openPool(t, path, config)
					t.Cleanup(func() {
						noDevices(t, path)
						if err := os.RemoveAll(path); err != nil {
							t.Error(err)
						}
					})
					return d
				},
				Reopen:     func(t *testing.T, d volume.Driver) volume.Driver { return openPool(t, of(d).Path, config) },
				Options:    opts("mode=0750", "uid=1000", "mount_options=noatime"),
				BadOptions: opts("mode=rwx", "size=1k", "fs=ntfs", "mount_options=errors=panic"),
				Resize:     tt.resize,
				Deviates:   deviates,
			})
		})
	}
}

// poolOn makes a file system of a kind for pools, until the end of the test.
func poolOn(t testing.TB, fs string) string {
	t.Helper()
	return filesystemOf(t, fs, 4<<30)
}

func filesystemOf(t testing.TB, fs string, size int64) string {
	t.Helper()
	dir, at := t.TempDir(), t.TempDir()
	image, err := os.Create(filepath.Join(dir, "pool-disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if err := image.Truncate(size); err != nil {
		t.Fatal(err)
	}
	v, err := attach(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	if err := kinds[fs].Make(t.Context(), onDevice(v.path, "pool", false)); err != nil {
		t.Fatal(err)
	}
	m, err := mount.Detach(v.path, fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Attach(".", at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount the pool: %v", err)
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	})
	return at
}
