package csi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (h *host) mount(t *testing.T, d *driver, name string) string {
	t.Helper()
	at, err := d.Mount(t.Context(), name, h.mnt(name))
	if err != nil {
		t.Fatalf("Mount of %s: %v", name, err)
	}
	return at
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantClass(t *testing.T, err, class error, text string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(errdefs.OneLine(err.Error()), text) {
		t.Errorf("%v; want %v with %q", err, class, text)
	}
}

// once waits until something is so.
func once(t *testing.T, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("never: %s", what)
		}
	}
}

func (h *host) record(t *testing.T, d *driver, name string) record {
	t.Helper()
	v, err := d.get(name)
	must(t, err)
	r, _ := d.store.see(v)
	return r
}

// A name that the storage has with another size, as another host made it, is not taken for the one that is meant.
func TestAnySize(t *testing.T) {
	o := csitest.All()
	o.Lies.AnySize = true
	h := newHost(t, o)
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m"}))
	v, _ := d.store.find("a")
	must(t, d.store.drop(v)) // as on another host
	wantClass(t, d.Create(t.Context(), "a", map[string]string{"size": "64m"}), errdefs.ErrExists, "the storage has a volume of this name with 32m")
	must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m"}))
	if n := len(h.mock.Volumes()); n != 1 {
		t.Errorf("%d volumes", n)
	}
	wantClass(t, d.Create(t.Context(), "a", map[string]string{"size": "64m"}), errdefs.ErrExists, "whose size is 32m, not 64m")
	wantClass(t, d.Create(t.Context(), "a", map[string]string{"fs": "xfs"}), errdefs.ErrExists, "whose fs is none, not xfs")
	must(t, d.Create(t.Context(), "a", nil))
}

// What lies where a volume is to be mounted is not hidden, and not deleted.
func TestTargetWithFiles(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	dir, staging, target := d.pathsOf(h.record(t, d, "a"))
	for _, path := range []string{staging, target} {
		must(t, os.MkdirAll(path, 0o700))
		must(t, os.WriteFile(filepath.Join(path, "precious"), nil, 0o600))
		_, err := d.Mount(t.Context(), "a", h.mnt("a"))
		wantClass(t, err, errdefs.ErrInUse, path+" is not a mount, and not empty")
		if _, err := os.Stat(filepath.Join(path, "precious")); err != nil {
			t.Error(err)
		}
		must(t, os.Remove(filepath.Join(path, "precious")))
	}
	h.mount(t, d, "a")
	must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
	must(t, d.Remove(t.Context(), "a"))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", dir, err)
	}
}

// What is mounted in a volume, and not by us, keeps it attached.
func TestNoDetachUnderAMount(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	h.mount(t, d, "a")
	r := h.record(t, d, "a")
	_, _, target := d.pathsOf(r)
	inside := filepath.Join(target, "inside")
	must(t, os.Mkdir(inside, 0o700))
	must(t, mount.Mount("test", inside, "tmpfs", 0, ""))
	defer func() { _ = mount.Unmount(inside) }()
	if err := d.Unmount(t.Context(), "a", h.mnt("a")); err == nil {
		t.Error("unmounted")
	}
	if err := d.Remove(t.Context(), "a"); err == nil {
		t.Error("removed")
	}
	if at := h.mock.Attached(r.ID); len(at) != 1 {
		t.Errorf("attached to %q", at)
	}
	if n := h.mock.Calls()[callUnstage] + h.mock.Calls()[callDetach]; n != 0 {
		t.Errorf("%d calls below a mount", n)
	}
	must(t, mount.Unmount(inside))
	must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
	must(t, d.Remove(t.Context(), "a"))
	h.nothingLeft(t)
}

// Codes that may be over soon are tried again, and others are not.
func TestRetries(t *testing.T) {
	for _, tt := range []struct {
		rpc   string
		code  codes.Code
		times int // it is refused
		want  int // it is called
		ok    bool
	}{
		{callAttach, codes.Aborted, 6, 7, true},
		{callAttach, codes.Unavailable, 5, 6, true},
		{callAttach, codes.Internal, 2, 3, true},
		{callAttach, codes.Internal, 100, 4, false},
		{callAttach, codes.ResourceExhausted, 3, 4, true},
		{callAttach, codes.InvalidArgument, 1, 1, false},
		{callPublish, codes.PermissionDenied, 1, 1, false},
		{callPublish, codes.Unknown, 1, 2, true},
	} {
		t.Run(tt.rpc+"-"+tt.code.String(), func(t *testing.T) {
			h := newHost(t, csitest.All())
			d := h.open(t)
			must(t, d.Create(t.Context(), "a", nil))
			h.mock.Faults.Set(tt.rpc, csitest.Before, csitest.Code(tt.code), tt.times)
			_, err := d.Mount(t.Context(), "a", h.mnt("a"))
			if (err == nil) != tt.ok {
				t.Errorf("Mount: %v", err)
			}
			if n := h.mock.Calls()[tt.rpc]; n != tt.want {
				t.Errorf("called %d times, want %d", n, tt.want)
			}
			h.mock.Faults.Clear()
			must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
			h.nothingLeft(t)
		})
	}
}

