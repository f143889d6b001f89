package dir

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

var (
	_ volume.Sizer    = (*driver)(nil)
	_ volume.Resizer  = (*driver)(nil)
	_ volume.Surveyor = (*driver)(nil)
)

// quotaKinds are the file systems that can limit projects, with what makes one and mounts it.
var quotaKinds = []struct{ name, mkfs, options string }{
	{"ext4", "mkfs.ext4 -q -O project,quota", "prjquota"},
	{"xfs", "mkfs.xfs -q", "prjquota"},
}

// disk makes a file system for a pool and returns where it is mounted.
func disk(t testing.TB, mkfs, options string) string {
	t.Helper()
	testenv.Require(t, testenv.VM)
	image, at := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	script := `truncate -s 400M "$0" && $2 "$0" && mount -o loop,"$3" "$0" "$1"`
	if out, err := exec.Command("sh", "-c", script, image, at, mkfs, options).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", mkfs, err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return at
}

// likeContainers takes the capability away by which root may exceed the quota of ext4, until the
// end of the test. Containers do not have it.
func likeContainers(t testing.TB) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has [2]unix.CapUserData
	if err := unix.Capget(&header, &has[0]); err != nil {
		t.Fatal(err)
	}
	less := has
	less[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	set := func(to *[2]unix.CapUserData) {
		_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(to)), 0)
		if errno != 0 {
			t.Fatalf("capset: %v", errno)
		}
	}
	set(&less)
	t.Cleanup(func() { set(&has) })
}

// openCounted opens a pool as openPool does, on a file system that counts.
func openCounted(t testing.TB, path string) *driver {
	t.Helper()
	d := openPool(t, path)
	if !d.counting() {
		t.Fatal("nothing is counted")
	}
	return d
}

func TestVMQuotaConformance(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, kind := range quotaKinds {
		t.Run(kind.name, func(t *testing.T) {
			base := disk(t, kind.mkfs, kind.options)
			likeContainers(t)
			volumetest.Run(t, volumetest.Config{
				New: func(t *testing.T) volume.Driver {
					path, err := os.MkdirTemp(base, "pool-")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = os.RemoveAll(path) })
					return openCounted(t, path)
				},
				Reopen:     func(t *testing.T, d volume.Driver) volume.Driver { return openCounted(t, d.(*driver).Path) },
				Options:    opts("mode=0750", "uid=1000", "size=64m"),
				BadOptions: opts("mode=rwx", "size=1k"),
				Resize:     16 << 20,
			})
		})
	}
}

// full writes until the volume is full, and returns how much went in.
func full(t testing.TB, path string) (n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 256<<10)
	for n < 1<<30 {
		k, err := f.Write(block)
		n += int64(k)
		if err != nil {
			if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
				t.Errorf("full with %v", err)
			}
			return n
		}
	}
	t.Fatal("there is no end")
	return n
}

func about(n, want int64) bool { return n > want*9/10 && n <= want+64<<10 }

