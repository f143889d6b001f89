package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// bindDriver mounts the directory of each volume on its target.
type bindDriver struct {
	data string
	lie  bool // says that it has mounted, and has not
	busy error
}

func (d *bindDriver) Create(_ context.Context, name string, _ map[string]string) error {
	return os.MkdirAll(filepath.Join(d.data, name), 0o700)
}

func (d *bindDriver) Remove(_ context.Context, name string) error {
	return os.RemoveAll(filepath.Join(d.data, name))
}

func (d *bindDriver) Mount(_ context.Context, name, target string) (string, error) {
	if d.lie {
		return target, nil
	}
	if mounted, err := isMount(target); err != nil || mounted {
		return target, err
	}
	err := syscall.Mount(filepath.Join(d.data, name), target, "", syscall.MS_BIND, "")
	if errors.Is(err, os.ErrNotExist) {
		err = errdefs.As(errdefs.ErrNotFound, err)
	}
	return target, err
}

func (d *bindDriver) Unmount(_ context.Context, _, mountpoint string) error {
	if mounted, err := isMount(mountpoint); err != nil || !mounted {
		return err
	}
	return errors.Join(d.busy, syscall.Unmount(mountpoint, 0))
}

func (d *bindDriver) Volumes(context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		entries, err := os.ReadDir(d.data)
		if err != nil {
			yield(Info{}, err)
			return
		}
		for _, e := range entries {
			if !yield(Info{Name: e.Name()}, nil) {
				return
			}
		}
	}
}

