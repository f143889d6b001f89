package csi

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pair makes two volumes that are mounted, with a text in each.
func (h *host) pair(t *testing.T, d *driver) {
	t.Helper()
	for _, name := range []string{"a", "b"} {
		must(t, d.Create(t.Context(), name, map[string]string{"size": "32m"}))
		h.mount(t, d, name)
		h.put(t, name, name+" before")
	}
}

func (h *host) put(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(h.mnt(name), "f"), []byte(text), 0o600))
}

func (h *host) has(t *testing.T, d *driver, name, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(h.mount(t, d, name), "f")); string(got) != want {
		t.Errorf("%s has %q, want %q (%v)", name, got, want, err)
	}
	must(t, d.Unmount(t.Context(), name, h.mnt(name)))
}

// Snapshots of several volumes are one call. Each is one like any other: it is cloned, rolled back to and removed; what is
// at the storage goes with the last.
func TestSnapshotsOfOneMoment(t *testing.T) {
	for name, ready := range map[string]int{"at_once": 0, "later": 3} {
		t.Run(name, func(t *testing.T) {
			o := csitest.All()
			o.ReadyAfter = ready
			h := newHost(t, o)
			d := h.open(t)
			ctx := t.Context()
			h.pair(t, d)
			must(t, d.CreateSnapshots(ctx, []string{"b", "a"}, "s", map[string]string{"k": "v"}))
			wantClass(t, d.CreateSnapshots(ctx, []string{"a", "b"}, "s", nil), errdefs.ErrExists, `volume "a": there is a snapshot of this name`)
			wantClass(t, d.CreateSnapshot(ctx, "b", "s", nil), errdefs.ErrExists, "there is a snapshot of this name")
			if calls := h.mock.Calls(); calls[callGroup] != 1 || calls[callSnapshot] != 0 {
				t.Errorf("calls: %v", calls)
			}
			h.put(t, "a", "a after")
			h.put(t, "b", "b after")
			must(t, errors.Join(d.Unmount(ctx, "a", h.mnt("a")), d.Unmount(ctx, "b", h.mnt("b")), d.Close()))

			d = h.open(t)
			for _, name := range []string{"a", "b"} {
				all, err := d.Snapshots(ctx, name)
				if err != nil || len(all) != 1 || all[0].Name != "s" || all[0].Labels["k"] != "v" {
					t.Errorf("snapshots of %s: %+v, %v", name, all, err)
				}
			}
			must(t, d.Clone(ctx, "c", "a", "s", nil))
			h.has(t, d, "c", "a before")
			must(t, d.Rollback(ctx, "b", "s"))
			h.has(t, d, "b", "b before")
			h.has(t, d, "a", "a after")
			must(t, errors.Join(d.Remove(ctx, "c"), d.RemoveSnapshot(ctx, "a", "s")))
			wantClass(t, d.RemoveSnapshot(ctx, "a", "s"), errdefs.ErrNotFound, "no such snapshot")
			if n := len(h.mock.Snapshots()); n != 2 {
				t.Errorf("%d snapshots at the storage, which deletes them together", n)
			}
			must(t, d.RemoveSnapshot(ctx, "b", "s"))
			if calls := h.mock.Calls(); calls[callUngroup] != 1 || calls[callUnsnapshot] != 0 || len(h.mock.Snapshots()) != 0 {
				t.Errorf("calls: %v, left %q", calls, h.mock.Left())
			}
			must(t, errors.Join(d.Remove(ctx, "a"), d.Remove(ctx, "b")))
			h.nothingLeft(t)
		})
	}
}

