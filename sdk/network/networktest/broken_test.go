package networktest_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/sdk/network"
	"github.com/remora-plugins/remora/sdk/network/networktest"
)

// broken are drivers with a mistake each, and the cases that must fail for it.
var broken = map[string]struct {
	driver func() network.Driver
	cases  []string
}{
	"NeedsAddress":  {func() network.Driver { return needsAddress{} }, []string{"direct/EndpointWithoutIP", "wire/WireEndpointWithoutIP"}},
	"NeedsGateway":  {func() network.Driver { return needsGateway{} }, []string{"direct/NetworkWithoutGateway", "wire/WireNetworkWithoutGateway"}},
	"MakesUpRoutes": {func() network.Driver { return makesUpRoutes{} }, []string{"direct/NetworkWithoutGateway", "wire/WireNetworkWithoutGateway"}},
	"OneWayOut":     {func() network.Driver { return &oneWayOut{} }, []string{"direct/GatewayRemoved", "wire/WireGatewayRemoved"}},
	"LeaveDeletes":  {func() network.Driver { return &leaveDeletes{} }, []string{"direct/LeaveBeforeJoin", "wire/WireLeaveBeforeJoin"}},
}

// needsAddress reads the address without a look at whether there is one.
type needsAddress struct{ still }

func (needsAddress) CreateEndpoint(_ context.Context, _ network.Network, ep network.Endpoint) (network.Assigned, error) {
	_, err := netip.ParsePrefix(ep.IPv4.String())
	return network.Assigned{}, err
}

// needsGateway does the same with the gateway.
type needsGateway struct{ still }

func (needsGateway) CreateNetwork(_ context.Context, n network.Network) error {
	_, err := netip.ParsePrefix(n.IPv4[0].Gateway.String())
	return err
}

// makesUpRoutes gives a gateway where none is.
type makesUpRoutes struct{ still }

func (makesUpRoutes) Join(_ context.Context, n network.Network, _ network.Endpoint, _ network.Sandbox) (network.Attachment, error) {
	gw := n.IPv4[0].Gateway.Addr()
	if !gw.IsValid() {
		gw = netip.IPv4Unspecified()
	}
	return network.Attachment{Interface: "lo", Gateway: gw}, nil
}

// oneWayOut knows of one way out at a time.
type oneWayOut struct {
	still
	mu   sync.Mutex
	open bool
}

func (d *oneWayOut) ProgramExternal(context.Context, network.Network, network.Endpoint, network.EndpointOptions) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = true
	return nil
}

func (d *oneWayOut) RevokeExternal(context.Context, network.Network, network.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open {
		return errors.New("not programmed")
	}
	d.open = false
	return nil
}

// leaveDeletes takes an endpoint for gone once it was left.
type leaveDeletes struct {
	still
	mu   sync.Mutex
	gone map[string]bool
}

func (d *leaveDeletes) Leave(_ context.Context, _ network.Network, ep network.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone == nil {
		d.gone = map[string]bool{}
	}
	d.gone[ep.ID] = true
	return nil
}

func (d *leaveDeletes) Join(_ context.Context, _ network.Network, ep network.Endpoint, _ network.Sandbox) (network.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone[ep.ID] {
		return network.Attachment{}, errors.New("no such endpoint")
	}
	return network.Attachment{NoGatewayBridge: true}, nil
}

// TestInner is run by TestBroken as a process of its own.
func TestInner(t *testing.T) {
	if b, ok := broken[os.Getenv("NETWORKTEST_BROKEN")]; ok {
		networktest.Run(t, networktest.Config{New: func(*testing.T) network.Driver { return b.driver() }})
	}
}

// TestBroken shows that the suite finds mistakes.
func TestBroken(t *testing.T) {
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			var names []string
			for _, c := range b.cases {
				_, name, _ := strings.Cut(c, "/")
				names = append(names, name)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInner$/^(direct|wire)$/^("+strings.Join(names, "|")+")$", "-test.v")
			cmd.Env = append(os.Environ(), "NETWORKTEST_BROKEN="+name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("the suite passed")
			}
			for _, c := range b.cases {
				if !strings.Contains(string(out), "--- FAIL: TestInner/"+c) {
					t.Errorf("case %s did not fail", c)
				}
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}