// newMounting makes a Handler that really mounts. o has what a second one on the same
// directories needs.
func newMounting(t *testing.T, held func(context.Context, string) (bool, bool)) (*Handler, *bindDriver, Options) {
	t.Helper()
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	d := &bindDriver{data: filepath.Join(dir, "data")}
	if err := os.Mkdir(d.data, 0o700); err != nil {
		t.Fatal(err)
	}
	o := Options{MountRoot: filepath.Join(dir, "mnt"), Ledger: filepath.Join(dir, "ledger"), Held: held, MountGrace: time.Nanosecond}
	t.Cleanup(func() {
		entries, _ := os.ReadDir(o.MountRoot)
		for _, e := range entries {
			_ = syscall.Unmount(filepath.Join(o.MountRoot, e.Name()), syscall.MNT_DETACH) // perhaps it is no mount
		}
	})
	h := newTestHandler(t, d, o)
	for _, name := range []string{"a", "b"} {
		if err := h.Create(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	return h, d, o
}

func wantMount(t *testing.T, p string, want bool) {
	t.Helper()
	if got, err := isMount(p); err != nil || got != want {
		t.Errorf("%s is a mount: %t, %v, want %t", p, got, err, want)
	}
}

func put(t *testing.T, p, text string) {
	t.Helper()
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMountpointIsMadeAndRemoved(t *testing.T) {
	h, d, o := newMounting(t, nil)
	p := mustMount(t, h, "a", id(1))
	if p != filepath.Join(o.MountRoot, "a") {
		t.Errorf("mounted at %q", p)
	}
	wantMount(t, p, true)
	put(t, filepath.Join(p, "f"), "x")
	if _, err := os.Stat(filepath.Join(d.data, "a", "f")); err != nil {
		t.Error(err)
	}
	mustUnmount(t, h, "a", id(1))
	if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mountpoint is still there: %v", err)
	}
}

func TestDriverThatHasNotMounted(t *testing.T) {
	h, d, o := newMounting(t, nil)
	d.lie = true
	_, err := h.Mount(t.Context(), "a", id(1))
	mustBe(t, "Mount", err, errdefs.ErrUnavailable)
	wantCount(t, h, "a", id(1), 0)
	if _, err := os.Lstat(filepath.Join(o.MountRoot, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mountpoint is still there: %v", err)
	}
}

func TestMountThatVanishedIsMadeAgain(t *testing.T) {
	h, _, _ := newMounting(t, nil)
	p := mustMount(t, h, "a", id(1))
	put(t, filepath.Join(p, "f"), "x")
	if err := syscall.Unmount(p, 0); err != nil {
		t.Fatal(err)
	}
	_, err := h.Path(t.Context(), "a")
	mustBe(t, "Path", err, errdefs.ErrUnavailable)
	if _, err := h.Get(t.Context(), "a"); err != nil {
		t.Errorf("Get: %v", err)
	}
	if got := mustMount(t, h, "a", id(2)); got != p {
		t.Errorf("mounted again at %q", got)
	}
	wantMount(t, p, true)
	if _, err := os.Stat(filepath.Join(p, "f")); err != nil {
		t.Error(err)
	}
	mustUnmount(t, h, "a", id(1))
	wantMount(t, p, true)
	mustUnmount(t, h, "a", id(2))
	wantMount(t, p, false)
}

// A container wrote below the mountpoint while nothing was mounted there. Nobody deletes
// that, and nobody mounts over it.
func TestDataBelowAMountpointSurvives(t *testing.T) {
	h, d, o := newMounting(t, nil)
	p := mustMount(t, h, "a", id(1))
	if err := syscall.Unmount(p, 0); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(p, "stray")
	put(t, stray, "precious")
	err := h.Unmount(t.Context(), "a", id(1))
	if err == nil || !strings.Contains(err.Error(), p) {
		t.Errorf("Unmount: %v", err)
	}
	_, err = h.Mount(t.Context(), "a", id(2))
	if err == nil || !strings.Contains(err.Error(), "not empty") || len(errdefs.Hints(err)) == 0 {
		t.Errorf("Mount over what was written there: %v, hints %q", err, errdefs.Hints(err))
	}
	h.Reconcile(t.Context())
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h = newTestHandler(t, d, o)
	h.Reconcile(t.Context())
	if b, err := os.ReadFile(stray); err != nil || string(b) != "precious" {
		t.Errorf("what was written there: %q, %v", b, err)
	}
	// Moved away, all is well again.
	if err := os.Rename(stray, filepath.Join(d.data, "stray")); err != nil {
		t.Fatal(err)
	}
	mustMount(t, h, "a", id(2))
	wantMount(t, p, true)
	mustUnmount(t, h, "a", id(2))
}

func TestRestsOfACrash(t *testing.T) {
	h, d, o := newMounting(t, nil)
	kept := mustMount(t, h, "a", id(1))
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Killed between the mount and the word in the ledger, between the word and the
	// mountpoint, and before the mount.
	orphan := filepath.Join(o.MountRoot, "b")
	empty := filepath.Join(o.MountRoot, "c")
	full := filepath.Join(o.MountRoot, "d")
	for _, p := range []string{orphan, empty, full} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(full, "f"), "precious")
	put(t, filepath.Join(o.MountRoot, "file"), "x")
	if err := syscall.Mount(filepath.Join(d.data, "b"), orphan, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(d.data, "b", "f"), "x")
	h = newTestHandler(t, d, o)
	wantMount(t, kept, true)
	wantCount(t, h, "a", id(1), 1)
	wantMount(t, orphan, false)
	for _, p := range []string{orphan, empty} {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", p, err)
		}
	}
	for _, p := range []string{filepath.Join(full, "f"), filepath.Join(o.MountRoot, "file"), filepath.Join(d.data, "b", "f")} {
		if _, err := os.Stat(p); err != nil {
			t.Errorf("data that is nobody's rest has gone: %v", err)
		}
	}
	mustUnmount(t, h, "a", id(1))
	wantMount(t, kept, false)
}

func TestUnmountThatFailsIsTriedAgain(t *testing.T) {
	h, d, _ := newMounting(t, nil)
	p := mustMount(t, h, "a", id(1))
	f, err := os.Create(filepath.Join(p, "open"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Unmount(t.Context(), "a", id(1)); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Unmount of what is in use: %v", err)
	}
	mustBe(t, "Remove", h.Remove(t.Context(), "a"), syscall.EBUSY)
	if _, err := os.Stat(filepath.Join(d.data, "a", "open")); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	h.Reconcile(t.Context())
	wantMount(t, p, false)
}

func TestMountRoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "file"), "x")
	for _, root := range []string{"relative", filepath.Join(dir, "link", "x"), filepath.Join(dir, "file"), filepath.Join(dir, "file", "x")} {
		if h, err := NewHandler(t.Context(), newFake(""), Options{MountRoot: root}); err == nil {
			t.Errorf("mount root %q is taken: %v", root, h.Close(t.Context()))
		}
	}
	m := newMountpoints(dir, false)
	for _, name := range []string{"..", ".", "", "a/b", "../x"} {
		if p, err := m.make(name); err == nil {
			t.Errorf("name %q makes mountpoint %q", name, p)
		}
	}
	// A directory of somebody else is never removed.
	other := t.TempDir()
	if err := m.remove(other); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// holder is a process in a mount namespace of its own that has source mounted at target.
func holder(t *testing.T, source, target string) (end func()) {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Netns)
	return hold(t, exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `mount --bind "$1" "$2" && echo ready && read x`, "sh", source, target))
}

// container is a holder that has a root of its own as well.
func container(t *testing.T, source, target string) (end func()) {
	t.Helper()
	c := child(t, "container", t.TempDir(), source, target)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	return hold(t, c)
}

