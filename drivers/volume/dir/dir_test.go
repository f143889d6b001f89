package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/catalog/catalogtest"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

var (
	_ volume.Driver    = (*driver)(nil)
	_ volume.Inspector = (*driver)(nil)
	_ volume.Pinger    = (*driver)(nil)
	_ io.Closer        = (*driver)(nil)
)

func TestREADME(t *testing.T) { catalogtest.README(t, Driver()) }

// openPool opens a pool at path as the daemon does, one that remembers nothing.
func openPool(t testing.TB, path string) *driver {
	t.Helper()
	return openWith(t, path, catalog.Env{PoolName: "test"})
}

func openWith(t testing.TB, path string, env catalog.Env) *driver {
	t.Helper()
	env.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	table := map[string]any{}
	if path != "" {
		table["path"] = path
	}
	opened, err := Driver().Open(t.Context(), table, env)
	if err != nil {
		t.Fatal(err)
	}
	d := opened.(*driver)
	t.Cleanup(func() { _ = d.Close() })
	return d
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

func data(t testing.TB, d *driver, name string) string {
	t.Helper()
	dir, err := d.Mount(t.Context(), name, "unused")
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

func read(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// tree returns every path below dir, for a look at what was left.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			paths = append(paths, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// wantErr checks the class of an error, that it is one line, and that it has a hint.
func wantErr(t testing.TB, err, class error, text string) {
	t.Helper()
	if !errors.Is(errdefs.Class(err), class) || !strings.Contains(fmt.Sprint(err), text) || strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("error is %q of class %v, want one line with %q of class %v", err, errdefs.Class(err), text, class)
	}
	if errors.Is(err, errdefs.ErrNotFound) && !errors.Is(class, errdefs.ErrNotFound) {
		t.Errorf("error %q says too that something is gone", err)
	}
}

func TestLife(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	before := time.Now().Add(-time.Second)
	create(t, d, "data", "mode=2770", "uid=1234", "gid=4321")
	dir := data(t, d, "data")
	if dir != filepath.Join(pool, "data/data") {
		t.Errorf("mountpoint is %s", dir)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && (st.Mode&0o7777 != 0o2770 || st.Uid != 1234 || st.Gid != 4321) {
		t.Errorf("data directory has mode %o, owner %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
	}
	write(t, dir+"/file", "bye")
	create(t, d, "data", "mode=0700") // again, which changes nothing
	if got := read(t, dir+"/file"); got != "bye" {
		t.Errorf("data is %q", got)
	}
	again := openPool(t, pool) // a restart
	if info, err := again.Inspect(t.Context(), "data"); err != nil || !maps.Equal(info.Options, opts("mode=2770", "uid=1234", "gid=4321")) {
		t.Errorf("inspected as %+v, %v", info, err)
	}
	if got := list(t, again); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes are %v", got)
	}
	info, err := again.Inspect(t.Context(), "data")
	if err != nil || info.Mountpoint != dir || info.CreatedAt.Before(before.Truncate(time.Second)) || info.CreatedAt.After(time.Now()) {
		t.Errorf("inspected as %+v, %v", info, err)
	}
	for range 2 {
		if err := again.Unmount(t.Context(), "data", dir); err != nil {
			t.Error(err)
		}
	}
	if err := again.Remove(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		again.Remove(t.Context(), "data"),
		func() error { _, err := again.Inspect(t.Context(), "data"); return err }(),
		func() error { _, err := again.Mount(t.Context(), "data", ""); return err }(),
	} {
		wantErr(t, err, errdefs.ErrNotFound, "no such volume")
	}
	if got := tree(t, pool); !slices.Equal(got, []string{pooldir.MarkerName}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestDefaultOwnerAndModes(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	d := openWith(t, "", catalog.Env{PoolName: "p", StateDir: t.TempDir()})
	create(t, d, "data")
	for path, want := range map[string]os.FileMode{"data": passMode, "data/data": defaultMode, "data/volume.json": 0o600} {
		fi, err := os.Stat(filepath.Join(d.Path, path))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %o", path, fi.Mode(), err, want)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	for pair, want := range map[string]string{
		"moutpoint=/x":                     `did you mean "mountpoint"? (there are: from, gid, mode, mountpoint, size, uid)`,
		"mode=rwx":                         `not an octal mode`,
		"mountpoint=srv":                   `"srv" is not an absolute path`,
		"mountpoint=":                      `"" is not an absolute path`,
		"mountpoint=/":                     `"/" is the root of the host`,
		"mountpoint=" + pool + "/x/":       `lie in one another`,
		"mountpoint=" + pool:               `lie in one another`,
		"mountpoint=" + filepath.Dir(pool): `lie in one another`,
		"size=1k":                          `"1k" is less than 64k`,
		"size=lots":                        `"lots"`,
		"from=etc":                         `"etc" is not an absolute path`,
		"from=/nonexistent":                `copy from /nonexistent: no such file or directory`,
		"from=/etc/hostname":               `copy from /etc/hostname: not a directory`,
		"from=" + pool:                     `the pool itself lies in it`,
		"from=" + filepath.Dir(pool):       `the pool itself lies in it`,
	} {
		wantErr(t, d.Create(t.Context(), "data", opts(pair)), errdefs.ErrInvalid, want)
	}
	wantErr(t, d.Create(t.Context(), "data", opts("from=/srv", "mountpoint=/srv/x")), errdefs.ErrInvalid, `"from"`)
	wantErr(t, d.Create(t.Context(), "data", opts("size=1m", "mountpoint=/srv/x")), errdefs.ErrInvalid, `cannot be kept by a "mountpoint"`)
	for _, name := range []string{"", ".", "..", ".hidden", "a/b", "../x", "a\x00b", strings.Repeat("x", 256)} {
		wantErr(t, d.Create(t.Context(), name, nil), errdefs.ErrInvalid, "not the name of a volume")
		wantErr(t, d.Remove(t.Context(), name), errdefs.ErrInvalid, "not the name of a volume")
		_, err := d.Mount(t.Context(), name, "")
		wantErr(t, err, errdefs.ErrInvalid, "not the name of a volume")
		_, err = d.Inspect(t.Context(), name)
		wantErr(t, err, errdefs.ErrInvalid, "not the name of a volume")
	}
	if got := tree(t, pool); !slices.Equal(got, []string{pooldir.MarkerName}) {
		t.Errorf("left behind: %v", got)
	}
	create(t, d, strings.Repeat("x", 255))
}

func TestCanceledCreateLeavesNothing(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Create(ctx, "data", opts("from=/usr/share/doc")); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if got := tree(t, pool); !slices.Equal(got, []string{pooldir.MarkerName}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestVolumesStopsWhenAsked(t *testing.T) {
	d := openPool(t, t.TempDir())
	for i := range 10 {
		create(t, d, fmt.Sprintf("v%d", i))
	}
	seen := map[string]bool{}
	for info := range d.Volumes(t.Context()) {
		seen[info.Name] = true
		if len(seen) == 3 {
			break
		}
	}
	if len(seen) != 3 {
		t.Errorf("saw %v", slices.Collect(maps.Keys(seen)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range d.Volumes(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for path, want := range map[string]string{"srv": "not absolute", "/": "root of the host"} {
		_, err := Driver().Open(t.Context(), map[string]any{"path": path}, catalog.Env{PoolName: "p"})
		wantErr(t, err, errdefs.ErrInvalid, want)
	}
}
