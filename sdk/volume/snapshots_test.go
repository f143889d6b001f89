package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// more are the verbs beyond the five, each for the volume "a".
func more(ctx context.Context, h *Handler) map[string]func() error {
	return map[string]func() error{
		"usage":     func() error { _, err := h.Usage(ctx, "a"); return err },
		"resize":    func() error { return h.Resize(ctx, "a", 1) },
		"snapshot":  func() error { return h.CreateSnapshot(ctx, "a", "s", nil) },
		"snapshots": func() error { _, err := h.Snapshots(ctx, "a"); return err },
		"remove":    func() error { return h.RemoveSnapshot(ctx, "a", "s") },
		"rollback":  func() error { return h.Rollback(ctx, "a", "s") },
		"read":      func() error { return h.ReadSnapshot(ctx, "a", "s", nil) },
		"clone":     func() error { return h.Clone(ctx, "a", "b", "", nil) },
		"restore":   func() error { return h.Restore(ctx, "1", "a") },
	}
}

// A driver that cannot do something is never asked, and the error says for which volume.
func TestMoreThanTheDriverCan(t *testing.T) {
	d := newFake(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{Trash: true})
	before := len(d.calls(""))
	for name, call := range more(t.Context(), h) {
		err := call()
		mustBe(t, name, err, errdefs.ErrUnsupported)
		if err != nil && !strings.HasPrefix(err.Error(), `volume "a": the driver cannot `) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.Trashed(t.Context())
	mustBe(t, "trashed", err, errdefs.ErrUnsupported)
	mustBe(t, "purge", h.Purge(t.Context(), "1"), errdefs.ErrUnsupported)
	_, err = h.Space(t.Context())
	mustBe(t, "space", err, errdefs.ErrUnsupported)
	_, err = h.Survey(t.Context())
	mustBe(t, "survey", err, errdefs.ErrUnsupported)
	if after := d.calls(""); len(after) != before {
		t.Errorf("the driver was asked: %q", after[before:])
	}
	if Can[Snapshotter](h) || Can[Trasher](h) {
		t.Error("it can")
	}
	if err := h.Remove(t.Context(), "a"); err != nil || d.has("a") {
		t.Errorf("Remove with a trash and without a Trasher: %v", err)
	}
}

// What a survey told before it failed is not lost, and its error shows no secret.
func TestSurvey(t *testing.T) {
	d := newAble(t.TempDir(), "a", "b")
	h := newTestHandler(t, d, Options{})
	if err := h.CreateSnapshot(t.Context(), "b", "s", nil); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []error{nil, errdefs.Errorf(errdefs.ErrUnavailable, "lost: password=geheim")} {
		d.setBefore(func(context.Context, string, string) error { return fault })
		all, err := h.Survey(t.Context())
		if len(all) != 2 || all["a"].Usage.Used != 7 || *all["a"].Snapshots != 0 || *all["b"].Snapshots != 1 {
			t.Errorf("it tells %+v", all)
		}
		if (fault == nil) != (err == nil) {
			t.Fatalf("error %v, want %v", err, fault)
		}
		if err != nil && (!errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "lost") || strings.Contains(err.Error(), "geheim")) {
			t.Errorf("error %v, want that of the driver without its secret", err)
		}
	}
}

func TestSnapshots(t *testing.T) {
	d := newAble(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{})
	ctx := t.Context()
	labels := map[string]string{"why": "test"}
	if err := h.CreateSnapshot(ctx, "a", "s1", labels); err != nil {
		t.Fatal(err)
	}
	err := h.CreateSnapshot(ctx, "a", "s1", nil)
	mustBe(t, "again", err, errdefs.ErrExists)
	if err == nil || err.Error() != `volume "a": snapshot "s1": there is one of this name` {
		t.Errorf("it says %v", err)
	}
	all, err := h.Snapshots(ctx, "a")
	if err != nil || len(all) != 1 || all[0].Name != "s1" || all[0].Labels["why"] != "test" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := h.RemoveSnapshot(ctx, "a", "s1"); err != nil {
		t.Error(err)
	}
	mustBe(t, "removed again", h.RemoveSnapshot(ctx, "a", "s1"), errdefs.ErrNotFound)
	mustBe(t, "of nothing", h.CreateSnapshot(ctx, "b", "s1", nil), errdefs.ErrNotFound)
	if u, err := h.Usage(ctx, "a"); err != nil || u.Used != 7 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if err := h.Resize(ctx, "a", 42); err != nil || d.limits["a"] != 42 {
		t.Errorf("resized to %d: %v", d.limits["a"], err)
	}
	if s, err := h.Space(ctx); err != nil || s.Free != 3 {
		t.Errorf("space %+v, %v", s, err)
	}
}