// Work that takes longer than the call goes on, and the second call takes part in it.
func TestLongWork(t *testing.T) {
	o := csitest.All()
	o.Latency = map[string]time.Duration{callCreate: 800 * time.Millisecond, callStage: 800 * time.Millisecond}
	h := newHost(t, o)
	d := h.open(t)
	short := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(t.Context(), 300*time.Millisecond)
	}
	ctx, cancel := short()
	defer cancel()
	wantClass(t, d.Create(ctx, "a", nil), errdefs.ErrUnavailable, "create, making the volume for 0s, and going on")
	if jobs := d.Jobs(); len(jobs) != 1 || jobs[0].Kind != jobCreate {
		t.Errorf("jobs: %+v", jobs)
	}
	must(t, d.Create(t.Context(), "a", nil))
	ctx, cancel = short()
	defer cancel()
	_, err := d.Mount(ctx, "a", h.mnt("a"))
	wantClass(t, err, errdefs.ErrUnavailable, "staging for 0s, and going on")
	h.mount(t, d, "a")
	for _, rpc := range []string{callCreate, callAttach, callStage, callPublish} {
		if n := h.mock.Calls()[rpc]; n != 1 {
			t.Errorf("%s was called %d times", rpc, n)
		}
	}
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
	h.nothingLeft(t)
}

// A mount that nobody comes back for goes down again.
func TestMountThatNobodyWaitedFor(t *testing.T) {
	o := csitest.All()
	o.Latency = map[string]time.Duration{callPublish: 500 * time.Millisecond}
	h := newHost(t, o)
	d := h.open(t)
	d.pace.away = 300 * time.Millisecond
	must(t, d.Create(t.Context(), "a", nil))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Mount(ctx, "a", h.mnt("a")); err == nil {
		t.Fatal("Mount did not wait")
	}
	once(t, "the volume is detached", func() bool {
		return h.mock.Calls()[callDetach] == 1 && len(h.mock.Attached(h.record(t, d, "a").ID)) == 0
	})
	must(t, d.Remove(t.Context(), "a"))
	h.nothingLeft(t)
}

// Within the time of detach_after a volume is not attached again.
func TestLinger(t *testing.T) {
	h := newHost(t, csitest.All(), func(c *config) { c.Detach = time.Hour })
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	for range 3 {
		h.mount(t, d, "a")
		must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
	}
	calls := h.mock.Calls()
	if calls[callAttach] != 1 || calls[callDetach] != 0 || calls[callStage] != 3 || calls[callUnstage] != 3 {
		t.Errorf("calls: %v", calls)
	}
	must(t, d.Remove(t.Context(), "a"))
	h.nothingLeft(t)
}

// A host takes so many volumes and no more. Those that only linger make room at once.
func TestMaxVolumes(t *testing.T) {
	o := csitest.All()
	o.MaxVolumes = 1
	h := newHost(t, o, func(c *config) { c.Detach = time.Hour })
	d := h.open(t)
	for _, name := range []string{"a", "b"} {
		must(t, d.Create(t.Context(), name, nil))
	}
	h.mount(t, d, "a")
	_, err := d.Mount(t.Context(), "b", h.mnt("b"))
	wantClass(t, err, errdefs.ErrUnavailable, "1 volumes are attached to this host")
	must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
	h.mount(t, d, "b")
	must(t, d.Unmount(t.Context(), "b", h.mnt("b")))
	must(t, errors.Join(d.Remove(t.Context(), "a"), d.Remove(t.Context(), "b")))
	h.nothingLeft(t)
}

// A volume that was detached behind our back is attached again.
func TestAttachmentThatHasGone(t *testing.T) {
	h := newHost(t, csitest.All(), func(c *config) { c.Detach = time.Hour })
	h.mock.Options.MayViolate = true // to stage what is not attached is one
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	h.mount(t, d, "a")
	must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
	h.mock.Return(h.record(t, d, "a").ID, "node-1")
	h.mount(t, d, "a")
	if n := h.mock.Calls()[callAttach]; n != 2 {
		t.Errorf("attached %d times", n)
	}
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
}

// Where the CSI driver is slow, or has another way, there is no difference.
func TestSlowCopies(t *testing.T) {
	for name, change := range map[string]func(*csitest.Options){
		"no group": func(o *csitest.Options) { o.MountGroup, o.MultiWriter = false, false },
		"slow":     func(o *csitest.Options) { o.ReadyAfter, o.PendingAfter = 4, 3 },
		"no clone": func(o *csitest.Options) { o.Clones = false },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			o := csitest.All()
			change(&o)
			newHost(t, o).goOn(t, 0)
		})
	}
}

// What the CSI driver cannot do is said, and nothing is begun.
func TestUnsupported(t *testing.T) {
	h := newHost(t, csitest.Options{})
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	before := len(h.mock.Log())
	wantClass(t, d.CreateSnapshot(t.Context(), "a", "s", nil), errdefs.ErrUnsupported, "makes no snapshots")
	wantClass(t, d.Clone(t.Context(), "b", "a", "", nil), errdefs.ErrUnsupported, "neither clones nor snapshots")
	wantClass(t, d.Resize(t.Context(), "a", 1<<30), errdefs.ErrUnsupported, "cannot change the size")
	wantClass(t, d.Attach(t.Context(), "a", true), errdefs.ErrUnsupported, "attaches nothing")
	wantClass(t, d.Create(t.Context(), "c", map[string]string{"zone": "a"}), errdefs.ErrUnsupported, "has no zones")
	wantClass(t, d.Create(t.Context(), "c", map[string]string{"access": "rw-one-container"}), errdefs.ErrUnsupported, "knows no access")
	if after := len(h.mock.Log()); after != before {
		t.Errorf("calls: %v", h.mock.Log()[before:])
	}
	must(t, d.Remove(t.Context(), "a"))
	h.nothingLeft(t)
}
