package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A driver that mounts in a place of its own loses the mount behind the Handler's back.
// The bare directory is given to nobody, before a restart and after it.
func TestDriversOwnMountVanishes(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for _, restarted := range []bool{false, true} {
		s := newStage(t)
		dir := s.driver.dir
		mount := func() {
			if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
				t.Fatal(err)
			}
		}
		mount()
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // perhaps it is no mount
		mustMount(t, s.Handler, "a", id(1))
		if restarted {
			s.restart()
		}
		mustMount(t, s.Handler, "a", id(2))
		before := len(s.driver.calls("mount"))
		mustMount(t, s.Handler, "a", id(3))
		if n := len(s.driver.calls("mount")); n != before || n != 1 {
			t.Errorf("the driver mounted %d times what is still there", n)
		}
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		_, err := s.Path(t.Context(), "a")
		mustBe(t, "Path", err, errdefs.ErrUnavailable)
		s.driver.setBefore(func(_ context.Context, verb, _ string) error {
			if verb == "mount" {
				return errdefs.Errorf(errdefs.ErrUnavailable, "disk is away")
			}
			return nil
		})
		_, err = s.Mount(t.Context(), "a", id(4))
		mustBe(t, "Mount", err, errdefs.ErrUnavailable)
		wantCount(t, s.Handler, "a", id(4), 0)
		wantCount(t, s.Handler, "a", id(1), 1)
		mount()
		s.driver.setBefore(nil)
		mustMount(t, s.Handler, "a", id(4))
		if _, err := s.Path(t.Context(), "a"); err != nil {
			t.Errorf("Path of what is mounted again: %v", err)
		}
		for n := range 4 {
			mustUnmount(t, s.Handler, "a", id(n+1))
		}
	}
}

// A ledger by an older version does not say what was mounted: the driver is asked once.
func TestUnknownPlaceIsAskedFor(t *testing.T) {
	s := newStage(t)
	mustMount(t, s.Handler, "a", id(1))
	rec := s.mounts.get("a").clone()
	rec.Place = place{}
	if err := s.mounts.set(rec); err != nil {
		t.Fatal(err)
	}
	s.restart()
	for n := range 3 {
		mustMount(t, s.Handler, "a", id(n+2))
	}
	if n := len(s.driver.calls("mount")); n != 2 {
		t.Errorf("the driver mounted %d times, want twice", n)
	}
	if n := len(s.driver.calls("unmount")); n != 0 {
		t.Errorf("the driver unmounted %d times under others", n)
	}
}

// What was mounted has gone from its place. Whether a container still has it, nobody
// can tell, unless the mountpoint is one that is removed after the unmount alone.
func TestNobodyKnowsWhoHoldsWhatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.driver.dir = filepath.Join(t.TempDir(), "volume")
		if err := os.Mkdir(s.driver.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		mustMount(t, s.Handler, "a", id(1))
		s.restart()
		time.Sleep(time.Hour)
		if err := os.Rename(s.driver.dir, s.driver.dir+".away"); err != nil {
			t.Fatal(err)
		}
		s.Reconcile(t.Context())
		wantCount(t, s.Handler, "a", id(1), 1)
		if err := os.Mkdir(s.driver.dir, 0o700); err != nil { // as below a disk that is away
			t.Fatal(err)
		}
		s.Reconcile(t.Context())
		wantCount(t, s.Handler, "a", id(1), 1)
		mustBe(t, "Remove", s.Remove(t.Context(), "a"), errdefs.ErrInUse)
		if err := os.Remove(s.driver.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(s.driver.dir+".away", s.driver.dir); err != nil {
			t.Fatal(err)
		}
		s.Reconcile(t.Context())
		wantCount(t, s.Handler, "a", id(1), 0)
	})
}