func limits(t testing.TB, c *driver, name string) volume.Usage {
	t.Helper()
	u, err := c.Usage(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestVMQuotaLife: a limit holds from the first byte, grows and shrinks, survives a restart, the
// trash and a remount, and is gone with the volume.
func TestVMQuotaLife(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, kind := range quotaKinds {
		t.Run(kind.name, func(t *testing.T) {
			base := disk(t, kind.mkfs, kind.options)
			likeContainers(t)
			c := openCounted(t, base)
			create(t, c, "v", "size=4m", "mode=0777")
			create(t, c, "other")
			dir := data(t, c, "v")
			if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
				t.Fatal(err)
			}
			if n := full(t, dir+"/sub/full"); !about(n, 4<<20) {
				t.Errorf("4 MiB took %d bytes", n)
			}
			write(t, data(t, c, "other")+"/file", "there is room here")
			if u := limits(t, c, "v"); u.Limit != 4<<20 || !about(u.Used, 4<<20) {
				t.Errorf("usage is %+v", u)
			}
			if u := limits(t, c, "other"); u.Limit != 0 || u.Used <= 0 || u.Used > 1<<20 {
				t.Errorf("usage of the other is %+v", u)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks)*st.Bsize != 4<<20 {
				t.Errorf("df shows %d bytes, %v", int64(st.Blocks)*st.Bsize, err)
			}
			wantErr(t, c.Resize(t.Context(), "v", 1<<20), errdefs.ErrInvalid, "size 1m: less than the ")
			if err := c.Resize(t.Context(), "v", 8<<20); err != nil {
				t.Fatal(err)
			}
			if n := full(t, dir+"/more"); !about(n, 4<<20) {
				t.Errorf("4 MiB more took %d bytes", n)
			}
			if err := os.Remove(dir + "/more"); err != nil {
				t.Fatal(err)
			}
			if err := c.Resize(t.Context(), "v", 5<<20); err != nil {
				t.Fatal(err)
			}
			project := projectAt(t, dir)

			again := openCounted(t, base) // a restart
			if err := again.Trash(t.Context(), "v"); err != nil {
				t.Fatal(err)
			}
			trashed, err := again.Trashed(t.Context())
			if err != nil || len(trashed) != 1 {
				t.Fatalf("trash has %v, %v", trashed, err)
			}
			if err := again.Restore(t.Context(), trashed[0].ID, "back"); err != nil {
				t.Fatal(err)
			}
			if u := limits(t, again, "back"); u.Limit != 5<<20 || !about(u.Used, 4<<20) {
				t.Errorf("brought back with %+v", u)
			}
			if n := full(t, data(t, again, "back")+"/more"); !about(n, 1<<20) {
				t.Errorf("1 MiB more took %d bytes", n)
			}
			create(t, again, "purged", "size=4m")
			purged := projectAt(t, data(t, again, "purged"))
			if err := again.Trash(t.Context(), "purged"); err != nil {
				t.Fatal(err)
			}
			trashed, err = again.Trashed(t.Context())
			if err != nil || len(trashed) != 1 {
				t.Fatalf("trash has %v, %v", trashed, err)
			}
			for _, err := range []error{again.Remove(t.Context(), "back"), again.Purge(t.Context(), trashed[0].ID)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			root, err := os.Open(base)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			left, err := quotaOf(int(root.Fd()), project)
			if err != nil || left.hard != 0 {
				t.Errorf("of the removed volume is left: %+v, %v", left, err)
			}
			if q, err := quotaOf(int(root.Fd()), purged); err != nil || q.hard != 0 {
				t.Errorf("of the purged volume is left: %+v, %v", q, err)
			}
			for start := time.Now(); left.inodes > 0 && time.Since(start) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
				left, _ = quotaOf(int(root.Fd()), project) // XFS frees inodes when it has time
			}
			if left.inodes > 0 || left.blocks > 0 {
				t.Errorf("of the removed volume is counted: %+v", left)
			}
		})
	}
}

func projectAt(t testing.TB, dir string) uint32 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	project, err := projectOf(f)
	if err != nil || project == 0 {
		t.Fatalf("%s has project %d, %v", dir, project, err)
	}
	return project
}

// TestVMQuotaOfWhatWasThere: data that was there before is counted with the limit, that of
// somebody else's project is not touched.
func TestVMQuotaOfWhatWasThere(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, kind := range quotaKinds {
		t.Run(kind.name, func(t *testing.T) {
			base := disk(t, kind.mkfs, kind.options)
			c := openCounted(t, base)
			for _, name := range []string{"adopted", "foreign", "old"} {
				if err := os.MkdirAll(filepath.Join(base, name, "data/a/b"), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(base, name, "data/a/b/file"), strings.Repeat("x", 2<<20))
			}
			f, err := os.Open(base + "/foreign/data")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := assign(int(f.Fd()), 42); err != nil {
				t.Fatal(err)
			}
			wantErr(t, c.Create(t.Context(), "adopted", opts("size=1m")), errdefs.ErrInvalid, "less than the 2")
			create(t, c, "adopted", "size=3m")
			if kind.name == "ext4" { // which lets root write all of it
				err := c.Create(t.Context(), "copy", opts("size=1m", "from="+base+"/old/data"))
				wantErr(t, err, errdefs.ErrInvalid, "/old/data: size 1m: less than the 2")
			}
			likeContainers(t)
			if u := limits(t, c, "adopted"); u.Limit != 3<<20 || !about(u.Used, 2<<20) {
				t.Errorf("adopted with %+v", u)
			}
			if n := full(t, data(t, c, "adopted")+"/a/b/more"); !about(n, 1<<20) {
				t.Errorf("1 MiB more took %d bytes", n)
			}
			create(t, c, "old")
			_, err = c.Usage(t.Context(), "old")
			wantErr(t, err, errdefs.ErrUnsupported, "made before")
			if err := c.Resize(t.Context(), "old", 3<<20); err != nil {
				t.Fatal(err)
			}
			if u := limits(t, c, "old"); u.Limit != 3<<20 || !about(u.Used, 2<<20) {
				t.Errorf("resized to %+v", u)
			}
			create(t, c, "foreign")
			wantErr(t, c.Resize(t.Context(), "foreign", 3<<20), errdefs.ErrExists, "belongs to a project already")
			if a, err := attrOf(int(f.Fd())); err != nil || a.project != 42 {
				t.Errorf("the project of somebody else is %d now, %v", a.project, err)
			}
			// A copy, as that of a backup, keeps to the limit too.
			err = c.Create(t.Context(), "copy", opts("size=1m", "from="+base+"/old/data"))
			wantErr(t, err, errdefs.ErrUnavailable, map[string]string{"ext4": "quota exceeded", "xfs": "no space left"}[kind.name])
			create(t, c, "copy", "size=3m", "from="+base+"/old/data")
			if u := limits(t, c, "copy"); u.Limit != 3<<20 || !about(u.Used, 2<<20) {
				t.Errorf("copied to %+v", u)
			}
			if left := slices.DeleteFunc(tree(t, base), func(p string) bool { return !strings.HasPrefix(p, ".remora-new") }); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			// The pool was carried here by files: the limits come back with the first mount.
			if out, err := exec.Command("chattr", "-R", "-p", "0", base+"/copy/data").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if out, err := exec.Command("chattr", "-P", base+"/copy/data", base+"/copy/data/a").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			data(t, c, "copy")
			if u := limits(t, c, "copy"); u.Limit != 3<<20 || !about(u.Used, 2<<20) {
				t.Errorf("carried to %+v", u)
			}
		})
	}
}

