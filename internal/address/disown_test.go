package address

import (
	"errors"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

// TestDisown: an engine has lost a network and said nothing. It is given the network anew, with the gateway that it had, and once.
func TestDisown(t *testing.T) {
	h := newLab(t, 1).hosts[0]
	d := IPAM{h.Allocator}
	blue := ipam.PoolRequest{AddressSpace: AddressSpace, Options: map[string]string{OptionNet: "blue"}}
	gateway := func(p ipam.Pool) ipam.Address {
		t.Helper()
		a, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Gateway: true})
		must(t, err)
		return a
	}
	pool, err := d.RequestPool(t.Context(), blue)
	must(t, err)
	first := gateway(pool)
	for range 2 {
		if _, err := d.RequestPool(t.Context(), blue); !errors.Is(err, errdefs.ErrInUse) {
			t.Fatalf("a second part in the network: %v", err)
		}
		s, _ := h.Find(pool.Prefix)
		h.Disown(s.ID)
		again, err := d.RequestPool(t.Context(), blue)
		must(t, err)
		if got := gateway(again); again.ID != pool.ID || got.Prefix != first.Prefix {
			t.Errorf("pool %s with gateway %s, want %s with %s", again.ID, got.Prefix, pool.ID, first.Prefix)
		}
	}
}
