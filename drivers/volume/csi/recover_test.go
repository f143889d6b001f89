package csi

import (
	"testing"

	"github.com/remora-plugins/remora/internal/csi/csitest"
)

// TestResumedLate has what a process before this one left be gone on with after somebody has removed the volume, and
// after the name is another volume's.
func TestResumedLate(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{phaseNew, phaseDeleting} {
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, csitest.All())
			d := h.open(t)
			ctx := t.Context()
			if err := d.Create(ctx, "a", map[string]string{"size": "32m"}); err != nil {
				t.Fatal(err)
			}
			v, _ := d.store.find("a")
			old, _ := d.store.see(v)
			if err := d.Remove(ctx, "a"); err != nil {
				t.Fatal(err)
			}
			old.Phase, old.Doing = phase, callCreate
			d.resume(old)
			d.background.Wait()
			if left := h.mock.Left(); len(left) > 0 {
				t.Errorf("after it was removed: %q", left)
			}
			if err := d.Create(ctx, "a", nil); err != nil {
				t.Fatal(err)
			}
			d.resume(old)
			d.background.Wait()
			if all := h.mock.Volumes(); len(all) != 1 || all[0].Size != 64<<20 {
				t.Errorf("volumes %+v, not the second one", all)
			}
			if err := d.Remove(ctx, "a"); err != nil {
				t.Fatal(err)
			}
			h.nothingLeft(t)
		})
	}
}
