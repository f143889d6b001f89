package volumetest

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// trashDirect holds a driver with a trash to what it says.
func trashDirect() cases {
	return cases{
		"TrashAndRestore": trash(func(t *testing.T, b *bare, tr volume.Trasher) {
			p := b.mount("one")
			write(t, p, "f", "first")
			snapshots := snapshotIfPossible(b, "one", "s1")
			b.unmount("one", p)
			before := time.Now().Add(-time.Second)
			b.trash("one")
			b.mustHave()
			mustBeClass(t, "Trash of what is in the trash", tr.Trash(t.Context(), "one"), errdefs.ErrNotFound)
			// The name is free, and what gets it may come into the trash too.
			b.create("one")
			p = b.mount("one")
			write(t, p, "f", "second")
			b.unmount("one", p)
			time.Sleep(10 * time.Millisecond)
			b.trash("one")
			b.reopenIfPossible()
			tr = b.Driver.(volume.Trasher)
			all := b.trashed()
			if len(all) != 2 || all[0].Name != "one" || all[1].Name != "one" || all[0].ID == all[1].ID {
				t.Fatalf("in the trash: %+v", all)
			}
			for _, x := range all {
				if x.RemovedAt.Before(before) || x.RemovedAt.After(time.Now().Add(time.Second)) {
					t.Errorf("removed at %s", x.RemovedAt)
				}
			}
			b.create("taken")
			mustBeClass(t, "Restore onto a volume", tr.Restore(t.Context(), all[0].ID, "taken"), errdefs.ErrExists)
			for i, name := range []string{"one", "two"} {
				if err := tr.Restore(t.Context(), all[i].ID, name); err != nil {
					t.Fatalf("Restore: %v", err)
				}
				mustBeClass(t, "Restore again", tr.Restore(t.Context(), all[i].ID, "three"), errdefs.ErrNotFound)
				p := b.mount(name)
				mustRead(t, p, "f", []string{"first", "second"}[i])
				b.unmount(name, p)
			}
			if snapshots {
				b.mustHaveSnapshots("one", "s1")
				b.mustHaveSnapshots("two")
			}
			b.mustHave("one", "two", "taken")
			if all := b.trashed(); len(all) != 0 {
				t.Errorf("still in the trash: %+v", all)
			}
		}),
		"Purge": trash(func(t *testing.T, b *bare, tr volume.Trasher) {
			snapshotIfPossible(b, "one", "s1")
			b.trash("one")
			b.create("two")
			b.trash("two")
			all := b.trashed()
			if len(all) != 2 {
				t.Fatalf("in the trash: %+v", all)
			}
			if err := tr.Purge(t.Context(), all[0].ID); err != nil {
				t.Fatalf("Purge: %v", err)
			}
			mustBeClass(t, "Purge again", tr.Purge(t.Context(), all[0].ID), errdefs.ErrNotFound)
			mustBeClass(t, "Restore of what is purged", tr.Restore(t.Context(), all[0].ID, "one"), errdefs.ErrNotFound)
			if left := b.trashed(); len(left) != 1 || left[0].ID != all[1].ID {
				t.Errorf("left in the trash: %+v", left)
			}
			b.mustHave()
		}),
		"TrashOfUnknown": trash(func(t *testing.T, b *bare, tr volume.Trasher) {
			mustBeClass(t, "Trash", tr.Trash(t.Context(), "two"), errdefs.ErrNotFound)
			for _, id := range []string{"", "one", "..", "../one", "no-such-id"} {
				mustBeClass(t, "Restore", tr.Restore(t.Context(), id, "new"), errdefs.ErrNotFound)
				mustBeClass(t, "Purge", tr.Purge(t.Context(), id), errdefs.ErrNotFound)
			}
			b.mustHave("one")
		}),
	}
}

// trash makes a case about a driver with a trash, and a volume.
func trash(f func(*testing.T, *bare, volume.Trasher)) func(*testing.T, Config) {
	return func(t *testing.T, c Config) {
		b := newBare(t, c)
		tr, ok := b.Driver.(volume.Trasher)
		if !ok {
			return
		}
		b.create("one")
		f(t, b, tr)
	}
}

func (b *bare) trash(name string) {
	b.t.Helper()
	if err := b.Driver.(volume.Trasher).Trash(b.t.Context(), name); err != nil {
		b.t.Fatalf("Trash: %v", err)
	}
}

func (b *bare) trashed() []volume.Trashed {
	b.t.Helper()
	all, err := b.Driver.(volume.Trasher).Trashed(b.t.Context())
	if err != nil {
		b.t.Fatalf("Trashed: %v", err)
	}
	return all
}

func snapshotIfPossible(b *bare, name, snapshot string) bool {
	b.t.Helper()
	if _, ok := b.Driver.(volume.Snapshotter); !ok {
		return false
	}
	b.snapshot(name, snapshot, nil)
	return true
}
