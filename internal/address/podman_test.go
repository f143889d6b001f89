package address

import (
	"errors"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

// TestPodmanBeside: Podman's containers have a network first, an engine takes the gateway over, and leaves without them.
func TestPodmanBeside(t *testing.T) {
	a := newLab(t, 1).hosts[0]
	s, err := a.CreateNetwork(t.Context(), NewNetwork{Name: "blue", V4: true, Network: record.Network{}})
	must(t, err)
	take := func(key string) string {
		t.Helper()
		p, err := a.Allocate(t.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Key: key})
		must(t, err)
		return p.Addr().String()
	}
	gateway, one := take(PodmanGatewayKey), take(PodmanKey+"c1")
	if again := take(PodmanGatewayKey); again != gateway {
		t.Errorf("the gateway is %s, and was %s", again, gateway)
	}
	p, err := request(t, a, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}})
	must(t, err)
	d := IPAM{a.Allocator}
	got, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Gateway: true})
	must(t, err)
	if got.Prefix.Addr().String() != gateway {
		t.Errorf("the engine's gateway is %s, Podman's is %s", got.Prefix, gateway)
	}
	if again := take(PodmanGatewayKey); again != gateway {
		t.Errorf("the gateway is %s, and was %s", again, gateway)
	}
	if _, err := request(t, a, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}}); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("a second engine: %v", err)
	}
	must(t, d.ReleasePool(t.Context(), p.ID))
	out := a.Addresses()
	if len(out) != 1 || out[0].Address.String() != one {
		t.Errorf("out is %v, want %s", out, one)
	}
}
