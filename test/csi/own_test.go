package csi

import (
	"maps"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/internal/csi/csitest"
)

// TestOwnDriver is what [TestDriver] does, with the strict driver that the tests bring: one that attaches and can do all
// that there is, and one that can do next to nothing.
func TestOwnDriver(t *testing.T) {
	shapes := map[string]csitest.Options{
		"all":  csitest.All(),
		"bare": {KeepTarget: true, NotFound: true, SharedOnly: true},
	}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		t.Run(name, func(t *testing.T) {
			s := settings{size: "64m", many: 10, keys: "detach_after = \"1s\"\n"}
			newLab(t)
			m := csitest.Start(t, shapes[name])
			s.endpoint = m.Endpoint
			prove(t, s)
			if left := m.Left(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
