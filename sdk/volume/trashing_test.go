package volume

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func names(t *testing.T, h *Handler) []string {
	t.Helper()
	all := []string{}
	for v, err := range h.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v.Name)
	}
	return all
}

func mustHave(t *testing.T, h *Handler, want ...string) {
	t.Helper()
	if got := names(t, h); !slices.Equal(got, want) {
		t.Errorf("in memory are %q, want %q", got, want)
	}
}

func TestTrash(t *testing.T) {
	d := newAble(t.TempDir(), "a", "b")
	h := newTestHandler(t, d, Options{Trash: true})
	ctx := t.Context()
	mustMount(t, h, "a", id(1))
	mustBe(t, "remove of what is mounted", h.Remove(ctx, "a"), errdefs.ErrInUse)
	mustUnmount(t, h, "a", id(1))
	if err := h.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	mustBe(t, "remove again", h.Remove(ctx, "a"), errdefs.ErrNotFound)
	mustHave(t, h, "b")
	if got := d.calls("remove"); len(got) > 0 {
		t.Errorf("destroyed: %q", got)
	}
	all, err := h.Trashed(ctx)
	if err != nil || len(all) != 1 || all[0].Name != "a" {
		t.Fatalf("in the trash: %+v, %v", all, err)
	}

	// No listing is needed to see what came back.
	before := len(d.calls("volumes"))
	if err := h.Restore(ctx, all[0].ID, "c"); err != nil {
		t.Fatal(err)
	}
	mustHave(t, h, "b", "c")
	if after := d.calls("volumes"); len(after) != before {
		t.Error("the volumes were listed for it")
	}
	err = h.Restore(ctx, all[0].ID, "d")
	mustBe(t, "restore again", err, errdefs.ErrNotFound)
	if err == nil || err.Error() != `volume "d": "1" in the trash: no such volume in the trash` {
		t.Errorf("it says %v", err)
	}
	if err := h.Remove(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	mustBe(t, "restore onto another", h.Restore(ctx, "2", "b"), errdefs.ErrExists)
	if err := h.Purge(ctx, "2"); err != nil {
		t.Fatal(err)
	}
	mustBe(t, "restore of what is purged", h.Restore(ctx, "2", "c"), errdefs.ErrNotFound)
}

func TestNoTrash(t *testing.T) {
	d := newAble(t.TempDir(), "a", "b")
	h := newTestHandler(t, d, Options{})
	if err := h.Remove(t.Context(), "a"); err != nil || len(d.trash) > 0 {
		t.Errorf("removed into %+v: %v", d.trash, err)
	}
	h = newTestHandler(t, d, Options{Trash: true})
	if err := h.Destroy(t.Context(), "b"); err != nil || len(d.trash) > 0 {
		t.Errorf("destroyed into %+v: %v", d.trash, err)
	}
	mustHave(t, h)
}

// A purge whose caller has gone goes on to its end, and asked for again waits for that.
func TestLostPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newAble(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{Trash: true})
		if err := h.Remove(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		d.setBefore(func(_ context.Context, verb, _ string) error {
			if verb == "purge" {
				<-gate
			}
			return nil
		})
		ctx, hangUp := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- h.Purge(ctx, "1") }()
		synctest.Wait()
		hangUp()
		mustBe(t, "purge", <-done, context.Canceled)
		mustBe(t, "restore meanwhile", h.Restore(t.Context(), "1", "a"), errdefs.ErrInUse)
		go func() { done <- h.Purge(t.Context(), "1") }()
		synctest.Wait()
		close(gate)
		mustBe(t, "purge again", <-done, errdefs.ErrNotFound)
		if got := d.calls("purge"); len(got) != 2 {
			t.Errorf("called %q", got)
		}
	})
}

func TestMayRemove(t *testing.T) {
	for _, trash := range []bool{true, false} {
		d := newAble(t.TempDir(), "a", "b")
		h := newTestHandler(t, d, Options{Trash: trash, MayRemove: func(_ context.Context, name string) error {
			if name == "a" {
				return errdefs.Errorf(errdefs.ErrDenied, "it is dear to somebody")
			}
			return nil
		}})
		for what, remove := range map[string]func(context.Context, string) error{"remove": h.Remove, "destroy": h.Destroy} {
			err := remove(t.Context(), "a")
			mustBe(t, what, err, errdefs.ErrDenied)
			if err == nil || err.Error() != `volume "a": it is dear to somebody` {
				t.Errorf("%s says %v", what, err)
			}
		}
		if w := post(t, h, "Remove", []byte(`{"Name":"a"}`)); w.Code == 200 {
			t.Errorf("an engine may: %s", w.Body)
		}
		if err := h.Remove(t.Context(), "b"); err != nil {
			t.Error(err)
		}
		mustHave(t, h, "a")
	}
}

func TestClone(t *testing.T) {
	d := newAble(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{CloneOption: "from"})
	ctx := t.Context()
	if err := h.Clone(ctx, "b", "a", "s", nil); err != nil {
		t.Fatal(err)
	}
	mustHave(t, h, "a", "b")
	err := h.Clone(ctx, "b", "a", "", nil)
	mustBe(t, "clone again", err, errdefs.ErrExists)
	if err == nil || err.Error() != `volume "b": clone of "a": there is one of this name` {
		t.Errorf("it says %v", err)
	}
	mustBe(t, "clone of nothing", h.Clone(ctx, "c", "none", "", nil), errdefs.ErrNotFound)
	mustHave(t, h, "a", "b")
}

// Create with the option clones, and to do so again adopts, as an engine repeats what it was
// not answered.
func TestCreateFrom(t *testing.T) {
	d := newAble(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{CloneOption: "from"})
	ctx := t.Context()
	opts := map[string]string{"from": "a@s1"}
	for range 2 {
		if err := h.Create(ctx, "b", opts); err != nil {
			t.Fatal(err)
		}
	}
	if opts["from"] != "a@s1" {
		t.Error("the options of the caller were changed")
	}
	if got := d.calls("clone"); !slices.Equal(got, []string{"clone b of a@s1", "clone b of a@s1"}) {
		t.Errorf("called %q", got)
	}
	if got := d.calls("create"); !slices.Equal(got, []string{"create b"}) {
		t.Errorf("adopted by %q", got)
	}
	mustHave(t, h, "a", "b")
	if err := h.Create(ctx, "c", map[string]string{"from": "/srv/tree"}); err != nil || !slices.Contains(d.calls("create"), "create c") {
		t.Errorf("a path is not for the driver: %v", err)
	}
	for value, class := range map[string]error{"none": errdefs.ErrNotFound, "d": errdefs.ErrInvalid, "a@": errdefs.ErrInvalid, "": errdefs.ErrInvalid} {
		mustBe(t, "from "+value, h.Create(ctx, "d", map[string]string{"from": value}), class)
	}
	plain := newFake(t.TempDir(), "a")
	h = newTestHandler(t, plain, Options{CloneOption: "from"})
	if err := h.Create(ctx, "b", opts); err != nil || !plain.has("b") {
		t.Errorf("a driver that is no Cloner has an option of its own: %v", err)
	}
}
