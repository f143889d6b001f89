package loop

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

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/catalog/catalogtest"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

var (
	_ volume.Driver         = (*driver)(nil)
	_ volume.Inspector      = (*driver)(nil)
	_ volume.Pinger         = (*driver)(nil)
	_ volume.Sizer          = (*driver)(nil)
	_ volume.Resizer        = (*driver)(nil)
	_ volume.Cloner         = (*driver)(nil)
	_ volume.Trasher        = (*driver)(nil)
	_ io.Closer             = (*driver)(nil)
	_ volume.Snapshotter    = (*cloning)(nil)
	_ volume.SnapshotOpener = (*cloning)(nil)
	_ volume.Rollbacker     = (*cloning)(nil)
	_ volume.Cloner         = (*cloning)(nil)
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func TestREADME(t *testing.T) { catalogtest.README(t, Driver()) }

// openPool opens a pool at path as the daemon does, one that remembers nothing.
func openPool(t testing.TB, path string, keys map[string]string) volume.Driver {
	t.Helper()
	return openWith(t, path, keys, catalog.Env{PoolName: "test"})
}

func openWith(t testing.TB, path string, keys map[string]string, env catalog.Env) volume.Driver {
	t.Helper()
	env.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	table := map[string]any{"path": path}
	for k, v := range keys {
		table[k] = v
	}
	d, err := Driver().Open(t.Context(), table, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.(io.Closer).Close() })
	return d
}

// of returns what all pools have.
func of(d volume.Driver) *driver {
	if c, ok := d.(*cloning); ok {
		return c.driver
	}
	return d.(*driver)
}

// small opens a pool of volumes of 32 MiB with ext4.
func small(t testing.TB, path string, keys ...string) volume.Driver {
	t.Helper()
	return openPool(t, path, opts(append([]string{"size=32m"}, keys...)...))
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

func create(t testing.TB, d volume.Driver, name string, pairs ...string) {
	t.Helper()
	if err := d.Create(t.Context(), name, opts(pairs...)); err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
}

// mounted mounts a volume somewhere until the end of the test, or until it is called.
func mounted(t testing.TB, d volume.Driver, name string) (at string, unmount func()) {
	t.Helper()
	at = t.TempDir()
	if _, err := d.Mount(t.Context(), name, at); err != nil {
		t.Fatalf("mount %s: %v", name, err)
	}
	done := false
	unmount = func() {
		t.Helper()
		if done {
			return
		}
		done = true
		if err := d.Unmount(t.Context(), name, at); err != nil {
			t.Errorf("unmount %s: %v", name, err)
		}
	}
	t.Cleanup(unmount)
	return at, unmount
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

// tree returns the files of a pool.
func tree(t testing.TB, path string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(path, p); rel != "." && rel != pooldir.MarkerName && rel != "lost+found" {
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t testing.TB, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is %q, %v, want %q", path, got, err, want)
	}
}

func wantErr(t testing.TB, err, class error, text string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v of class %q, want one line of class %q with %q", err, errdefs.Name(err), errdefs.Name(class), text)
	}
}

// noDevices wants that no loop device holds an image of the pool: whoever looked at one
// besides, as udev does, has an instant to let go.
func noDevices(t testing.TB, path string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		left := devices(t, path)
		if len(left) == 0 {
			return
		}
		if time.Since(start) > grace {
			t.Errorf("left attached: %v", left)
			return
		}
	}
}

// devices returns the loop devices that hold images below path.
func devices(t testing.TB, path string) []string {
	t.Helper()
	backed, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, sys := range backed {
		if text, err := os.ReadFile(sys); err == nil && strings.HasPrefix(string(text), path+"/") {
			all = append(all, strings.Split(sys, "/")[3])
		}
	}
	return all
}
