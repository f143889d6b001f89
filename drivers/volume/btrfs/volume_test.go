package btrfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// random returns n bytes that nothing can compress.
func random(t testing.TB, path string, n int64) error {
	t.Helper()
	src, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	buf := make([]byte, n)
	if _, err := src.Read(buf); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(buf)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func TestLimitIsHard(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	create(t, d, "one", "size=8m")
	dir := data(t, d, "one")
	if err := random(t, dir+"/f", 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := random(t, dir+"/g", 8<<20); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("more than fits: %v, want EDQUOT", err)
	}
	_ = os.Remove(dir + "/g")
	wantErr(t, d.Resize(t.Context(), "one", 1<<20), errdefs.ErrInvalid, "the volume has 4")
	if err := d.Resize(t.Context(), "one", 6<<20); err != nil {
		t.Errorf("smaller, and it fits: %v", err)
	}
	u, err := d.Usage(t.Context(), "one")
	if err != nil || u.Limit != 6<<20 || u.Used < 4<<20 || u.Used > 5<<20 {
		t.Errorf("usage %+v, %v", u, err)
	}
	mustBeSwept(t, d)
}

func TestOptions(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openCounting(t, mkfs(t))
	create(t, d, "db", "nocow=true", "uid=999", "gid=998", "mode=2770")
	create(t, d, "logs", "compress=zstd")
	fi, err := os.Stat(data(t, d, "db"))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys(); fi.Mode() != os.ModeDir|os.ModeSetgid|0o770 {
		t.Errorf("mode %v, %+v", fi.Mode(), st)
	}
	if got := command(t, "stat", "--format=%u %g", data(t, d, "db")); got != "999 998" {
		t.Errorf("owner %s", got)
	}
	write(t, data(t, d, "db")+"/f", "x")
	if got := command(t, "lsattr", data(t, d, "db")+"/f"); !strings.Contains(strings.Fields(got)[0], "C") {
		t.Errorf("a file of a volume without copying on write has %s", got)
	}
	big := strings.Repeat("the same line again and again\n", 100_000)
	write(t, data(t, d, "logs")+"/f", big)
	if u, err := d.Usage(t.Context(), "logs"); err != nil || u.Used > int64(len(big)/2) {
		t.Errorf("%d bytes that repeat take %d, %v", len(big), u.Used, err)
	}
	wantErr(t, d.Create(t.Context(), "x", opts("nocow=1", "compress=zstd")), errdefs.ErrInvalid, `not with "nocow"`)
	// A clone has what its origin has, and the rest as given.
	if err := d.Clone(t.Context(), "copy", "db", "", opts("mode=0700")); err != nil {
		t.Fatal(err)
	}
	if got := command(t, "stat", "--format=%u %g %a", data(t, d, "copy")); got != "999 998 700" {
		t.Errorf("the clone has %s", got)
	}
}

func TestCloneTakesTheLimitOver(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	create(t, d, "one", "size=8m")
	if err := random(t, data(t, d, "one")+"/f", 4<<20); err != nil {
		t.Fatal(err)
	}
	for name, limit := range map[string]int64{"same": 8 << 20, "more": 16 << 20} {
		o := opts()
		if name == "more" {
			o = opts("size=16m")
		}
		if err := d.Clone(t.Context(), name, "one", "", o); err != nil {
			t.Fatal(err)
		}
		if u, err := d.Usage(t.Context(), name); err != nil || u.Limit != limit || u.Used < 4<<20 {
			t.Errorf("%s: usage %+v, %v", name, u, err)
		}
		if err := random(t, data(t, d, name)+"/g", limit); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("%s: more than fits: %v, want EDQUOT", name, err)
		}
	}
	wantErr(t, d.Clone(t.Context(), "less", "one", "", opts("size=2m")), errdefs.ErrInvalid, "the volume has 4")
	// So has what was rolled back.
	if err := d.CreateSnapshot(t.Context(), "one", "s", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Rollback(t.Context(), "one", "s"); err != nil {
		t.Fatal(err)
	}
	if err := random(t, data(t, d, "one")+"/g", 8<<20); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("after a rollback: %v, want EDQUOT", err)
	}
	mustList(t, d, "more", "one", "same")
	mustBeSwept(t, d)
}

func TestAdopt(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	pool := mkfs(t)
	command(t, "btrfs", "quota", "enable", pool)
	d := openPath(t, pool)
	mustList(t, d)
	command(t, "btrfs", "subvolume", "create", pool+"/plain")
	command(t, "btrfs", "qgroup", "limit", "8M", pool+"/plain")
	command(t, "mkdir", pool+"/beside", pool+"/dir")
	command(t, "btrfs", "subvolume", "create", pool+"/beside/data")
	write(t, pool+"/plain/f", "mine")
	write(t, pool+"/beside/data/f", "mine")
	write(t, pool+"/dir/f", "mine")
	mustList(t, d)
	for _, name := range []string{"plain", "beside"} {
		for range 2 {
			create(t, d, name)
		}
		mustRead(t, data(t, d, name)+"/f", "mine")
	}
	if u, err := d.Usage(t.Context(), "plain"); err != nil || u.Limit != 8<<20 {
		t.Errorf("the limit it had: %+v, %v", u, err)
	}
	wantErr(t, d.Create(t.Context(), "dir", opts()), errdefs.ErrExists, "is in the way")
	mustRead(t, pool+"/dir/f", "mine")
	mustList(t, d, "beside", "plain")
	mustBeSwept(t, d)
}

// TestNestedSubvolumes: an engine in a container makes subvolumes of its own.
func TestNestedSubvolumes(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	create(t, d, "one")
	dir := data(t, d, "one")
	command(t, "mkdir", "-p", dir+"/var/lib")
	command(t, "btrfs", "subvolume", "create", dir+"/var/lib/a")
	command(t, "btrfs", "subvolume", "create", dir+"/var/lib/a/deeper")
	command(t, "btrfs", "subvolume", "snapshot", "-r", dir+"/var/lib/a", dir+"/var/lib/b")
	command(t, "btrfs", "subvolume", "create", dir+"/c")
	command(t, "btrfs", "property", "set", dir, "ro", "true")
	if err := d.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if out := command(t, "btrfs", "subvolume", "list", d.Path); out != "" {
		t.Errorf("left: %s", out)
	}
	mustBeSwept(t, d)
	if left, _ := filepath.Glob(d.Path + "/*"); len(left) != 1 || filepath.Base(left[0]) != pooldir.MarkerName {
		t.Errorf("left: %q", left)
	}
}

func TestAnotherFileSystemIsNotThePool(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	pool, other := mkfs(t), mkfs(t)
	d := openPath(t, pool)
	create(t, d, "one")
	if err := unix.Mount(other, pool, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{d.Ping(t.Context()), d.Create(t.Context(), "two", opts()), d.Remove(t.Context(), "one")} {
		wantErr(t, err, errdefs.ErrUnavailable, "another directory is there")
	}
	if entries, _ := os.ReadDir(other); len(entries) > 0 {
		t.Errorf("written to the other one: %v", entries)
	}
	if err := unix.Unmount(pool, 0); err != nil {
		t.Fatal(err)
	}
	mustList(t, d, "one")
	if err := unix.Mount("", pool, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	wantErr(t, d.Ping(t.Context()), errdefs.ErrUnavailable, "read-only")
}