// containerChild makes of its own mount namespace what a container has, and stays until
// its input ends.
func containerChild(root, source, target string) error {
	if err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""),
		syscall.Mount("none", root, "tmpfs", 0, ""),
		os.MkdirAll(root+target, 0o700),
		syscall.Mount(source, root+target, "", syscall.MS_BIND, ""),
		os.Mkdir(root+"/old", 0o700),
		syscall.PivotRoot(root, root+"/old"),
		os.Chdir("/"),
		syscall.Unmount("/old", syscall.MNT_DETACH),
	); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// hold starts a holder.
func hold(t *testing.T, c *exec.Cmd) (end func()) {
	t.Helper()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("no mount in the other namespace: %q, %v", line, err)
	}
	return func() {
		_ = in.Close()
		_ = c.Wait() // "read" fails at the end of its input
	}
}

func wantHeld(t *testing.T, p string, want bool) {
	t.Helper()
	if held, known := heldByProcess(t.Context(), p); held != want || !known {
		t.Errorf("%s is held: %t, known %t, want %t", p, held, known, want)
	}
}

func TestHeldByProcess(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns)
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initialPIDNamespace {
		t.Skipf("needs host: runs in the PID namespace %s", ns)
	}
	h, d, _ := newMounting(t, heldByProcess)
	elsewhere := t.TempDir()
	p := mustMount(t, h, "a", id(1))
	plain := filepath.Join(d.data, "b") // a directory of a driver that mounts nothing
	if err := os.MkdirAll(filepath.Join(p, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, plain, false)
	for _, source := range []string{p, filepath.Join(p, "sub")} {
		// The other namespace has a copy of the mount itself, too, which holds nothing.
		end := holder(t, source, elsewhere)
		wantHeld(t, p, true)
		wantHeld(t, plain, false)
		h.Activated(t.Context())
		h.Reconcile(t.Context())
		wantCount(t, h, "a", id(1), 1)
		end()
	}
	end := holder(t, plain, elsewhere)
	wantHeld(t, plain, true)
	end()
	wantHeld(t, plain, false)
	// The host sees what a managed plugin mounts at another place, where it has the directory
	// that the plugin mounts below.
	end = hold(t, exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `mount --rbind "$1" "$2" && echo ready && read x`, "sh", filepath.Dir(p), elsewhere))
	wantHeld(t, p, false)
	end()
	// Of another place nothing is held.
	end = holder(t, t.TempDir(), elsewhere)
	wantHeld(t, plain, false)
	end()
	if held, known := heldByProcess(t.Context(), filepath.Join(plain, "not", "there")); held || known {
		t.Errorf("what is not there is held: %t, known %t", held, known)
	}
	// A container has a root of its own. There a mount at the same place is no copy, and
	// one below it neither.
	for _, target := range []string{plain, filepath.Join(plain, "sub")} {
		end = container(t, plain, target)
		wantHeld(t, plain, true)
		wantHeld(t, p, false)
		end()
		wantHeld(t, plain, false)
		end = container(t, p, target)
		wantHeld(t, p, true)
		end()
	}
	end = container(t, p, p)
	wantHeld(t, p, true)
	end()
	wantHeld(t, p, false)
}

// A container that is alive holds its volume through the death of engine and plugin; when
// it dies as well, the volume is unmounted.
func TestHeldAcrossRestart(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns)
	h, d, o := newMounting(t, heldByProcess)
	p := mustMount(t, h, "a", id(1))
	end := holder(t, p, t.TempDir())
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h = newTestHandler(t, d, o)
	h.Activated(t.Context())
	h.Reconcile(t.Context())
	wantCount(t, h, "a", id(1), 1)
	wantMount(t, p, true)
	end()
	h.Reconcile(t.Context())
	if ns, _ := os.Readlink("/proc/self/ns/pid"); ns == initialPIDNamespace {
		wantCount(t, h, "a", id(1), 0)
		wantMount(t, p, false)
	}
}

// A file system that answers no more costs one thread, however often it is asked for.
func TestLooksDoNotPileUp(t *testing.T) {
	x := &looks{pending: map[string]*look{}}
	stuck := &look{done: make(chan struct{})}
	x.pending["/stuck"] = stuck
	for range 3 {
		if got := x.at("/stuck"); got != stuck {
			t.Error("a second look at what does not answer")
		}
	}
	l := x.at(t.TempDir())
	<-l.done
	if l.err != nil || len(x.pending) != 1 {
		t.Errorf("look: %v, pending %d", l.err, len(x.pending))
	}
	gone := x.at(fmt.Sprintf("%s/x", t.TempDir()))
	<-gone.done
	if !errors.Is(gone.err, os.ErrNotExist) {
		t.Errorf("look at what is not there: %v", gone.err)
	}
}
