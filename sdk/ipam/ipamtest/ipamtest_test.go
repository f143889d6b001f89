package ipamtest_test

import (
	"net/netip"
	"testing"

	"github.com/remora-plugins/remora/sdk/ipam"
	"github.com/remora-plugins/remora/sdk/ipam/ipamtest"
)

func allocator(t *testing.T, state ipam.State) ipam.Driver {
	t.Helper()
	a, err := ipam.NewAllocator(t.Context(), ipam.Config{State: state})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAllocatorInMemory(t *testing.T) {
	ipamtest.Run(t, ipamtest.Config{
		New:    func(t *testing.T) ipam.Driver { return allocator(t, nil) },
		Reopen: func(t *testing.T, _ ipam.Driver) ipam.Driver { return allocator(t, nil) },
	})
}

func TestAllocatorWithState(t *testing.T) {
	for _, pool := range []string{"10.97.0.0/24", "fd00:97::/64"} {
		t.Run(pool, func(t *testing.T) {
			var state ipam.State
			ipamtest.Run(t, ipamtest.Config{
				New: func(t *testing.T) ipam.Driver {
					state = ipam.Dir(t.TempDir())
					return allocator(t, state)
				},
				Reopen: func(t *testing.T, _ ipam.Driver) ipam.Driver { return allocator(t, state) },
				Pool:   netip.MustParsePrefix(pool),
			})
		})
	}
}
