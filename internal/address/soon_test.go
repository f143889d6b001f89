package address

import (
	"os"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// deaf is a store that has not told yet that something has changed.
type deaf struct{ *memory }

func (deaf) Watch(...string) (<-chan struct{}, func()) { return nil, func() {} }

// TestAskedBeforeItIsTold: of all who wait for a change, one is told first, and may ask the allocator at once. It hears of the change.
func TestAskedBeforeItIsTold(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	store := newMemory(hostNumber(1))
	a, err := New(Config{Root: root, Store: deaf{store}})
	must(t, err)
	t.Cleanup(func() {
		_ = a.Close()
		_ = root.Close()
	})
	if n := len(a.Networks()); n != 0 {
		t.Fatalf("%d networks", n)
	}
	must(t, store.Put(record.KindNetwork, "blue", record.Network{ID: "0123456789abcdef"}))
	if n := len(a.Networks()); n != 1 {
		t.Errorf("%d networks once there is a record of one", n)
	}
}