// What is no name, and no size, comes to no driver.
func TestNamesOfMore(t *testing.T) {
	d := newAble(t.TempDir(), "a", "b")
	h := newTestHandler(t, d, Options{CloneOption: "from"})
	ctx := t.Context()
	before := len(d.calls(""))
	read := func(context.Context, string) error { t.Error("it was read"); return nil }
	for _, bad := range []string{"", ".", "../x", "a/b", ".hidden", "x y", strings.Repeat("x", 256)} {
		for what, err := range map[string]error{
			"snapshot":         h.CreateSnapshot(ctx, "a", bad, nil),
			"snapshot of":      h.CreateSnapshot(ctx, bad, "s", nil),
			"remove":           h.RemoveSnapshot(ctx, "a", bad),
			"rollback":         h.Rollback(ctx, "a", bad),
			"read":             h.ReadSnapshot(ctx, "a", bad, read),
			"read of":          h.ReadSnapshot(ctx, bad, "s", read),
			"clone of":         h.Clone(ctx, "c", bad, "", nil),
			"clone as":         h.Clone(ctx, bad, "a", "", nil),
			"restore as":       h.Restore(ctx, "1", bad),
			"resize of":        h.Resize(ctx, bad, 1),
			"create from":      h.Create(ctx, "c", map[string]string{"from": bad}),
			"create from snap": h.Create(ctx, "c", map[string]string{"from": "a@" + bad}),
			"destroy":          h.Destroy(ctx, bad),
		} {
			mustBe(t, what+" "+bad, err, errdefs.ErrInvalid)
		}
		_, err := h.Snapshots(ctx, bad)
		mustBe(t, "snapshots", err, errdefs.ErrInvalid)
		_, err = h.Usage(ctx, bad)
		mustBe(t, "usage", err, errdefs.ErrInvalid)
	}
	for _, size := range []int64{0, -1} {
		mustBe(t, "resize", h.Resize(ctx, "a", size), errdefs.ErrInvalid)
	}
	mustBe(t, "clone of itself", h.Clone(ctx, "a", "a", "", nil), errdefs.ErrInvalid)
	for _, call := range d.calls("")[before:] {
		t.Errorf("the driver was asked: %q", call)
	}
}

func TestRollbackOfWhatIsMounted(t *testing.T) {
	d := newAble(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{Linger: time.Hour})
	ctx := t.Context()
	if err := h.CreateSnapshot(ctx, "a", "s", nil); err != nil {
		t.Fatal(err)
	}
	mustMount(t, h, "a", id(1))
	mustBe(t, "rollback", h.Rollback(ctx, "a", "s"), errdefs.ErrInUse)
	if got := d.calls("rollback"); len(got) > 0 {
		t.Errorf("the driver was asked: %q", got)
	}
	mustUnmount(t, h, "a", id(1)) // and lingers
	if err := h.Rollback(ctx, "a", "s"); err != nil {
		t.Error(err)
	}
	if got := d.calls("un"); !slices.Equal(got, []string{"unmount a"}) {
		t.Errorf("before it was rolled back: %q", got)
	}
}

