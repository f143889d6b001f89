package volume

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// trashedNames returns what lies in the trash of a fake.
func trashedNames(d *able) (all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.trash {
		all = append(all, t.Name)
	}
	return all
}

func TestReplace(t *testing.T) {
	d := newAble(t.TempDir(), "data", "new")
	kept := ""
	h := newTestHandler(t, d, Options{Trash: true, MayRemove: func(_ context.Context, name string) error {
		if name == kept {
			return errdefs.ErrDenied
		}
		return nil
	}})
	ctx := t.Context()
	for _, name := range []string{"data", "new"} {
		mustMount(t, h, name, id(1))
		mustBe(t, "replace while "+name+" is mounted", h.Replace(ctx, "data", "new"), errdefs.ErrInUse)
		mustUnmount(t, h, name, id(1))
	}
	kept = "data"
	mustBe(t, "replace of what is protected", h.Replace(ctx, "data", "new"), errdefs.ErrDenied)
	kept = ""
	mustBe(t, "replace by itself", h.Replace(ctx, "data", "data"), errdefs.ErrInvalid)
	mustBe(t, "replace by nothing", h.Replace(ctx, "data", "gone"), errdefs.ErrNotFound)
	mustHave(t, h, "data", "new")
	if got := trashedNames(d); len(got) > 0 {
		t.Errorf("in the trash: %q", got)
	}
	if err := h.Replace(ctx, "data", "new"); err != nil {
		t.Fatal(err)
	}
	mustHave(t, h, "data")
	if got := trashedNames(d); !slices.Equal(got, []string{"data"}) {
		t.Errorf("in the trash: %q", got)
	}
	mustBe(t, "replace again", h.Replace(ctx, "data", "new"), errdefs.ErrNotFound)
}

// What a crash leaves between any two steps is finished, and an engine that asks meanwhile
// hears of the volume.
func TestReplaceCutOff(t *testing.T) {
	for step := 1; step <= 3; step++ { // of: aside, the old into the trash, the new under its name
		d := newAble(t.TempDir(), "data", "new")
		before := newTestHandler(t, d, Options{Trash: true})
		n, crashed := 0, errors.New("crash")
		d.before = func(_ context.Context, verb, _ string) error {
			if verb != "trash" && verb != "restore" {
				return nil
			}
			if n++; n >= step {
				return crashed // and so does all that would put it right
			}
			return nil
		}
		if err := before.Replace(t.Context(), "data", "new"); !errors.Is(err, crashed) {
			t.Fatalf("step %d: %v", step, err)
		}
		if step == 3 { // it is in the trash
			if _, err := before.Get(t.Context(), "data"); err != nil {
				t.Errorf("step %d: an engine hears %v", step, err)
			}
		}
		d.before = nil
		h := newTestHandler(t, d, Options{Trash: true})
		if err := h.Replace(t.Context(), "data", "new"); err != nil {
			t.Fatalf("step %d, again: %v", step, err)
		}
		mustHave(t, h, "data")
		if got := trashedNames(d); !slices.Equal(got, []string{"data"}) {
			t.Errorf("step %d: in the trash: %q", step, got)
		}
	}
}

// A listing that is made while a volume is replaced does not make it vanish.
func TestReplaceWhileListed(t *testing.T) {
	d := newAble(t.TempDir(), "data", "new")
	h := newTestHandler(t, d, Options{Trash: true})
	d.before = func(ctx context.Context, verb, name string) error {
		if verb == "restore" && name == "data" {
			if err := h.RefreshNow(ctx); err != nil {
				return err
			}
			if v, err := h.Get(ctx, "data"); err != nil || v.Name != "data" {
				t.Errorf("an engine hears %v, %v", v, err)
			}
		}
		return nil
	}
	if err := h.Replace(t.Context(), "data", "new"); err != nil {
		t.Fatal(err)
	}
	mustHave(t, h, "data")
}

// A volume that is not whole is not used, and where it is removed it is not kept.
func TestNotWhole(t *testing.T) {
	d := newAble(t.TempDir(), "data")
	removed := ""
	h := newTestHandler(t, d, Options{
		Trash: true, CloneOption: "from",
		MayUse: func(_ context.Context, name string) error {
			if name == "data" {
				return errdefs.Errorf(errdefs.ErrInUse, "is being filled")
			}
			return nil
		},
		MakeOption: "backup",
		Make: func(ctx context.Context, name string, opts map[string]string) error {
			return errdefs.Errorf(errdefs.ErrUnavailable, "volume %q: of %s", name, opts["backup"])
		},
		Removed: func(_ context.Context, name string) { removed = name },
	})
	ctx := t.Context()
	_, err := h.Mount(ctx, "data", id(1))
	mustBe(t, "mount", err, errdefs.ErrInUse)
	mustBe(t, "snapshot", h.CreateSnapshot(ctx, "data", "s", nil), errdefs.ErrInUse)
	mustBe(t, "rollback", h.Rollback(ctx, "data", "s"), errdefs.ErrInUse)
	mustBe(t, "clone", h.Clone(ctx, "copy", "data", "", nil), errdefs.ErrInUse)
	mustBe(t, "clone by an option", h.Create(ctx, "copy", map[string]string{"from": "data"}), errdefs.ErrInUse)
	err = h.Create(ctx, "made", map[string]string{"backup": "near/x"})
	if mustBe(t, "make", err, errdefs.ErrUnavailable); err == nil || err.Error() != `volume "made": of near/x` {
		t.Errorf("it says %v", err)
	}
	if err := h.Remove(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	if got := trashedNames(d); len(got) > 0 || removed != "data" {
		t.Errorf("in the trash: %q; told of %q", got, removed)
	}
}

// Somebody has one of the two for a moment, as the end of a lingering mount does: that is waited
// for, and not the end of what took hours to make.
func TestReplaceWaits(t *testing.T) {
	d := newAble(t.TempDir(), "data", "new")
	h := newTestHandler(t, d, Options{Trash: true})
	began, goOn := make(chan struct{}), make(chan struct{})
	d.before = func(_ context.Context, verb, name string) error {
		if verb == "snapshot" && name == "new" {
			close(began)
			<-goOn
		}
		return nil
	}
	made := make(chan error, 1)
	go func() { made <- h.CreateSnapshot(t.Context(), "new", "s", nil) }()
	<-began
	replaced := make(chan error, 1)
	go func() { replaced <- h.Replace(t.Context(), "data", "new") }()
	select {
	case err := <-replaced:
		t.Errorf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if err := errors.Join(<-made, <-replaced); err != nil {
		t.Error(err)
	}
	mustHave(t, h, "data")
}

// A volume that begins to be filled, or has just been, while it is removed is kept as any other.
func TestNotWholeMeanwhile(t *testing.T) {
	for _, partial := range []bool{false, true} {
		d := newAble(t.TempDir(), "data")
		h := newTestHandler(t, d, Options{
			Trash: true,
			MayUse: func(context.Context, string) error {
				if partial {
					return errdefs.Errorf(errdefs.ErrInUse, "is being filled")
				}
				return nil
			},
			MayRemove: func(context.Context, string) error {
				partial = !partial
				return nil
			},
		})
		if err := h.Remove(t.Context(), "data"); err != nil {
			t.Fatal(err)
		}
		if got := trashedNames(d); len(got) != 1 {
			t.Errorf("partial in the end: %t; in the trash: %q", partial, got)
		}
	}
}
