package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// captureOf returns the body of the first captured request of a method that contains a text.
func captureOf(t *testing.T, file, method, contains string) (body string, ids struct{ NetworkID, EndpointID, SandboxKey, PoolID string }) {
	t.Helper()
	archive, err := os.ReadFile(filepath.Join("..", "internal", "wire", "testdata", "dockerd-20.10", file))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range captured.FindAllSubmatch(archive, -1) {
		_, body, _ := strings.Cut(string(m[1]), "\r\n\r\n")
		if string(m[2]) == method && strings.Contains(body, contains) {
			if err := json.Unmarshal([]byte(body), &ids); err != nil {
				t.Fatal(err)
			}
			return strings.TrimSuffix(body, "\n") + "\n", ids
		}
	}
	t.Fatalf("%s has no %s with %s", file, method, contains)
	return "", ids
}

// TestKindsLikeTheEngine makes calls in domain terms and compares their bodies with those
// of a real engine.
func TestKindsLikeTheEngine(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	options := network.EndpointOptions{
		ExposedPorts: []network.Port{{Protocol: network.TCP, Number: 80}, {Protocol: network.UDP, Number: 53}},
		PortMap:      []network.PortBinding{{Port: network.Port{Protocol: network.TCP, Number: 80}, HostIP: addr("127.0.0.1"), HostPort: 8081, HostPortEnd: 8081}},
	}
	tests := []struct {
		method, contains string
		call             func(ctx context.Context, c *Client, network, endpoint, sandbox, pool string) error
	}{
		{"NetworkDriver.CreateNetwork", "10.98.0.0/24", func(ctx context.Context, c *Client, id, _, _, _ string) error {
			return c.Network().CreateNetwork(ctx, network.Network{ID: id, EnableIPv4: true, Internal: true, IPv4: []network.Pool{{
				AddressSpace: "capture-local", Prefix: prefix("10.98.0.0/24"), Gateway: prefix("10.98.0.254/24"),
				Aux: map[string]netip.Prefix{"h1": prefix("10.98.0.5/24")},
			}}})
		}},
		{"NetworkDriver.CreateNetwork", "opt1", func(ctx context.Context, c *Client, id, _, _, _ string) error {
			return c.Network().CreateNetwork(ctx, network.Network{
				ID: id, EnableIPv4: true, Options: map[string]string{"opt1": "val1"},
				IPv4: []network.Pool{{AddressSpace: "capture-local", Prefix: prefix("10.96.0.0/24"), Gateway: prefix("10.96.0.1/24")}},
			})
		}},
		{"NetworkDriver.CreateNetwork", "fd00:97", func(ctx context.Context, c *Client, id, _, _, _ string) error {
			return c.Network().CreateNetwork(ctx, network.Network{
				ID: id, EnableIPv4: true, EnableIPv6: true,
				IPv4: []network.Pool{{AddressSpace: "LocalDefault", Prefix: prefix("10.97.0.0/24"), Gateway: prefix("10.97.0.1/24")}},
				IPv6: []network.Pool{{AddressSpace: "LocalDefault", Prefix: prefix("fd00:97::/64"), Gateway: prefix("fd00:97::1/64")}},
			})
		}},
		{"NetworkDriver.CreateEndpoint", "10.99.0.77", func(ctx context.Context, c *Client, id, ep, _, _ string) error {
			_, err := c.Network().CreateEndpoint(ctx, id, network.Endpoint{
				ID: ep, IPv4: prefix("10.99.0.77/24"), MAC: net.HardwareAddr{2, 0x42, 0x11, 0x22, 0x33, 0x44}, Options: options,
			})
			return err
		}},
		{"NetworkDriver.CreateEndpoint", "fd00:97::2", func(ctx context.Context, c *Client, id, ep, _, _ string) error {
			_, err := c.Network().CreateEndpoint(ctx, id, network.Endpoint{ID: ep, IPv4: prefix("10.97.0.2/24"), IPv6: prefix("fd00:97::2/64"), Options: options})
			return err
		}},
		{"NetworkDriver.Join", "8081", func(ctx context.Context, c *Client, id, ep, sandbox, _ string) error {
			_, err := c.Network().Join(ctx, id, ep, network.Sandbox{Key: sandbox, Options: options})
			return err
		}},
		{"NetworkDriver.ProgramExternalConnectivity", "8081", func(ctx context.Context, c *Client, id, ep, _, _ string) error {
			return c.Network().ProgramExternal(ctx, id, ep, options)
		}},
		{"NetworkDriver.EndpointOperInfo", "", func(ctx context.Context, c *Client, id, ep, _, _ string) error {
			_, err := c.Network().Info(ctx, id, ep)
			return err
		}},
		{"NetworkDriver.RevokeExternalConnectivity", "", func(ctx context.Context, c *Client, id, ep, _, _ string) error {
			return c.Network().RevokeExternal(ctx, id, ep)
		}},
		{"NetworkDriver.Leave", "", func(ctx context.Context, c *Client, id, ep, _, _ string) error { return c.Network().Leave(ctx, id, ep) }},
		{"NetworkDriver.DeleteEndpoint", "", func(ctx context.Context, c *Client, id, ep, _, _ string) error {
			return c.Network().DeleteEndpoint(ctx, id, ep)
		}},
		{"NetworkDriver.DeleteNetwork", "", func(ctx context.Context, c *Client, id, _, _, _ string) error {
			return c.Network().DeleteNetwork(ctx, id)
		}},
		{"IpamDriver.RequestPool", "io1", func(ctx context.Context, c *Client, _, _, _, _ string) error {
			_, err := c.IPAM().RequestPool(ctx, PoolRequest{AddressSpace: "capture-local", Options: map[string]string{"io1": "iv1"}})
			return err
		}},
		{"IpamDriver.RequestPool", "10.98.0.128/25", func(ctx context.Context, c *Client, _, _, _, _ string) error {
			_, err := c.IPAM().RequestPool(ctx, PoolRequest{AddressSpace: "capture-local", Prefix: prefix("10.98.0.0/24"), Range: prefix("10.98.0.128/25")})
			return err
		}},
		{"IpamDriver.RequestAddress", "gateway", func(ctx context.Context, c *Client, _, _, _, pool string) error {
			_, err := c.IPAM().RequestAddress(ctx, AddressRequest{PoolID: pool, Gateway: true})
			return err
		}},
		{"IpamDriver.RequestAddress", "10.99.0.77", func(ctx context.Context, c *Client, _, _, _, pool string) error {
			_, err := c.IPAM().RequestAddress(ctx, AddressRequest{PoolID: pool, Address: addr("10.99.0.77")})
			return err
		}},
		{"IpamDriver.ReleaseAddress", "10.99.0.77", func(ctx context.Context, c *Client, _, _, _, pool string) error {
			return c.IPAM().ReleaseAddress(ctx, pool, addr("10.99.0.77"))
		}},
		{"IpamDriver.ReleasePool", "", func(ctx context.Context, c *Client, _, _, _, pool string) error {
			return c.IPAM().ReleasePool(ctx, pool)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.contains, func(t *testing.T) {
			want, ids := captureOf(t, "network.txtar", tt.method, tt.contains)
			h, last := recorder(`{"PoolID":"p","Pool":"10.0.0.0/8","Address":"10.0.0.1/8"}`)
			c := serve(t, h, Options{})
			if tt.method == "NetworkDriver.CreateEndpoint" {
				h, last = recorder(`{}`)
				c = serve(t, h, Options{})
			}
			if err := tt.call(t.Context(), c, ids.NetworkID, ids.EndpointID, ids.SandboxKey, ids.PoolID); err != nil {
				t.Fatal(err)
			}
			if got := last(); got.Body != want || got.Line != "POST /"+tt.method {
				t.Errorf("%s (-engine +ours):\n%s", got.Line, cmp.Diff(want, got.Body))
			}
		})
	}
	t.Run("MAC", func(t *testing.T) {
		want, ids := captureOf(t, "replay.txtar", "IpamDriver.RequestAddress", "macaddress")
		_, mac, _ := strings.Cut(want, `macaddress":"`)
		hw, err := net.ParseMAC(mac[:17])
		if err != nil {
			t.Fatal(err)
		}
		h, last := recorder(`{"Address":"10.94.0.20/24"}`)
		c := serve(t, h, Options{})
		got, err := c.IPAM().RequestAddress(t.Context(), AddressRequest{PoolID: ids.PoolID, Address: addr("10.94.0.20"), MAC: hw})
		if err != nil || got != prefix("10.94.0.20/24") || last().Body != want {
			t.Errorf("%v, %v (-engine +ours):\n%s", got, err, cmp.Diff(want, last().Body))
		}
	})
}

func TestAnswersOfNetworks(t *testing.T) {
	answers := map[string]string{
		"/NetworkDriver.GetCapabilities": `{"Scope":"local","GwAllocChecker":true}`,
		"/NetworkDriver.GwAllocCheck":    `{"SkipIPv6":true}`,
		"/NetworkDriver.CreateEndpoint":  `{"Interface":{"Address":"","AddressIPv6":"fd00::2/64","MacAddress":"02:42:00:00:00:01"}}`,
		"/NetworkDriver.Join": `{"InterfaceName":{"SrcName":"veth1","DstPrefix":"eth","DstName":"lan0"},"Gateway":"10.0.0.1","GatewayIPv6":"fe80::1",
			"StaticRoutes":[{"Destination":"10.1.0.0/16","RouteType":0,"NextHop":"10.0.0.2"},{"Destination":"10.2.0.0/16","RouteType":1}],"DisableGatewayService":true}`,
		"/NetworkDriver.AllocateNetwork":             `{"Options":{"vni":"7"}}`,
		"/NetworkDriver.EndpointOperInfo":            `{"Value":{"a":1}}`,
		"/NetworkDriver.Leave":                       `{"Err":"no"}`,
		"/IpamDriver.GetCapabilities":                `{"RequiresMACAddress":true}`,
		"/IpamDriver.GetDefaultAddressSpaces":        `{"LocalDefaultAddressSpace":"l","GlobalDefaultAddressSpace":"g"}`,
		"/IpamDriver.RequestPool":                    `{"PoolID":"p","Pool":"10.0.0.0/24","Data":{"com.docker.network.gateway":"10.0.0.1/24","a":"b"}}`,
		"/IpamDriver.RequestAddress":                 `{"Address":""}`,
		"/IpamDriver.ReleasePool":                    `{"Error":"no such pool"}`,
		"/NetworkDriver.DiscoverNew":                 `{}`,
		"/NetworkDriver.FreeNetwork":                 `{}`,
		"/NetworkDriver.DiscoverDelete":              `{"Err":"no"}`,
		"/NetworkDriver.RevokeExternalConnectivity":  "",
		"/NetworkDriver.ProgramExternalConnectivity": "404",
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if answers[r.URL.Path] == "404" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, answers[r.URL.Path])
	}, Options{})
	ctx, n, p := t.Context(), c.Network(), c.IPAM()
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	same := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	caps, err := n.Capabilities(ctx)
	same("capabilities", caps, NetworkCapabilities{"local", "local", true}, err)
	v4, v6, err := n.SkipGateways(ctx, network.Network{})
	same("gateways", []bool{v4, v6}, []bool{false, true}, err)
	assigned, err := n.CreateEndpoint(ctx, "n", network.Endpoint{ID: "e"})
	same("endpoint", assigned, network.Assigned{IPv6: prefix("fd00::2/64"), MAC: net.HardwareAddr{2, 0x42, 0, 0, 0, 1}}, err)
	joined, err := n.Join(ctx, "n", "e", network.Sandbox{})
	same("join", joined, network.Attachment{
		Interface: "veth1", Prefix: "eth", Name: "lan0", Gateway: addr("10.0.0.1"), GatewayIPv6: addr("fe80::1"), NoGatewayBridge: true,
		Routes: []network.Route{{Destination: prefix("10.1.0.0/16"), NextHop: addr("10.0.0.2")}, {Destination: prefix("10.2.0.0/16")}},
	}, err)
	allocated, err := n.Allocate(ctx, network.Network{})
	same("allocate", allocated, map[string]string{"vni": "7"}, err)
	info, err := n.Info(ctx, "n", "e")
	same("info", info, map[string]any{"a": 1.0}, err)
	same("free and discover", nil, nil, errors.Join(n.Free(ctx, "n"), n.DiscoverNew(ctx, network.Node{Address: addr("10.0.0.1")})))
	pcaps, err := p.Capabilities(ctx)
	same("IPAM capabilities", pcaps, IPAMCapabilities{WantsMAC: true}, err)
	local, global, err := p.AddressSpaces(ctx)
	same("address spaces", local+global, "lg", err)
	pool, err := p.RequestPool(ctx, PoolRequest{})
	same("pool", pool, Pool{ID: "p", Prefix: prefix("10.0.0.0/24"), Gateway: prefix("10.0.0.1/24"), Data: map[string]string{"a": "b"}}, err)

	for _, tt := range []struct {
		err   error
		class error
		text  string
	}{
		{n.Leave(ctx, "n", "e"), nil, `plugin "x": NetworkDriver.Leave: no`},
		{n.DiscoverDelete(ctx, network.Node{}), nil, `plugin "x": NetworkDriver.DiscoverDelete: no`},
		{n.ProgramExternal(ctx, "n", "e", network.EndpointOptions{}), errdefs.ErrUnsupported, `plugin "x": NetworkDriver.ProgramExternalConnectivity: 404 page not found`},
		{n.RevokeExternal(ctx, "n", "e"), nil, `plugin "x": NetworkDriver.RevokeExternalConnectivity: answer is not the JSON of this method: empty`},
		{p.ReleasePool(ctx, "p"), nil, `plugin "x": IpamDriver.ReleasePool: no such pool`},
		{second(p.RequestAddress(ctx, AddressRequest{})), errdefs.ErrInvalid, `plugin "x": IpamDriver.RequestAddress: answer: no address`},
	} {
		if tt.err == nil || tt.err.Error() != tt.text || errdefs.Class(tt.err) != tt.class { //nolint:errorlint // a class itself
			t.Errorf("error %v of class %v, want %s of %v", tt.err, errdefs.Class(tt.err), tt.text, tt.class)
		}
	}
	maps.Copy(answers, map[string]string{
		"/NetworkDriver.GetCapabilities": `{"Scope":"Local"}`, "/NetworkDriver.CreateEndpoint": `{"Interface":{"MacAddress":"x"}}`,
		"/NetworkDriver.Join": `{"StaticRoutes":[{"Destination":"10.0.0.1"}]}`, "/IpamDriver.RequestPool": `{"PoolID":"p"}`,
	})
	for i, err := range []error{
		second(n.Capabilities(ctx)), second(n.CreateEndpoint(ctx, "n", network.Endpoint{})),
		second(n.Join(ctx, "n", "e", network.Sandbox{})), second(p.RequestPool(ctx, PoolRequest{})),
	} {
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("answer %d that cannot be used: %v, want ErrInvalid", i, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAuthZ(t *testing.T) {
	h, last := recorder(`{"Allow":true,"Err":"does not count"}`)
	c := serve(t, h, Options{})
	r := APIRequest{Method: "POST", URI: "/v1.41/x", Body: []byte("{}"), Headers: map[string]string{"A": "b"}}
	if err := c.AuthZ().Request(t.Context(), r); err != nil {
		t.Error(err)
	}
	if got, want := last(), `{"RequestMethod":"POST","RequestUri":"/v1.41/x","RequestBody":"e30=","RequestHeaders":{"A":"b"}}`+"\n"; got.Body != want || got.Line != "POST /AuthZPlugin.AuthZReq" {
		t.Errorf("%s %s, want %s", got.Line, got.Body, want)
	}
	if err := c.AuthZ().Response(t.Context(), r, APIResponse{Status: 201, Body: []byte("[]")}); err != nil {
		t.Error(err)
	}
	if got := last(); !strings.Contains(got.Body, `"ResponseStatusCode":201,"ResponseBody":"W10="`) || got.Line != "POST /AuthZPlugin.AuthZRes" {
		t.Errorf("%s %s", got.Line, got.Body)
	}
	for _, answer := range []string{`{"Allow":false,"Msg":"not\nyou"}`, `{"Msg":"not you"}`} {
		h, _ := recorder(answer)
		err := serve(t, h, Options{}).AuthZ().Request(t.Context(), r)
		if !errors.Is(err, errdefs.ErrDenied) || err.Error() != "authorization denied by plugin x: not you" {
			t.Errorf("%s: %v", answer, err)
		}
	}
	h, _ = recorder("")
	if err := serve(t, h, Options{}).AuthZ().Request(t.Context(), r); err == nil || errors.Is(err, errdefs.ErrDenied) {
		t.Errorf("empty answer: %v, want an error that is not the plugin's denial", err)
	}
}