// hangs mounts a file system that does not answer, until its program ends.
func hangs(t *testing.T, dir string) (program *os.File) {
	t.Helper()
	program, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", program.Fd())
	if err := syscall.Mount("none", dir, "fuse.remora", 0, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return program
}

// A file system whose program has ended (fuse(4)) is as good as gone: the driver is asked
// to mount again, and as long as it has not, the volume has no path.
func TestProgramBehindMountHasEnded(t *testing.T) {
	testenv.Require(t, testenv.Root)
	m := newMountpoints(filepath.Join(t.TempDir(), "mounts"), false)
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	dir, err := m.make("a")
	if err != nil {
		t.Fatal(err)
	}
	program := hangs(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if gone, err := m.check(ctx, dir, place{}); gone || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("while it does not answer: gone is %v, %v", gone, err)
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if gone, err := m.check(t.Context(), dir, place{}); !gone || !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("gone is %v, %v", gone, err)
		}
	}
	if again, err := m.make("a"); err != nil || again != dir {
		t.Errorf("the mountpoint is not given to the driver again: %q, %v", again, err)
	}
}

// What is mounted where a file system hung, whose mountpoint has been removed since, is not judged by the look at that, which goes on.
func TestMountAfterOneThatHung(t *testing.T) {
	testenv.Require(t, testenv.Root)
	m := newMountpoints(filepath.Join(t.TempDir(), "mounts"), false)
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	dir, err := m.make("a")
	if err != nil {
		t.Fatal(err)
	}
	hangs(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if gone, err := m.check(ctx, dir, place{}); gone || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("while it does not answer: gone is %v, %v", gone, err)
	}
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := m.remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := m.make("a"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if gone, err := m.check(t.Context(), dir, place{}); gone || err != nil {
		t.Errorf("what answers: gone is %v, %v", gone, err)
	}
}

// Whether a container has a volume is asked of the mount tables alone: a file system that answers no more would keep the volume's lock
// for ever, and with it the unmount that brings it back.
func TestHeldAsksNoFileSystem(t *testing.T) {
	testenv.Require(t, testenv.Root)
	h, _, _ := newMounting(t, heldByProcess)
	dir, err := h.mountpoints.make("a")
	if err != nil {
		t.Fatal(err)
	}
	program := hangs(t, dir)
	told := make(chan bool, 1)
	go func() {
		held, _ := h.held(t.Context(), &mounted{record: record{Volume: "a", Mountpoint: dir}})
		told <- held
	}()
	select {
	case held := <-told:
		if held {
			t.Error("nobody has it")
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for the file system")
		_ = program.Close()
		<-told
	}
}

// looking is a driver that knows more of its mounts than the kernel.
type looking struct {
	*bindDriver
	look func(ctx context.Context) error
}

func (l *looking) Look(ctx context.Context, _, _ string) error { return l.look(ctx) }

// TestDriverThatKnowsItsMounts: a server that is gone is noticed although the file system answers.
func TestDriverThatKnowsItsMounts(t *testing.T) {
	_, d, o := newMounting(t, nil)
	o.Ledger = ""
	l := &looking{d, func(context.Context) error { return errors.New("connection refused") }}
	h := newTestHandler(t, l, o)
	p := mustMount(t, h, "a", id(1)) // the driver has just mounted it, and is not asked
	for what, f := range map[string]func() error{
		"mount": func() error { _, err := h.Mount(t.Context(), "a", id(2)); return err },
		"path":  func() error { _, err := h.Path(t.Context(), "a"); return err },
	} {
		l.look = func(context.Context) error { return errors.New("connection refused") }
		if err := f(); !errors.Is(err, errdefs.ErrUnavailable) || !strings.HasSuffix(err.Error(), p+`": connection refused`) {
			t.Errorf("%s: %v", what, err)
		}
		l.look = func(context.Context) error { panic("no") }
		if err := f(); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("%s where the driver panics: %v", what, err)
		}
		l.look = func(context.Context) error { return nil }
		if err := f(); err != nil {
			t.Errorf("%s where all is well: %v", what, err)
		}
	}
	wantCount(t, h, "a", id(1), 1)
	mustUnmount(t, h, "a", id(1))
	mustUnmount(t, h, "a", id(2))
	wantMount(t, p, false)
}
