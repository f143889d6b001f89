package csi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// lingering is a host whose CSI driver attaches nothing, and whose volumes, which are directories, count as those of a
// network file system.
func lingering(t *testing.T, change func(*csitest.Options), detach time.Duration) *host {
	t.Helper()
	o := csitest.All()
	o.Attach = false
	if change != nil {
		change(&o)
	}
	h := newHost(t, o, func(c *config) { c.Detach = detach })
	m, err := topmost(onMount(h.dir))
	must(t, err)
	h.lasting = []string{m.FSType}
	return h
}

// onMount is the mountpoint that a path lies on.
func onMount(path string) string {
	for ; path != "/"; path = filepath.Dir(path) {
		if m, err := topmost(path); m != nil && err == nil {
			return path
		}
	}
	return path
}

// Within the time of detach_after a volume that is not attached stays mounted below, and is up again without a call.
func TestStageLingers(t *testing.T) {
	for name, change := range map[string]func(*csitest.Options){"staged": nil, "published_alone": func(o *csitest.Options) { o.Stage = false }} {
		t.Run(name, func(t *testing.T) {
			h := lingering(t, change, time.Hour)
			d := h.open(t)
			must(t, d.Create(t.Context(), "a", nil))
			h.mount(t, d, "a")
			h.put(t, "a", "first")
			must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
			calls := len(h.mock.Log())
			h.has(t, d, "a", "first")
			must(t, d.Close())
			d = h.open(t) // as after a crash: what is mounted is known
			_, err := d.conn.Facts(t.Context())
			must(t, err)
			h.has(t, d, "a", "first")
			for _, c := range h.mock.Log()[calls:] {
				if changes(c.RPC) {
					t.Errorf("%s was called", c.RPC)
				}
			}
			must(t, d.Remove(t.Context(), "a"))
			h.nothingLeft(t)
		})
	}
}

// After that time it goes down; without any at once.
func TestStageLingersNoLonger(t *testing.T) {
	for name, detach := range map[string]time.Duration{"a_while": 30 * time.Millisecond, "none": 0} {
		t.Run(name, func(t *testing.T) {
			h := lingering(t, nil, detach)
			d := h.open(t)
			must(t, d.Create(t.Context(), "a", nil))
			h.mount(t, d, "a")
			must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
			if n := h.mock.Calls()[callUnstage]; detach == 0 && n != 1 {
				t.Errorf("unstaged %d times", n)
			}
			once(t, "it is unstaged", func() bool { return h.mock.Calls()[callUnstage] == 1 })
			v, _ := d.store.find("a")
			once(t, "that is known", func() bool { _, n := d.store.see(v); return n.idle() })
			must(t, d.Remove(t.Context(), "a"))
			h.nothingLeft(t)
		})
	}
}

// A whole life goes the same way where nothing is ever down but for a reason.
func TestLifeThatLingers(t *testing.T) {
	lingering(t, nil, time.Hour).goOn(t, 0)
}

// A disk, and what a FUSE program serves, goes down with the last unmount.
func TestStageOfADiskDoesNotLinger(t *testing.T) {
	h := lingering(t, nil, time.Hour)
	h.lasting = nil
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	h.mount(t, d, "a")
	must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
	if calls := h.mock.Calls(); calls[callUnpublish] != 1 || calls[callUnstage] != 1 {
		t.Errorf("calls: %v", calls)
	}
	must(t, d.Remove(t.Context(), "a"))
	h.nothingLeft(t)
}

// What lingers is in nobody's way: it goes down first where it has to, and comes up after a reboot.
func TestWorkWhileTheStageLingers(t *testing.T) {
	for name, change := range map[string]func(*csitest.Options){"all": nil, "offline": func(o *csitest.Options) { o.ExpandOnline = false }} {
		t.Run(name, func(t *testing.T) {
			h := lingering(t, change, time.Hour)
			d := h.open(t)
			ctx := t.Context()
			must(t, d.Create(ctx, "a", map[string]string{"size": "32m"}))
			h.mount(t, d, "a")
			h.put(t, "a", "first")
			down := func() { must(t, d.Unmount(ctx, "a", h.mnt("a"))) }
			down()
			must(t, d.CreateSnapshot(ctx, "a", "s", nil))
			must(t, d.Resize(ctx, "a", 64<<20))
			h.mount(t, d, "a")
			h.put(t, "a", "second")
			down()
			must(t, d.Clone(ctx, "b", "a", "", nil))
			h.has(t, d, "b", "second")
			must(t, d.Rollback(ctx, "a", "s"))
			h.has(t, d, "a", "first")
			must(t, d.Trash(ctx, "a"))
			trashed, err := d.Trashed(ctx)
			must(t, err)
			if all, err := os.ReadDir(filepath.Join(h.dir, "run/csi/pool/nodes")); err != nil || len(all) != 1 { // that of b
				t.Errorf("%d volumes on this host (%v)", len(all), err)
			}
			must(t, d.Restore(ctx, trashed[0].ID, "a"))
			h.has(t, d, "a", "first")

			must(t, d.Close())
			h.mock.Reboot()
			must(t, os.RemoveAll(filepath.Join(h.dir, "run/csi/pool/nodes")))
			d = h.open(t)
			h.has(t, d, "a", "first")
			h.has(t, d, "b", "second")
			for _, name := range []string{"a", "b"} {
				if err := d.Remove(ctx, name); !errors.Is(err, errdefs.ErrNotFound) {
					must(t, err)
				}
			}
			h.nothingLeft(t)
		})
	}
}
