package volumetest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/leaktest"
	"github.com/remora-plugins/remora/sdk/volume"
)

// bare is a driver without anything in front of it. Its methods end the test where the
// driver fails.
type bare struct {
	volume.Driver
	t      *testing.T
	config Config
	root   string
}

func newBare(t *testing.T, c Config) *bare {
	t.Helper()
	b := &bare{t: t, config: c, root: t.TempDir()}
	// Before the temporary directory goes, whatever a failed case left mounted in it.
	t.Cleanup(func() { unmountBelow(t, b.root) })
	b.Driver = c.New(t)
	return b
}

// reopen puts another driver on the same storage, where the configuration can.
func (b *bare) reopen() {
	b.t.Helper()
	if b.config.Reopen == nil {
		b.t.Skip("deviates: Config.Reopen is not set, the storage cannot be opened anew")
	}
	b.Driver = b.config.Reopen(b.t, b.Driver)
}

// options returns a copy of the options that are valid.
func (b *bare) options() map[string]string { return clone(b.config.Options) }

func clone(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// target returns the directory that is made for a volume's mount.
func (b *bare) target(name string) string {
	b.t.Helper()
	p := filepath.Join(b.root, name)
	if err := os.Mkdir(p, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		b.t.Fatal(err)
	}
	return p
}

func (b *bare) create(name string) {
	b.t.Helper()
	if err := b.Create(b.t.Context(), name, b.options()); err != nil {
		b.t.Fatalf("Create(%q): %v", name, err)
	}
}

func (b *bare) mount(name string) string {
	b.t.Helper()
	p, err := b.Mount(b.t.Context(), name, b.target(name))
	if err != nil {
		b.t.Fatalf("Mount(%q): %v", name, err)
	}
	mustBeDirectory(b.t, p)
	return p
}

func (b *bare) unmount(name, mountpoint string) {
	b.t.Helper()
	if err := b.Unmount(b.t.Context(), name, mountpoint); err != nil {
		b.t.Fatalf("Unmount(%q, %q): %v", name, mountpoint, err)
	}
}

func (b *bare) remove(name string) {
	b.t.Helper()
	if err := b.Remove(b.t.Context(), name); err != nil {
		b.t.Fatalf("Remove(%q): %v", name, err)
	}
}

// names returns the names of all volumes, in order.
func (b *bare) names() []string {
	b.t.Helper()
	names := []string{}
	for info, err := range b.Volumes(b.t.Context()) {
		if err != nil {
			b.t.Fatalf("Volumes: %v", err)
		}
		names = append(names, info.Name)
	}
	slices.Sort(names)
	return names
}

func (b *bare) mustHave(want ...string) {
	b.t.Helper()
	slices.Sort(want)
	if got := b.names(); !slices.Equal(got, want) {
		b.t.Errorf("Volumes: %q, want %q", got, want)
	}
}

// mustBeClass fails unless err has the class.
func mustBeClass(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: error %v of class %q, want one of class %q", what, err, errdefs.Name(err), errdefs.Name(class))
	}
}

func mustBeDirectory(t *testing.T, p string) {
	t.Helper()
	if !filepath.IsAbs(p) {
		t.Fatalf("mountpoint %q is not absolute", p)
	}
	if fi, err := os.Stat(p); err != nil || !fi.IsDir() {
		t.Fatalf("mountpoint %q is not a directory: %v", p, err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatalf("write into the volume: %v", err)
	}
}

func mustRead(t *testing.T, dir, name, want string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Errorf("the data is not there: %v", err)
	} else if string(b) != want {
		t.Errorf("%s holds %q, want %q", name, b, want)
	}
}

// isMount tells whether something is mounted at p.
func isMount(t *testing.T, p string) bool {
	t.Helper()
	return slices.Contains(leaktest.MountsBelow(t, filepath.Dir(p)), p)
}

// vanish takes away what is mounted at p without a word to anybody. It tells whether there
// was something.
func vanish(t *testing.T, p string) bool {
	t.Helper()
	there := isMount(t, p)
	for isMount(t, p) {
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil {
			t.Fatalf("unmount %s: %v", p, err)
		}
	}
	return there
}

// unmountBelow takes away the mounts that a failed case left below dir, the deepest first.
func unmountBelow(t *testing.T, dir string) {
	points := leaktest.MountsBelow(t, dir)
	slices.Sort(points)
	for _, p := range slices.Backward(points) {
		t.Errorf("left mounted: %s", p)
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", p, err)
		}
	}
}

// mountID is the n-th mount ID as an engine makes them.
func mountID(n int) string { return fmt.Sprintf("%064x", n+1) }
