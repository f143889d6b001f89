package usage

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree makes a tree with what is easily counted wrong: a hole, a second name, links.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	deep := filepath.Join(dir, "a/b/c")
	hole, err := os.Create(filepath.Join(dir, "hole"))
	for _, err := range []error{
		err,
		os.MkdirAll(deep, 0o755),
		hole.Truncate(1 << 30),
		hole.Close(),
		os.WriteFile(filepath.Join(deep, "file"), make([]byte, 100_000), 0o600),
		os.Link(filepath.Join(deep, "file"), filepath.Join(dir, "second")),
		os.Symlink("/usr", filepath.Join(dir, "link")),
		os.Symlink(dir, filepath.Join(deep, "loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2*batch + 1 {
		if err := os.WriteFile(filepath.Join(deep, strconv.Itoa(i)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The figure is that of du(1).
func TestCount(t *testing.T) {
	dir := tree(t)
	out, err := exec.Command("du", "-s", "-x", "--block-size=1", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := strings.Cut(string(out), "\t")
	var files int64
	got, err := Count(t.Context(), dir, func(n int64) { files = n })
	if err != nil || strconv.FormatInt(got, 10) != want {
		t.Errorf("counted %d bytes, %v; du counts %s", got, err, want)
	}
	if want := int64(2*batch + 1 + 8); files != want { // 3 directories, hole, file, second, 2 links
		t.Errorf("counted %d files, want %d", files, want)
	}
}

func TestCountErrors(t *testing.T) {
	if _, err := Count(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a directory that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Count(ctx, tree(t), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
}

func newCache(t *testing.T) *Cache {
	c := NewCache(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	t.Cleanup(func() { c.Close(context.WithoutCancel(t.Context())) })
	return c
}

// get waits until a volume has been counted.
func get(t *testing.T, c *Cache, name, id, dir string) (used int64, at time.Time) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) { // files have no clock to fake
		var err error
		if used, at, err = c.Get(name, id, dir); err == nil {
			return used, at
		}
	}
	t.Fatal("not counted")
	return 0, at
}

func TestCache(t *testing.T) {
	dir := tree(t)
	c := newCache(t)
	if _, _, err := c.Get("v", "1", dir); !errors.Is(err, ErrNotYet) {
		t.Error("it was waited for")
	}
	want, err := Count(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	used, at := get(t, c, "v", "1", dir)
	if used != want {
		t.Errorf("%d bytes, want %d", used, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, when, _ := c.Get("v", "1", dir); again != used || !when.Equal(at) {
		t.Errorf("counted again: %d at %s", again, when)
	}
	// When the figure is old it is shown once more, and counted meanwhile.
	c.mu.Lock()
	c.figures["v"].tried = time.Now().Add(-age)
	c.mu.Unlock()
	if again, when, _ := c.Get("v", "1", dir); again != used || !when.Equal(at) {
		t.Errorf("the old figure is %d at %s", again, when)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if again, _, _ := c.Get("v", "1", dir); again >= used+1<<20 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("not counted again: %d", again)
		}
	}
	// Another volume of the name is another volume.
	if _, at, _ := c.Get("v", "2", dir); !at.IsZero() {
		t.Error("taken for the one before")
	}
	c.Put("v", "2", dir, 42)
	if used, at, err := c.Get("v", "2", dir); used != 42 || at.IsZero() || err != nil {
		t.Errorf("put 42, got %d at %s", used, at)
	}
}

// What cannot be counted is not tried again at once, and keeps no other from it.
func TestCacheErrors(t *testing.T) {
	dir := t.TempDir()
	c := newCache(t)
	c.Get("gone", "1", filepath.Join(dir, "none"))
	get(t, c, "there", "1", dir)
	if _, at, _ := c.Get("gone", "1", filepath.Join(dir, "none")); !at.IsZero() {
		t.Error("counted what is not there")
	}
	if _, _, err := c.Get("gone", "1", filepath.Join(dir, "none")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("it says %v", err)
	}
	c.mu.Lock()
	queued := c.figures["gone"].queued
	c.mu.Unlock()
	if queued {
		t.Error("tried again at once")
	}
	c.Close(t.Context())
	if _, at, _ := c.Get("new", "1", dir); !at.IsZero() || c.working {
		t.Error("counted by a closed cache")
	}
}

// What is mounted is left alone, so that it can be unmounted.
func TestCacheMount(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	if err := mount.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mount.Unmount(dir) })
	c := newCache(t)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		_, _, err := c.Get("v", "1", dir)
		if errors.Is(err, errdefs.ErrUnsupported) {
			break
		}
		if !errors.Is(err, ErrNotYet) || time.Now().After(end) {
			t.Fatalf("it says %v", err)
		}
	}
}

// A container puts a pipe in the place of a directory that was just seen: nobody writes to it, and to
// open it for reading would never end.
func TestCountPipeInPlaceOfDirectory(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	swapped := false
	done := make(chan error, 1)
	go func() {
		_, err := Count(t.Context(), dir, func(int64) {
			if !swapped {
				swapped = true
				_, _ = os.Remove(sub), syscall.Mkfifo(sub, 0o600)
			}
		})
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil || !swapped {
			t.Errorf("Count = %v, swapped %t", err, swapped)
		}
	case <-time.After(10 * time.Second):
		w, err := os.OpenFile(sub, os.O_WRONLY, 0) // lets it end
		t.Errorf("waits for a pipe (%v)", err)
		_ = w.Close()
		<-done
	}
}
