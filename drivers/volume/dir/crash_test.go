package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// tmpfs mounts one with the given options, until the end of the test.
func tmpfs(t testing.TB, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("dir-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func TestLeftoversOfACrash(t *testing.T) {
	const foreign = "0123abcd"
	pool := t.TempDir()
	d := openPool(t, pool)
	create(t, d, "data")
	old := time.Now().Add(-pooldir.Patience - time.Hour)
	for _, tt := range []struct {
		name  string
		inner []string
		old   bool
		goes  bool
	}{
		{name: d.Hidden(pooldir.New), goes: true},
		{name: d.Hidden(pooldir.New), inner: []string{"data/"}, goes: true},
		{name: d.Hidden(pooldir.New), inner: []string{"data/a/b/c/", "data/x", "volume.json"}, goes: true},
		{name: d.Hidden(pooldir.Gone), goes: true},
		{name: d.Hidden(pooldir.Gone), inner: []string{"volume.json"}, goes: true},
		{name: d.Hidden(pooldir.Gone), inner: []string{"data/x", "volume.json"}, goes: true},
		{name: ".remora-gone-" + foreign + "-0123456789abcdef", inner: []string{"data/x"}, goes: true},
		{name: ".remora-new-" + foreign + "-0123456789abcdef", inner: []string{"data/x"}, goes: false},
		{name: ".remora-new-" + foreign + "-aaaaaaaaaaaaaaaa", inner: []string{"data/x"}, old: true, goes: true},
		{name: ".remora-gone-precious", inner: []string{"data/x"}, goes: false},
		{name: ".remora-new-" + d.Host + "-0123456789ABCDEF", goes: false},
		{name: ".remora-old-" + d.Host + "-0123456789abcdef", goes: false},
		{name: ".hidden", inner: []string{"data/x", "volume.json"}, goes: false},
	} {
		for _, path := range append([]string{"/"}, tt.inner...) {
			path, dir := filepath.Join(pool, tt.name, path), strings.HasSuffix(path, "/")
			if err := os.MkdirAll(filepath.Dir(path+map[bool]string{true: "/x"}[dir]), 0o700); err != nil {
				t.Fatal(err)
			}
			if !dir {
				write(t, path, "x")
			}
		}
		if tt.old {
			if err := os.Chtimes(filepath.Join(pool, tt.name), old, old); err != nil {
				t.Fatal(err)
			}
		}
		if got := list(t, d); !slices.Equal(got, []string{"data"}) {
			t.Errorf("volumes are %v", got)
		}
		d.Wait()
		if _, err := os.Lstat(filepath.Join(pool, tt.name)); errors.Is(err, os.ErrNotExist) != tt.goes {
			t.Errorf("%s %v: after the sweep: %v, want gone %v", tt.name, tt.inner, err, tt.goes)
		}
	}
}

// TestHalfMadeByAPowerCut: a name with empty facts and no data is none that anybody was
// told of; with data it is a volume that somebody has to mend.
func TestHalfMadeByAPowerCut(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	for _, name := range []string{"empty", "none", "full"} {
		create(t, d, name, "mode=0700")
		write(t, pool+"/"+name+"/volume.json", "")
	}
	write(t, pool+"/full/data/file", "bye")
	if err := os.Remove(pool + "/none/data"); err != nil {
		t.Fatal(err)
	}
	if got := list(t, d); !slices.Equal(got, []string{"full"}) {
		t.Errorf("volumes are %v", got)
	}
	srv := t.TempDir()
	for name, option := range map[string]string{"empty": "mode=0711", "none": "mountpoint=" + srv} {
		_, err := d.Mount(t.Context(), name, "")
		wantErr(t, err, errdefs.ErrNotFound, "no such volume")
		wantErr(t, d.Remove(t.Context(), name), errdefs.ErrNotFound, "no such volume")
		create(t, d, name, option)
	}
	if fi, err := os.Stat(data(t, d, "empty")); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("made anew with %v, %v", fi, err)
	}
	if got := data(t, d, "none"); got != srv {
		t.Errorf("made anew at %s", got)
	}
	if _, err := d.Mount(t.Context(), "full", ""); err == nil || len(errdefs.Hints(err)) == 0 {
		t.Errorf("with data: %v, hints %q", err, errdefs.Hints(err))
	}
	list(t, d)
	d.Wait()
	if left, err := filepath.Glob(pool + "/.remora-gone-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSweepLeavesWhatIsBeingBuilt(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	p, err := d.pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	aside, lock, err := d.NewAside(p.Dir, pooldir.New, passMode)
	if err != nil {
		t.Fatal(err)
	}
	list(t, d)
	d.Wait()
	if _, err := os.Stat(filepath.Join(pool, aside)); err != nil {
		t.Errorf("swept while its builder lives: %v", err)
	}
	if err := unix.Close(lock); err != nil { // the builder dies
		t.Fatal(err)
	}
	list(t, d)
	d.Wait()
	if _, err := os.Stat(filepath.Join(pool, aside)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not swept after its builder died: %v", err)
	}
}

func TestRemoveGoesOnAfterTheCallerGaveUp(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	create(t, d, "data")
	for i := range 100 {
		write(t, fmt.Sprintf("%s/f%d", data(t, d, "data"), i), "x")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Remove(ctx, "data"); err != nil {
		t.Errorf("remove: %v", err)
	}
	wantErr(t, d.Remove(t.Context(), "data"), errdefs.ErrNotFound, "no such volume")
	d.Wait()
	if got := tree(t, pool); !slices.Equal(got, []string{pooldir.MarkerName}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestRemoveOfADeepTree(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	create(t, d, "data")
	dir, err := os.Open(data(t, d, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 { // far longer than a path may be
		name := strings.Repeat("d", 50)
		if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = dir.Close()
		dir = os.NewFile(uintptr(fd), name)
	}
	_ = dir.Close()
	if err := d.Remove(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, pool); !slices.Equal(got, []string{pooldir.MarkerName}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestRemoveFollowsNoLink(t *testing.T) {
	pool, srv := t.TempDir(), t.TempDir()
	write(t, srv+"/file", "x")
	d := openPool(t, pool)
	create(t, d, "data")
	for _, to := range []string{srv, srv + "/file", "../../.."} {
		if err := os.Symlink(to, filepath.Join(data(t, d, "data"), fmt.Sprint(len(to)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Remove(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, srv+"/file"); got != "x" {
		t.Errorf("file is %q", got)
	}
}

func TestRemoveStopsAtMounts(t *testing.T) {
	testenv.Require(t, testenv.Root)
	pool, srv := t.TempDir(), t.TempDir()
	write(t, srv+"/file", "x")
	d := openPool(t, pool)
	create(t, d, "data")
	below := data(t, d, "data") + "/a b"
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(srv, below, "", unix.MS_BIND, ""); err != nil { // of the same file system
		t.Fatal(err)
	}
	unmount := func() { _ = unix.Unmount(below, unix.MNT_DETACH) }
	t.Cleanup(unmount)
	err := d.Remove(t.Context(), "data")
	wantErr(t, err, errdefs.ErrInUse, "is mounted on "+below)
	if len(errdefs.Hints(err)) != 1 {
		t.Errorf("hints are %q", errdefs.Hints(err))
	}
	if got := list(t, d); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes are %v", got)
	}
	p, err := d.pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, deleteTree(t.Context(), p.FD, "data"), errdefs.ErrInUse, "something is mounted there") // the second line of defence
	p.Close()
	if got := read(t, srv+"/file"); got != "x" {
		t.Errorf("file is %q", got)
	}
	unmount()
}

func TestPathMissing(t *testing.T) {
	base := t.TempDir()
	path := base + "/pool"
	d := openPool(t, path)
	check := func(want string) {
		t.Helper()
		_, ierr := d.Inspect(t.Context(), "data")
		_, merr := d.Mount(t.Context(), "data", "")
		var verr error
		for _, verr = range d.Volumes(t.Context()) {
		}
		for _, err := range []error{ierr, merr, verr, d.Ping(t.Context()), d.Create(t.Context(), "data", nil), d.Remove(t.Context(), "data")} {
			wantErr(t, err, errdefs.ErrUnavailable, want)
			if len(errdefs.Hints(err)) != 1 {
				t.Errorf("%v: hints are %q", err, errdefs.Hints(err))
			}
		}
	}
	check(path + ": no such file or directory")
	write(t, path, "")
	check(path + ": not a directory")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Errorf("ping after mkdir: %v", err)
	}
	create(t, d, "data")
}

func TestDiskThatIsNotMounted(t *testing.T) {
	testenv.Require(t, testenv.Root)
	path := t.TempDir()
	disk, other := tmpfs(t, ""), tmpfs(t, "")
	bind := func(dir string) {
		t.Helper()
		if err := unix.Mount(dir, path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() { _ = unix.Unmount(path, unix.MNT_DETACH) }
	t.Cleanup(unmount)

	bind(disk)
	env := catalog.Env{PoolName: "p", StateDir: t.TempDir()}
	d := openWith(t, path, env)
	create(t, d, "data")
	unmount()
	for name, d := range map[string]*driver{"running": d, "restarted": openWith(t, path, env)} {
		for what, err := range map[string]error{"create": d.Create(t.Context(), "x", nil), "remove": d.Remove(t.Context(), "data"), "ping": d.Ping(t.Context())} {
			wantErr(t, err, errdefs.ErrUnavailable, "another directory is there than the pool's")
			if len(errdefs.Hints(err)) != 1 {
				t.Errorf("%s, %s: hints are %q", name, what, errdefs.Hints(err))
			}
		}
		if got := tree(t, path); len(got) != 0 {
			t.Errorf("%s: written below the mountpoint: %v", name, got)
		}
	}
	bind(other)
	create(t, openPool(t, path), "stranger")
	wantErr(t, d.Ping(t.Context()), errdefs.ErrUnavailable, "another pool is there")
	unmount()
	bind(disk)
	for _, d := range []*driver{d, openWith(t, path, env)} {
		if got := list(t, d); !slices.Equal(got, []string{"data"}) {
			t.Errorf("volumes after the disk is back are %v", got)
		}
	}
}

func TestDiskFull(t *testing.T) {
	testenv.Require(t, testenv.Root)
	pool := tmpfs(t, "size=1m")
	d := openPool(t, pool)
	create(t, d, "data")
	if err := os.WriteFile(data(t, d, "data")+"/big", make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	before := tree(t, pool)
	for range 2 {
		err := d.Create(t.Context(), "next", nil)
		wantErr(t, err, errdefs.ErrUnavailable, "no space left on device")
		if len(errdefs.Hints(err)) != 1 {
			t.Errorf("hints are %q", errdefs.Hints(err))
		}
	}
	src := t.TempDir()
	write(t, src+"/file", strings.Repeat("x", 10000))
	wantErr(t, d.Create(t.Context(), "copy", opts("from="+src)), errdefs.ErrUnavailable, "copy from "+src+": file: no space left on device")
	if after := tree(t, pool); !slices.Equal(before, after) {
		t.Errorf("the pool was\n%v\nand is\n%v", before, after)
	}
	if err := d.Remove(t.Context(), "data"); err != nil {
		t.Errorf("remove on a full disk: %v", err)
	}
	create(t, d, "next")
}

func TestReadOnlyPool(t *testing.T) {
	testenv.Require(t, testenv.Root)
	pool := t.TempDir()
	create(t, openPool(t, pool), "data")
	d := openPool(t, bindReadOnly(t, pool))
	if got := list(t, d); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes are %v", got)
	}
	if _, err := d.Mount(t.Context(), "data", ""); err != nil {
		t.Errorf("mount: %v", err)
	}
	for _, err := range []error{d.Ping(t.Context()), d.Create(t.Context(), "next", nil), d.Remove(t.Context(), "data")} {
		wantErr(t, err, errdefs.ErrUnavailable, "read-only file system")
		if len(errdefs.Hints(err)) != 1 {
			t.Errorf("hints are %q", errdefs.Hints(err))
		}
	}
	fresh := openPool(t, bindReadOnly(t, t.TempDir())) // without a marker
	if got := list(t, fresh); len(got) != 0 {
		t.Errorf("volumes are %v", got)
	}
}

// bindReadOnly mounts dir elsewhere for reading, until the end of the test.
func bindReadOnly(t *testing.T, dir string) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	return at
}
