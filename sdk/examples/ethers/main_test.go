package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
	"github.com/remora-plugins/remora/sdk/internal/suitetest"
	"github.com/remora-plugins/remora/sdk/ipam"
	"github.com/remora-plugins/remora/sdk/ipam/ipamtest"
	"github.com/remora-plugins/remora/sdk/network"
)

// TestMain lets the test run as the plugin.
func TestMain(m *testing.M) { enginetest.Main(m, main) }

const file = "# MAC address\n\n02:42:0a:14:00:63 10.20.0.99\n02:42:0A:14:00:64\t10.20.0.100 a printer\n02:42:0a:14:00:65 nonsense\n"

func open(t *testing.T, state string) leases {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ethers")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := ipam.NewAllocator(t.Context(), ipam.Config{State: ipam.Dir(state)})
	if err != nil {
		t.Fatal(err)
	}
	return leases{a, path}
}

func TestConformance(t *testing.T) {
	var state string
	ipamtest.Run(t, ipamtest.Config{
		New: func(t *testing.T) ipam.Driver {
			state = t.TempDir()
			return open(t, state)
		},
		Reopen: func(t *testing.T, _ ipam.Driver) ipam.Driver { return open(t, state) },
	})
}

func TestLeases(t *testing.T) {
	l := open(t, t.TempDir())
	p, err := l.RequestPool(t.Context(), ipam.PoolRequest{AddressSpace: "local", Pool: netip.MustParsePrefix("10.20.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ mac, want string }{
		{"02:42:0a:14:00:63", "10.20.0.99/24"},
		{"02:42:0a:14:00:64", "10.20.0.100/24"},
		{"02:42:0a:14:00:65", "10.20.0.1/24"},
		{"02:42:00:00:00:01", "10.20.0.2/24"},
	} {
		mac, err := net.ParseMAC(tt.mac)
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, MAC: mac})
		if err != nil || got.Prefix.String() != tt.want {
			t.Errorf("%s gets %s, %v; want %s", tt.mac, got.Prefix, err, tt.want)
		}
	}
	mac := net.HardwareAddr{2, 0x42, 0x0a, 0x14, 0, 0x63}
	if _, err := l.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, MAC: mac}); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("a lease that is out: %v, want ErrInUse", err)
	}
	l.file = filepath.Join(t.TempDir(), "gone")
	if _, err := l.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, MAC: mac}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("without the file: %v, want ErrUnavailable", err)
	}
}

// still is a network driver that connects nothing, so that no link comes into being on the
// machine of the test.
type still struct{}

func (still) CreateEndpoint(context.Context, network.Network, network.Endpoint) (network.Assigned, error) {
	return network.Assigned{}, nil
}

func (still) Join(context.Context, network.Network, network.Endpoint, network.Sandbox) (network.Attachment, error) {
	return network.Attachment{NoGatewayBridge: true}, nil
}
func (still) CreateNetwork(context.Context, network.Network) error                    { return nil }
func (still) DeleteNetwork(context.Context, network.Network) error                    { return nil }
func (still) DeleteEndpoint(context.Context, network.Network, network.Endpoint) error { return nil }
func (still) Leave(context.Context, network.Network, network.Endpoint) error          { return nil }

// serveStill serves still to the engines of a host until the test ends.
func serveStill(t *testing.T, host *enginetest.Host) {
	t.Helper()
	h, err := network.NewHandler(t.Context(), still{}, network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: filepath.Join(host.Run, "docker/plugins/still.sock")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- sdk.Serve(ctx, l, h) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// TestEngine has a real engine ask for addresses.
func TestEngine(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd, testenv.DockerCLI, testenv.Busybox)
	busybox, err := testenv.BusyboxPath()
	if err != nil {
		t.Fatal(err)
	}
	h := enginetest.NewHost(t)
	l := open(t, t.TempDir())
	p := h.RunPlugin(t, "start", "-file", l.file, "-state", t.TempDir())
	p.Says(t, "listening")
	serveStill(t, h)
	e := h.Start(t)
	e.ImportBusybox(t, busybox)
	docker := func(args ...string) string {
		t.Helper()
		out, err := e.Docker(t.Context(), args...)
		if err != nil {
			t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
	docker("network", "create", "-d", "still", "--ipam-driver", "ethers", "--subnet", "10.20.0.0/24", "lan")
	for _, tt := range []struct{ name, mac, want string }{
		{"printer", "02:42:0a:14:00:63", "10.20.0.99"},
		{"guest", "02:42:0a:14:00:66", "10.20.0.2"},
	} {
		// The command takes a MAC only with engines that are younger than Debian's.
		body, err := json.Marshal(map[string]any{
			"Image": enginetest.Image, "Cmd": []string{"sleep", "1000"}, "MacAddress": tt.mac,
			"HostConfig": map[string]any{"NetworkMode": "lan"},
		})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := e.Client().Post("http://docker/v1.41/containers/create?name="+tt.name, "application/json", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != 201 {
			t.Fatalf("create %s: %s, %v", tt.name, resp.Status, err)
		}
		docker("start", tt.name)
		if got := docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}", tt.name); got != tt.want+" "+tt.mac {
			t.Errorf("%s has %q, want %s", tt.name, got, tt.want)
		}
	}
	docker("rm", "-f", "printer", "guest")
	docker("network", "rm", "lan")
	if err := p.Stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("ended: %v", err)
	}
}

// TestCheck holds the whole plugin to what any plugin is held to.
func TestCheck(t *testing.T) {
	socket, file := suitetest.Socket(t), filepath.Join(t.TempDir(), "ethers")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	enginetest.RunPlugin(t, "start", "-file", file, "-state", t.TempDir(), "-socket", socket)
	enginetest.Conforms(t, socket)
}