// TestVMQuotaOff: without quota a size is refused, with what to do, and nothing is left; a volume
// that had one can still be mounted.
func TestVMQuotaOff(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, kind := range []struct{ name, mkfs, options, text, mend string }{
		{"ext4", "mkfs.ext4 -q", "rw", "project quota is off (ext4 at ", "tune2fs -O project,quota /dev/loop"},
		{"xfs", "mkfs.xfs -q", "rw", "project quota is off (xfs at ", "mount -o prjquota /dev/loop"},
		{"xfs counting", "mkfs.xfs -q", "pqnoenforce", "project quota is off (xfs at ", "mount -o prjquota /dev/loop"},
		{"btrfs", "mkfs.btrfs -q", "rw", "project quota is off (btrfs at ", "use the driver btrfs"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			base := disk(t, kind.mkfs, kind.options)
			opened, err := Driver().Open(t.Context(), map[string]any{"path": base}, catalog.Env{PoolName: "test"})
			if err != nil {
				t.Fatal(err)
			}
			err = opened.Create(t.Context(), "v", opts("size=4m"))
			wantErr(t, err, errdefs.ErrUnsupported, "size: the file system of "+base+" keeps no project quota")
			advice := opened.(catalog.Adviser).Advice()
			if hints := fmt.Sprint(errdefs.Hints(err)); !strings.Contains(hints, kind.mend) || !strings.HasPrefix(advice.Text, kind.text) || !strings.Contains(hints, advice.Mend) {
				t.Errorf("hints are %s, advice is %+v", hints, advice)
			}
			if left := slices.DeleteFunc(tree(t, base), func(p string) bool { return !strings.HasPrefix(p, ".remora-new") && p != "v" }); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if err := opened.Create(t.Context(), "v", nil); err != nil {
				t.Fatal(err)
			}
			wantErr(t, opened.(volume.Resizer).Resize(t.Context(), "v", 4<<20), errdefs.ErrUnsupported, "keeps no project quota")
		})
	}
	// A volume that had a limit can still be mounted where nobody keeps it any more.
	at := disk(t, "mkfs.ext4 -q -O project,quota", "prjquota")
	create(t, openCounted(t, at), "v", "size=4m")
	if out, err := exec.Command("sh", "-c", `image=$(losetup -nO BACK-FILE "$(findmnt -no SOURCE "$0")") && umount "$0" && mount -o loop "$image" "$0"`, at).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data(t, openPool(t, at), "v")
}

// TestVMProjectsOfPeople: a project that people have written down is not chosen.
func TestVMProjectsOfPeople(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for path, text := range map[string]string{
		"/etc/projects": "# ours\n\n1073741825:/srv/a\nbad\n", "/etc/projid": "web:1073741826\nweb\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // as it mostly is
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
	}
	got := namedProjects()
	if len(got) != 2 || !got[1073741825] || !got[1073741826] {
		t.Errorf("named projects are %v", got)
	}
}
