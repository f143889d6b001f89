package btrfs

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/catalog/catalogtest"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/volume"
)

var (
	_ volume.Driver         = (*driver)(nil)
	_ volume.Inspector      = (*driver)(nil)
	_ volume.Pinger         = (*driver)(nil)
	_ volume.Sizer          = (*driver)(nil)
	_ volume.Resizer        = (*driver)(nil)
	_ volume.Snapshotter    = (*driver)(nil)
	_ volume.SnapshotOpener = (*driver)(nil)
	_ volume.Rollbacker     = (*driver)(nil)
	_ volume.Cloner         = (*driver)(nil)
	_ volume.Trasher        = (*driver)(nil)
	_ io.Closer             = (*driver)(nil)
)

func TestREADME(t *testing.T) { catalogtest.README(t, Driver()) }

// host is the directories that a daemon has.
type host struct{ state, run string }

func newHost(t testing.TB) host {
	t.Helper()
	dir := t.TempDir()
	h := host{filepath.Join(dir, "state"), filepath.Join(dir, "run")}
	t.Cleanup(func() { unmountAll(t, dir) })
	return h
}

func hostOf(d *driver) host {
	return host{d.Memo.Dir, filepath.Dir(filepath.Dir(d.Path))}
}

// unmountAll unmounts what a test that kills a driver left, and waits for its loop device.
func unmountAll(t testing.TB, dir string) {
	t.Helper()
	images, _ := filepath.Glob(dir + "/state/images/*")
	for unix.Unmount(filepath.Join(dir, "run/btrfs/test"), unix.UMOUNT_NOFOLLOW) == nil {
	}
	for _, path := range images {
		noLoop(t, path)
	}
}

// noLoop waits until no loop device has the image any more. A mount namespace that somebody
// else makes on this machine at the time has a copy of the mount, and holds it for as long
// as it lives.
func noLoop(t testing.TB, image string) {
	t.Helper()
	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		dev, err := loopWith(file)
		if err == nil && dev == nil {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = dev.Close()
		if time.Now().After(deadline) {
			if !copied(dev.Name()) {
				t.Fatalf("%s has %s still", dev.Name(), image)
			}
			return
		}
	}
}

// copied tells whether a mount namespace that is not ours has the device mounted.
func copied(device string) bool {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, table := range tables {
		ns, err := os.Readlink(filepath.Dir(table) + "/ns/mnt")
		raw, rerr := os.ReadFile(table)
		if err == nil && rerr == nil && ns != own && strings.Contains(string(raw), " "+device+" ") {
			return true
		}
	}
	return false
}

func tryOpen(t testing.TB, table map[string]any, h host) (*driver, error) {
	t.Helper()
	d, err := Driver().Open(t.Context(), table, catalog.Env{
		PoolName: "test", StateDir: h.state, RunDir: h.run,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.(*driver).Close() })
	return d.(*driver), nil
}

func openTable(t testing.TB, h host, table map[string]any) *driver {
	t.Helper()
	d, err := tryOpen(t, table, h)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// openImage opens a pool in an image at the default place.
func openImage(t testing.TB, h host) *driver {
	t.Helper()
	return openTable(t, h, map[string]any{"size": "1g"})
}

// openPath opens a pool on a btrfs, one that remembers nothing.
func openPath(t testing.TB, path string) *driver {
	t.Helper()
	return openTable(t, host{}, map[string]any{"path": path})
}

// mkfs makes a btrfs and mounts it, until the end of the test.
func mkfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	command(t, "truncate", "--size=1G", image)
	command(t, "mkfs.btrfs", "--quiet", image)
	command(t, "mkdir", mnt)
	command(t, "mount", "-o", "loop", image, mnt)
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount %s: %v", mnt, err)
		}
		noLoop(t, image)
	})
	return mnt
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := run.Output(t.Context(), nil, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func create(t testing.TB, d *driver, name string, pairs ...string) {
	t.Helper()
	if err := d.Create(t.Context(), name, opts(pairs...)); err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
}

// opts makes options of "key=value" pairs.
func opts(pairs ...string) map[string]string {
	m := map[string]string{}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return m
}

func list(t testing.TB, d *driver) []string {
	t.Helper()
	names := []string{}
	for info, err := range d.Volumes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	slices.Sort(names)
	return names
}

func mustList(t testing.TB, d *driver, want ...string) {
	t.Helper()
	if got := list(t, d); !slices.Equal(got, want) {
		t.Errorf("volumes are %q, want %q", got, want)
	}
}

func data(t testing.TB, d *driver, name string) string {
	t.Helper()
	dir, err := d.Mount(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, path, want string) {
	t.Helper()
	if raw, err := os.ReadFile(path); err != nil || string(raw) != want {
		t.Errorf("%s: read %q, %v, want %q", filepath.Base(path), raw, err, want)
	}
}

func wantErr(t testing.TB, err, class error, text string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one of class %v with %q", err, class, text)
	}
}

// mustBeSwept waits for the sweep and looks for what it should have taken.
func mustBeSwept(t testing.TB, d *driver) {
	t.Helper()
	list(t, d)
	d.Wait()
	if left, err := filepath.Glob(d.Path + "/.remora-[gna]*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
