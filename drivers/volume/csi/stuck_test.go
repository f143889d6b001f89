package csi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A volume that its CSI driver cannot unstage, as one that has lost track of what serves it, can be had again as it stands;
// and the error says what a person can do. What is sure to be no answer of the driver's changes nothing.
func TestUnstageThatFails(t *testing.T) {
	for name, code := range map[string]codes.Code{"inside": codes.Internal, "refused": codes.FailedPrecondition} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, csitest.All())
			d := h.open(t)
			must(t, d.Create(t.Context(), "a", nil))
			h.mount(t, d, "a")
			h.put(t, "a", "kept")
			v, _ := d.store.find("a")
			seen := func() node { _, n := d.store.see(v); return n }
			staging := filepath.Join(seen().Dir, "s")
			h.mock.Faults.Set(callUnstage, csitest.Before, csitest.Code(code), 1000)
			for range 2 {
				err := d.Unmount(t.Context(), "a", h.mnt("a"))
				if hints := errdefs.Hints(err); err == nil || !slices.ContainsFunc(hints, func(hint string) bool { return strings.HasSuffix(hint, "umount "+staging) }) {
					t.Errorf("Unmount: %v, hints %q", err, hints)
				}
				if n := seen(); n.Doing != callUnstage || n.Phase != phaseStaged {
					t.Errorf("what is remembered: %+v", n)
				}
				if got, err := os.ReadFile(filepath.Join(h.mount(t, d, "a"), "f")); string(got) != "kept" {
					t.Errorf("it has %q (%v)", got, err)
				}
			}
			must(t, d.Close())
			d = h.open(t)
			h.mount(t, d, "a")
			h.mock.Faults.Clear()
			must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
			must(t, d.Remove(t.Context(), "a"))
			h.nothingLeft(t)
		})
	}
}

// What is not there, or dead, is not staged again: there the way is down.
func TestUnstageThatFailsOfNothing(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	h.mount(t, d, "a")
	v, _ := d.store.find("a")
	_, n := d.store.see(v)
	h.mock.Faults.Set(callUnstage, csitest.Before, csitest.Code(codes.Internal), 1000)
	if err := d.Unmount(t.Context(), "a", h.mnt("a")); err == nil {
		t.Fatal("no error")
	}
	must(t, unix.Unmount(filepath.Join(n.Dir, "s"), 0)) // as the hint has it
	stages := h.mock.Calls()[callStage]
	if _, err := d.Mount(t.Context(), "a", h.mnt("a")); err == nil {
		t.Error("Mount: no error")
	}
	if more := h.mock.Calls()[callStage]; more != stages {
		t.Errorf("staged %d times more", more-stages)
	}
	h.mock.Faults.Clear()
	h.mount(t, d, "a")
	must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
	must(t, d.Remove(t.Context(), "a"))
	h.nothingLeft(t)
}

// A dead mount that the CSI driver cannot take away is taken away, and the driver asked again. What is alive is not touched.
func TestUnstageOfTheDeadThatFails(t *testing.T) {
	testenv.Require(t, testenv.Sshfs)
	o := csitest.All()
	o.FUSE = true
	h := newHost(t, o)
	var mu sync.Mutex
	var staging string
	var seen []bool // whether it was mounted, with each call
	h.mock.OnCall(func(rpc string, when csitest.When) {
		if rpc != callUnstage || when != csitest.Before {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		m, err := topmost(staging)
		seen = append(seen, m != nil && err == nil)
	})
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	at := h.mount(t, d, "a")
	h.put(t, "a", "kept")
	v, _ := d.store.find("a")
	_, n := d.store.see(v)
	mu.Lock()
	staging = filepath.Join(n.Dir, "s")
	mu.Unlock()
	h.mock.Faults.Set(callUnstage, csitest.Before, csitest.Code(codes.Internal), quick.unsure+1)
	if !h.mock.KillFUSE(h.record(t, d, "a").ID) {
		t.Fatal("nothing to kill")
	}
	must(t, d.Unmount(t.Context(), "a", at))
	mu.Lock()
	if len(seen) != quick.unsure+2 || !seen[quick.unsure] || seen[quick.unsure+1] {
		t.Errorf("mounted with the calls: %v", seen)
	}
	mu.Unlock()
	h.has(t, d, "a", "kept")
	must(t, d.Remove(t.Context(), "a"))
	h.nothingLeft(t)
}

// A CSI driver that stages a volume with the size that it was made with is told with each mount how large it is by now.
func TestGrowthThatIsForgotten(t *testing.T) {
	o := csitest.All()
	o.Lies.ForgetsGrowth = true
	for name, want := range map[string]int64{"forgets-growth": 64 << 20, "-forgets-growth": 32 << 20} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, o, func(c *config) { c.Quirks = []string{name} })
			d := h.open(t)
			must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m"}))
			h.mount(t, d, "a")
			if n := h.mock.Calls()[callGrowNode]; n != 0 {
				t.Errorf("%d calls of one that has not grown", n)
			}
			must(t, d.Resize(t.Context(), "a", 64<<20))
			for range 2 {
				must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
				h.mock.Faults.Set(callGrowNode, csitest.Before, csitest.Code(codes.Internal), quick.unsure+1)
				h.mount(t, d, "a") // and is not kept from it
				must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
				h.mock.Faults.Clear()
				h.mount(t, d, "a")
				if has := h.mock.Volumes()[0].NodeSize; has != want {
					t.Errorf("mounted with %d, want %d", has, want)
				}
			}
			if r := h.record(t, d, "a"); r.GrowNode || r.Grow != 0 || r.Capacity != 64<<20 {
				t.Errorf("in the end: %+v", r)
			}
			must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
			must(t, d.Remove(t.Context(), "a"))
			h.nothingLeft(t)
		})
	}
}
