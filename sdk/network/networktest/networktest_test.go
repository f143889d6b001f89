package networktest_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
	"github.com/remora-plugins/remora/sdk/network/networktest"
)

// still is a driver that connects nothing, as little as passes.
type still struct{}

func (still) CreateNetwork(_ context.Context, n network.Network) error {
	for key := range n.Options {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: there are none", key)
	}
	return nil
}

func (still) CreateEndpoint(context.Context, network.Network, network.Endpoint) (network.Assigned, error) {
	return network.Assigned{}, nil
}

func (still) Join(context.Context, network.Network, network.Endpoint, network.Sandbox) (network.Attachment, error) {
	return network.Attachment{NoGatewayBridge: true}, nil
}
func (still) DeleteNetwork(context.Context, network.Network) error                    { return nil }
func (still) DeleteEndpoint(context.Context, network.Network, network.Endpoint) error { return nil }
func (still) Leave(context.Context, network.Network, network.Endpoint) error          { return nil }

func TestStill(t *testing.T) {
	networktest.Run(t, networktest.Config{
		New:  func(*testing.T) network.Driver { return still{} },
		IPv6: netip.MustParsePrefix("fd00:99::/64"),
	})
}

// busy is a driver that has everything a driver can have.
type busy struct{ still }

func (busy) CreateEndpoint(_ context.Context, _ network.Network, ep network.Endpoint) (network.Assigned, error) {
	if !ep.IPv4.IsValid() {
		return network.Assigned{MAC: []byte{2, 0x42, 0, 0, 0, 1}}, nil
	}
	a := ep.IPv4.Addr().As4()
	return network.Assigned{IPv4: ep.IPv4, MAC: append([]byte{2, 0x42}, a[:]...)}, nil
}

func (busy) Scope() (scope, connectivity network.Scope) { return network.Local, network.Global }

func (busy) ProgramExternal(context.Context, network.Network, network.Endpoint, network.EndpointOptions) error {
	return nil
}
func (busy) RevokeExternal(context.Context, network.Network, network.Endpoint) error { return nil }

func (busy) EndpointInfo(_ context.Context, _ network.Network, ep network.Endpoint) (map[string]any, error) {
	return map[string]any{"address": ep.IPv4}, nil
}

func (busy) AllocateNetwork(_ context.Context, n network.Network) (map[string]string, error) {
	return map[string]string{"number": n.ID[:4]}, nil
}
func (busy) FreeNetwork(context.Context, string) error { return nil }

func (busy) SkipGateway(context.Context, network.Network) (ipv4, ipv6 bool, err error) {
	return true, true, nil
}
func (busy) NodeJoined(context.Context, network.Node) error    { return nil }
func (busy) NodeLeft(context.Context, network.Node) error      { return nil }
func (busy) Restore(context.Context, []network.Restored) error { return nil }

func TestBusy(t *testing.T) {
	networktest.Run(t, networktest.Config{
		New: func(*testing.T) network.Driver { return busy{} },
		Deviates: map[string]string{
			"SettledStaysSettled":       "it derives every MAC from the address",
			"SettledIsNotAnswered":      "it derives every MAC from the address",
			"CheckSettledIsNotAnswered": "it derives every MAC from the address",
		},
	})
}
