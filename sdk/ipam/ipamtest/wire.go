package ipamtest

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/internal/wire"
	"github.com/remora-plugins/remora/sdk/ipam"
)

func lifeWire() cases {
	return cases{
		"Activate":             activate,
		"EmptyBodyDoesNothing": emptyBodyDoesNothing,
		"WrongRequests":        wrongRequests,
	}
}

// checks are the cases of package check.
func checks() cases {
	return suitetest.Checks(check.IPAM, func(t *testing.T, c Config) (string, check.Options, func()) {
		return startPlugin(t, c).socket, check.Options{}, func() {}
	})
}

func restartWire() cases {
	return cases{
		"RestartOrReplay": restartOrReplay,
	}
}

// plugin is a whole plugin on a socket, and the engine that calls it.
type plugin struct {
	t      *testing.T
	config Config
	driver ipam.Driver
	socket string
	space  string

	client *client.Client
	stop   func() // nil while it does not run
}

func startPlugin(t *testing.T, c Config) *plugin {
	t.Helper()
	p := &plugin{t: t, config: c, socket: suitetest.Socket(t), driver: c.New(t)}
	t.Cleanup(p.kill)
	p.start()
	return p
}

func (p *plugin) start() {
	p.t.Helper()
	log := slog.New(slog.NewTextHandler(p.t.Output(), nil))
	h := ipam.NewHandler(p.driver, ipam.Options{Logger: log})
	p.client, p.stop = suitetest.Serve(p.t, p.socket, h, log, time.Minute)
	p.space = space(p.t, p.driver)
}

// kill ends the plugin and leaves everything as it is.
func (p *plugin) kill() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// call makes one call, which must succeed.
func (p *plugin) call(method string, req, resp any) {
	p.t.Helper()
	must(p.t, method, p.client.Call(p.t.Context(), method, req, resp))
}

func (p *plugin) pool(prefix string) wire.RequestPoolResponse {
	p.t.Helper()
	var got wire.RequestPoolResponse
	p.call(wire.IpamRequestPool, wire.RequestPoolRequest{AddressSpace: p.space, Pool: prefix, Options: map[string]string{}, V6: p.config.Pool.Addr().Is6()}, &got)
	if _, err := netip.ParsePrefix(got.Pool); err != nil || got.PoolID == "" || prefix != "" && got.Pool != prefix {
		p.t.Fatalf("RequestPool(%q) = %+v", prefix, got)
	}
	return got
}

func (p *plugin) address(pool, address string, options map[string]string) netip.Addr {
	p.t.Helper()
	var got wire.RequestAddressResponse
	p.call(wire.IpamRequestAddress, wire.RequestAddressRequest{PoolID: pool, Address: address, Options: options}, &got)
	a, err := netip.ParsePrefix(got.Address)
	if err != nil || address != "" && a.Addr().String() != address {
		p.t.Fatalf("RequestAddress(%q) = %+v", address, got)
	}
	return a.Addr()
}

func (p *plugin) gateway(pool, address string) netip.Addr {
	p.t.Helper()
	return p.address(pool, address, map[string]string{wire.OptionAddressType: wire.AddressTypeGateway})
}

func (p *plugin) release(pool string, a netip.Addr) {
	p.t.Helper()
	p.call(wire.IpamReleaseAddress, wire.ReleaseAddressRequest{PoolID: pool, Address: a.String()}, nil)
}

func activate(t *testing.T, c Config) {
	p := startPlugin(t, c)
	kinds, err := p.client.Activate(t.Context())
	must(t, "Activate", err)
	if !slices.Equal(kinds, []string{"IpamDriver"}) {
		t.Errorf("Activate: %q", kinds)
	}
	var caps wire.IpamCapabilitiesResponse
	p.call(wire.IpamGetCapabilities, nil, &caps)
	if caps.RequiresRequestReplay != replays(p.driver) {
		t.Errorf("GetCapabilities: %+v", caps)
	}
	var spaces wire.AddressSpacesResponse
	p.call(wire.IpamGetDefaultAddressSpaces, nil, &spaces)
	if spaces.LocalDefaultAddressSpace == "" || spaces.GlobalDefaultAddressSpace == "" {
		t.Errorf("GetDefaultAddressSpaces: %+v", spaces)
	}
}

// emptyBodyDoesNothing is how an engine repeats a call after a connection that broke.
func emptyBodyDoesNothing(t *testing.T, c Config) {
	p := startPlugin(t, c)
	for _, method := range []string{wire.IpamRequestPool, wire.IpamReleasePool, wire.IpamRequestAddress, wire.IpamReleaseAddress} {
		if err := p.client.Call(t.Context(), method, nil, nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", method, err)
		}
	}
}

func wrongRequests(t *testing.T, c Config) {
	p := startPlugin(t, c)
	pool := p.pool(c.Pool.String())
	v6 := c.Pool.Addr().Is6()
	for _, tt := range []struct {
		method string
		req    any
	}{
		{wire.IpamRequestPool, wire.RequestPoolRequest{AddressSpace: p.space, Pool: "10.0.0.0", V6: v6}},
		{wire.IpamRequestPool, wire.RequestPoolRequest{AddressSpace: p.space, Pool: "10.60.0.0/16", V6: true}},
		{wire.IpamRequestPool, wire.RequestPoolRequest{AddressSpace: p.space, SubPool: c.Pool.String(), V6: v6}},
		{wire.IpamRequestPool, wire.RequestPoolRequest{AddressSpace: p.space, Pool: "10.60.0.0/16", SubPool: "10.61.0.0/24"}},
		{wire.IpamReleasePool, wire.ReleasePoolRequest{}},
		{wire.IpamRequestAddress, wire.RequestAddressRequest{}},
		{wire.IpamRequestAddress, wire.RequestAddressRequest{PoolID: pool.PoolID, Address: "x"}},
		{wire.IpamRequestAddress, wire.RequestAddressRequest{PoolID: pool.PoolID, Options: map[string]string{wire.AddressOptionMACAddr: "x"}}},
		{wire.IpamReleaseAddress, wire.ReleaseAddressRequest{PoolID: pool.PoolID}},
	} {
		if err := p.client.Call(t.Context(), tt.method, tt.req, nil); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s %+v: %v, want ErrInvalid", tt.method, tt.req, err)
		}
	}
	p.call(wire.IpamReleasePool, wire.ReleasePoolRequest{PoolID: pool.PoolID}, nil)
}

// restartOrReplay kills the plugin, and the engine with it where that is what the driver
// asks for.
func restartOrReplay(t *testing.T, c Config) {
	p := startPlugin(t, c)
	pool := p.pool(c.Pool.String())
	gw := p.gateway(pool.PoolID, "")
	a := p.address(pool.PoolID, "", nil)
	p.kill()
	if c.Reopen != nil {
		p.driver = c.Reopen(t, p.driver)
	}
	p.start()
	if replays(p.driver) {
		pool = p.pool(pool.Pool)
		p.gateway(pool.PoolID, gw.String())
		p.address(pool.PoolID, a.String(), nil)
	}
	for range 10 {
		if got := p.address(pool.PoolID, "", nil); got == a || got == gw {
			t.Errorf("address %s was handed out twice", got)
		}
	}
	p.release(pool.PoolID, a)
	p.call(wire.IpamReleasePool, wire.ReleasePoolRequest{PoolID: pool.PoolID}, nil)
	again := p.pool(pool.Pool)
	p.call(wire.IpamReleasePool, wire.ReleasePoolRequest{PoolID: again.PoolID}, nil)
}