// Where the storage cannot, that is said, and nothing is there or written down.
func TestSnapshotsNotOfOneMoment(t *testing.T) {
	o := csitest.All()
	o.Group = false
	h := newHost(t, o)
	d := h.open(t)
	h.pair(t, d)
	wantClass(t, d.CreateSnapshots(t.Context(), []string{"a", "b"}, "s", nil), errdefs.ErrUnsupported, "makes no snapshots of several volumes at once")

	h = newHost(t, csitest.All())
	d = h.open(t)
	h.pair(t, d)
	h.mock.Faults.Set(callGroup, csitest.Before, csitest.Code(codes.FailedPrecondition), 1)
	wantClass(t, d.CreateSnapshots(t.Context(), []string{"a", "b"}, "s", nil), errdefs.ErrUnsupported, "it cannot be done as things are")
	wantClass(t, d.CreateSnapshots(t.Context(), []string{"a", "x"}, "s", nil), errdefs.ErrNotFound, `volume "x": no such volume`)
	h.mock.Faults.Set(callGroup, csitest.Before, csitest.Code(codes.ResourceExhausted), 1)
	wantClass(t, d.CreateSnapshots(t.Context(), []string{"a", "b"}, "s", nil), errdefs.ErrUnavailable, "there is no room for it")
	if all, _ := d.Snapshots(t.Context(), "a"); len(all) != 0 || len(h.mock.Snapshots()) != 0 {
		t.Errorf("snapshots %+v, left %q", all, h.mock.Left())
	}
	must(t, d.CreateSnapshots(t.Context(), []string{"a", "b"}, "s", nil))
	for _, name := range []string{"a", "b"} {
		must(t, errors.Join(d.Unmount(t.Context(), name, h.mnt(name)), d.Remove(t.Context(), name)))
	}
	h.nothingLeft(t)
}

// What a process before this one was making is not shown, and goes: whoever wants the name, or the volume away, waits for
// that.
func TestSnapshotsCutOff(t *testing.T) {
	for name, then := range map[string]func(t *testing.T, d *driver) error{
		"again": func(t *testing.T, d *driver) error {
			return d.CreateSnapshots(t.Context(), []string{"a", "b"}, "s", nil)
		},
		"one":       func(t *testing.T, d *driver) error { return d.CreateSnapshot(t.Context(), "b", "s", nil) },
		"remove":    func(t *testing.T, d *driver) error { return d.Remove(t.Context(), "b") },
		"afterward": func(*testing.T, *driver) error { return nil },
	} {
		for _, when := range []csitest.When{csitest.Before, csitest.After} {
			t.Run(name+"-"+string(when), func(t *testing.T) {
				h := newHost(t, csitest.All(), func(c *config) { c.Timeouts = map[string]string{callGroup: "10s"} })
				d := h.open(t)
				h.pair(t, d)
				must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Unmount(t.Context(), "b", h.mnt("b"))))
				h.mock.Faults.Set(callGroup, when, csitest.Hang, 1)
				done := make(chan error, 1)
				go func() { done <- d.CreateSnapshots(t.Context(), []string{"a", "b"}, "s", nil) }()
				once(t, "the call is there", func() bool { return len(h.mock.Faults.Left()) == 0 })
				if all, _ := d.Snapshots(t.Context(), "a"); len(all) != 0 {
					t.Errorf("shown while they are made: %+v", all)
				}
				wantClass(t, d.RemoveSnapshot(t.Context(), "a", "s"), errdefs.ErrNotFound, "no such snapshot")
				d.stop() // as a process that ends
				_ = d.Close()
				<-done

				d = h.open(t)
				must(t, then(t, d))
				once(t, "what was cut off is gone", func() bool { return len(d.store.halves("")) == 0 })
				want := map[string]int{"again": 2, "one": 1}[name]
				once(t, "nothing else is at the storage", func() bool { return len(h.mock.Snapshots()) == want })
				for _, v := range []string{"a", "b"} {
					if err := d.Remove(t.Context(), v); !errors.Is(err, errdefs.ErrNotFound) {
						must(t, err)
					}
				}
				h.nothingLeft(t)
			})
		}
	}
}

// A storage that keeps a volume for its snapshots is not rid of those that go with others alone.
func TestRemoveOfOneOfAGroup(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	h.pair(t, d)
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Unmount(t.Context(), "b", h.mnt("b"))))
	must(t, d.CreateSnapshots(t.Context(), []string{"a", "b"}, "s", nil))
	h.mock.Faults.Set(callDelete, csitest.Before, csitest.Code(codes.FailedPrecondition), 1)
	err := d.Remove(t.Context(), "a")
	wantClass(t, err, errdefs.ErrInUse, "still in use")
	if hints := errdefs.Hints(err); !slices.Contains(hints, "its snapshots were made together with others, and go with the last of them: remove those first, b@s") {
		t.Errorf("hints %q", hints)
	}
	if all, _ := d.Snapshots(t.Context(), "a"); len(all) != 1 {
		t.Errorf("snapshots of a volume that stays: %+v", all)
	}
	must(t, errors.Join(d.RemoveSnapshot(t.Context(), "b", "s"), d.Remove(t.Context(), "a"), d.Remove(t.Context(), "b")))
	h.nothingLeft(t)
}
