package mem

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/catalog/catalogtest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

var (
	_ volume.Driver    = (*driver)(nil)
	_ volume.Inspector = (*driver)(nil)
)

func TestREADME(t *testing.T) { catalogtest.README(t, Driver()) }

// openPool opens the pool at dir; what is mounted below it at the end of the test is
// unmounted.
func openPool(t testing.TB, dir string) volume.Driver {
	t.Helper()
	testenv.Require(t, testenv.Root)
	d, err := Driver().Open(t.Context(), map[string]any{"path": dir},
		catalog.Env{PoolName: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mounts, err := mount.List(dir)
		for _, m := range slices.Backward(mounts) {
			err = errors.Join(err, mount.Unmount(m.Mountpoint))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return d
}

func list(t testing.TB, d volume.Driver) []string {
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

func wantErr(t testing.TB, err, class error, text string) {
	t.Helper()
	if !errors.Is(errdefs.Class(err), class) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("error is %q of class %v, want %q of class %v", err, errdefs.Class(err), text, class)
	}
}

func TestLife(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	opts := map[string]string{"size": "64k", "inodes": "10", "mode": "2770", "uid": "12", "gid": "34"}
	if err := d.Create(t.Context(), "data", opts); err != nil {
		t.Fatal(err)
	}
	dir, err := d.Mount(t.Context(), "data", "unused")
	if err != nil || dir != filepath.Join(pool, "data") {
		t.Fatalf("mounted at %q, %v", dir, err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil || st.Mode&0o7777 != 0o2770 || st.Uid != 12 || st.Gid != 34 {
		t.Errorf("top directory has mode %o, owner %d:%d, %v", st.Mode&0o7777, st.Uid, st.Gid, err)
	}
	if err := os.WriteFile(dir+"/big", make([]byte, 65<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("65k in 64k: %v", err)
	}
	if err := os.WriteFile(dir+"/file", []byte("bye"), 0o600); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}

	again := openPool(t, pool) // a restart
	if err := again.Create(t.Context(), "data", nil); err != nil {
		t.Errorf("create of what is there: %v", err)
	}
	if _, err := os.Stat(dir + "/file"); err != nil {
		t.Errorf("data after restart: %v", err)
	}
	if got := list(t, again); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes are %v", got)
	}
	info, err := again.(volume.Inspector).Inspect(t.Context(), "data")
	if err != nil || info.Mountpoint != dir || !strings.Contains(fmt.Sprint(info.Status["options"]), "size=64k") {
		t.Errorf("inspected as %+v, %v", info, err)
	}
	if info.Options["size"] != "64k" {
		t.Errorf("made with %v", info.Options)
	}
	if _, err := catalog.DecodeOptions[options](info.Options); err != nil {
		t.Errorf("another cannot be made with %v: %v", info.Options, err)
	}
	if age := time.Since(info.CreatedAt); !info.CreatedAt.IsZero() && (age < 0 || age > time.Minute) {
		t.Errorf("created at %v", info.CreatedAt)
	}
	if err := again.Unmount(t.Context(), "data", dir); err != nil || len(list(t, again)) != 1 {
		t.Errorf("unmount: %v", err)
	}
	if err := again.Remove(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, again.Remove(t.Context(), "data"), errdefs.ErrNotFound, "no such volume")
	_, err = again.Mount(t.Context(), "data", "")
	wantErr(t, err, errdefs.ErrNotFound, "no such volume")
	if entries, err := os.ReadDir(pool); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestInUse(t *testing.T) {
	d := openPool(t, t.TempDir())
	if err := d.Create(t.Context(), "data", nil); err != nil {
		t.Fatal(err)
	}
	dir, err := d.Mount(t.Context(), "data", "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + "/held")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, d.Remove(t.Context(), "data"), errdefs.ErrInUse, "busy")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), "data"); err != nil {
		t.Error(err)
	}
}

func TestWhatLiesBelowAMountpointStays(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	if err := os.Mkdir(pool+"/empty", 0o700); err != nil { // a crash between mkdir and mount
		t.Fatal(err)
	}
	if err := os.Mkdir(pool+"/full", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"full/x", "file"} {
		if err := os.WriteFile(filepath.Join(pool, path), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, d); len(got) != 0 {
		t.Errorf("volumes are %v", got)
	}
	wantErr(t, d.Create(t.Context(), "full", nil), errdefs.ErrExists, "is not empty")
	wantErr(t, d.Remove(t.Context(), "full"), errdefs.ErrNotFound, "no such volume")
	wantErr(t, d.Create(t.Context(), "file", nil), errdefs.ErrExists, "is in the way")
	if _, err := os.Stat(pool + "/full/x"); err != nil {
		t.Error(err)
	}
	if err := d.Create(t.Context(), "empty", nil); err != nil {
		t.Error(err)
	}
}

func TestWrongOptions(t *testing.T) {
	pool := t.TempDir()
	d := openPool(t, pool)
	for opts, want := range map[string]string{
		"sise=1g":          `did you mean "size"? (there are: gid, inodes, mode, size, uid)`,
		"size=0":           `option "size": "0" is not more than nothing`,
		"inodes=-1":        `option "inodes": "-1" is not more than nothing`,
		"size=1g,uid=0":    `is not a size`,
		"mode=0755,size=1": `is not an octal mode`,
	} {
		k, v, _ := strings.Cut(opts, "=")
		wantErr(t, d.Create(t.Context(), "data", map[string]string{k: v}), errdefs.ErrInvalid, want)
	}
	for _, name := range []string{"", "..", "a/b", ".a", strings.Repeat("x", 256)} {
		wantErr(t, d.Create(t.Context(), name, nil), errdefs.ErrInvalid, "not the name of a volume")
	}
	if entries, err := os.ReadDir(pool); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	_, err := Driver().Open(t.Context(), map[string]any{"path": "/"}, catalog.Env{PoolName: "p"})
	wantErr(t, err, errdefs.ErrInvalid, "root of the host")
}

func TestDefaultPathThroughSymlink(t *testing.T) {
	testenv.Require(t, testenv.Root)
	run := t.TempDir()
	if err := os.Mkdir(run+"/real", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", run+"/link"); err != nil {
		t.Fatal(err)
	}
	d, err := Driver().Open(t.Context(), nil, catalog.Env{PoolName: "p", RunDir: run + "/link"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), "data", nil); err != nil {
		t.Fatal(err)
	}
	if got := list(t, d); !slices.Equal(got, []string{"data"}) {
		t.Errorf("volumes are %v", got)
	}
	if mounted, err := mount.At(run + "/real/mem/p/data"); err != nil || !mounted {
		t.Errorf("mounted is %v, %v", mounted, err)
	}
	if err := d.Remove(t.Context(), "data"); err != nil {
		t.Error(err)
	}
}