// Calls for one volume wait for each other, those for another do not.
func TestMoreWaitsForItsVolume(t *testing.T) {
	for _, verb := range []string{"snapshot", "resize", "rollback", "clone"} {
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newAble(t.TempDir(), "a", "b", "c")
				h := newTestHandler(t, d, Options{})
				ctx := t.Context()
				if err := h.CreateSnapshot(ctx, "a", "s", nil); err != nil {
					t.Fatal(err)
				}
				gate := make(chan struct{})
				d.setBefore(func(_ context.Context, called, name string) error {
					if called == verb && strings.HasPrefix(name, "a") {
						<-gate
					}
					return nil
				})
				done := make(chan error, 1)
				go func() { done <- more(ctx, h)[verb]() }()
				synctest.Wait()
				removed := make(chan error, 1)
				go func() { removed <- h.Remove(ctx, "a") }()
				if err := h.Remove(ctx, "c"); err != nil {
					t.Errorf("another volume: %v", err)
				}
				synctest.Wait()
				if got := d.calls("remove a"); len(got) > 0 {
					t.Error("removed meanwhile")
				}
				close(gate)
				<-done
				if err := <-removed; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestSecretsOfMore(t *testing.T) {
	d := newAble(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{CloneOption: "from"})
	opts := map[string]string{"token": "hunter22", "bad": "hunter22"}
	for what, err := range map[string]error{
		"clone":  h.Clone(t.Context(), "b", "a", "", opts),
		"create": h.Create(t.Context(), "b", map[string]string{"from": "a", "token": "hunter22", "bad": "hunter22"}),
	} {
		mustBe(t, what, err, errdefs.ErrInvalid)
		if err != nil && strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s tells the secret: %v", what, err)
		}
	}
	d.setBefore(func(context.Context, string, string) error {
		return errors.New("mount -o password=hunter22: exit status 32")
	})
	_, trashErr := h.Trashed(t.Context())
	_, spaceErr := h.Space(t.Context())
	for name, err := range map[string]error{"trashed": trashErr, "space": spaceErr, "purge": h.Purge(t.Context(), "1")} {
		if err == nil || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s tells the secret: %v", name, err)
		}
	}
	for name, call := range more(t.Context(), h) {
		if err := call(); err == nil || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s tells the secret: %v", name, err)
		}
	}
}

func TestReadSnapshot(t *testing.T) {
	root := t.TempDir()
	d := newAble(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{MountRoot: root})
	ctx := t.Context()
	if err := h.CreateSnapshot(ctx, "a", "s", nil); err != nil {
		t.Fatal(err)
	}
	wrong := errors.New("cannot read on")
	err := h.ReadSnapshot(ctx, "a", "s", func(ctx context.Context, dir string) error {
		if !strings.HasPrefix(dir, root+"/.snapshots/a/s/") || d.open() != 1 {
			t.Errorf("opened %d, at %s", d.open(), dir)
		}
		// Another may read it as well, and the volume is not held meanwhile.
		return errors.Join(wrong, h.ReadSnapshot(ctx, "a", "s", func(_ context.Context, other string) error {
			if other == dir || d.open() != 2 {
				t.Errorf("opened %d, at %s both", d.open(), dir)
			}
			return h.Resize(ctx, "a", 3)
		}))
	})
	if !errors.Is(err, wrong) || err.Error() != wrong.Error() {
		t.Errorf("it says %v", err)
	}
	mustBe(t, "read of nothing", h.ReadSnapshot(ctx, "a", "none", nil), errdefs.ErrNotFound)
	if left, _ := filepath.Glob(root + "/.snapshots/*"); d.open() > 0 || len(left) > 0 {
		t.Errorf("%d are open still, left are %q", d.open(), left)
	}
}

// A caller who hangs up while a snapshot is opened leaves none open.
func TestReadSnapshotHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newAble(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{})
		if err := h.CreateSnapshot(t.Context(), "a", "s", nil); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		d.setBefore(func(_ context.Context, verb, _ string) error {
			if verb == "open" {
				<-gate
			}
			return nil
		})
		ctx, hangUp := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- h.ReadSnapshot(ctx, "a", "s", func(context.Context, string) error { t.Error("it was read"); return nil })
		}()
		synctest.Wait()
		hangUp()
		mustBe(t, "read", <-done, context.Canceled)
		close(gate)
		synctest.Wait()
		if d.open() > 0 || len(d.calls("close")) != 1 {
			t.Errorf("%d open, %q", d.open(), d.calls("close"))
		}
	})
}

// What a crash left of a snapshot that was read is taken away at the next start.
func TestReadSnapshotCrash(t *testing.T) {
	root := t.TempDir()
	target := root + "/.snapshots/a/s/KCRASH"
	if err := os.MkdirAll(target, 0o700); err != nil {
		t.Fatal(err)
	}
	newTestHandler(t, newAble(t.TempDir(), "a"), Options{MountRoot: root})
	if _, err := os.Stat(root + "/.snapshots/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// So is one that is mounted still, by the driver, which is told what it was.
func TestReadSnapshotCrashMounted(t *testing.T) {
	testenv.Require(t, testenv.Root)
	root := t.TempDir()
	target := root + "/.snapshots/a/s/KCRASH"
	if err := os.MkdirAll(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", target, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
	d := newAble(t.TempDir(), "a")
	newTestHandler(t, d, Options{MountRoot: root})
	if got := d.calls("close"); !slices.Equal(got, []string{"close a@s"}) {
		t.Errorf("called %q", got)
	}
	if _, err := os.Stat(root + "/.snapshots/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
