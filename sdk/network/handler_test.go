package network

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// script is a driver that remembers its calls and does in each what the test says.
type script struct {
	mu    sync.Mutex
	calls []string
	do    map[string]func(context.Context) error // by verb

	assigned   Assigned
	attachment Attachment
}

func (s *script) on(ctx context.Context, verb, id string) error {
	s.mu.Lock()
	s.calls = append(s.calls, verb+" "+id)
	do := s.do[verb]
	s.mu.Unlock()
	if do != nil {
		return do(ctx)
	}
	return nil
}

// took returns the calls since the last time.
func (s *script) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *script) will(verb string, do func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.do == nil {
		s.do = map[string]func(context.Context) error{}
	}
	s.do[verb] = do
}

func (s *script) CreateNetwork(ctx context.Context, n Network) error {
	return s.on(ctx, "create", n.ID)
}

func (s *script) DeleteNetwork(ctx context.Context, n Network) error {
	return s.on(ctx, "delete", n.ID)
}

func (s *script) CreateEndpoint(ctx context.Context, _ Network, ep Endpoint) (Assigned, error) {
	return s.assigned, s.on(ctx, "add", ep.ID)
}

func (s *script) DeleteEndpoint(ctx context.Context, _ Network, ep Endpoint) error {
	return s.on(ctx, "remove", ep.ID)
}

func (s *script) Join(ctx context.Context, _ Network, ep Endpoint, _ Sandbox) (Attachment, error) {
	return s.attachment, s.on(ctx, "join", ep.ID)
}

func (s *script) Leave(ctx context.Context, _ Network, ep Endpoint) error {
	return s.on(ctx, "leave", ep.ID)
}

// connector is a script that publishes, too.
type connector struct{ *script }

func (c connector) ProgramExternal(ctx context.Context, _ Network, ep Endpoint, _ EndpointOptions) error {
	return c.on(ctx, "program", ep.ID)
}

func (c connector) RevokeExternal(ctx context.Context, _ Network, ep Endpoint) error {
	return c.on(ctx, "revoke", ep.ID)
}

func (c connector) EndpointInfo(ctx context.Context, _ Network, ep Endpoint) (map[string]any, error) {
	return map[string]any{"unfit": func() {}}, c.on(ctx, "info", ep.ID)
}

func open(t *testing.T, d Driver, o Options) *Handler {
	t.Helper()
	h, err := NewHandler(t.Context(), d, o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wantCalls(t *testing.T, s *script, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, s.took()); diff != "" {
		t.Errorf("calls of the driver (-want +got):\n%s", diff)
	}
}

var (
	net1 = Network{ID: "n1", EnableIPv4: true, IPv4: []Pool{{AddressSpace: "local", Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParsePrefix("10.0.0.1/24")}}}
	ep1  = Endpoint{ID: "e1", IPv4: netip.MustParsePrefix("10.0.0.2/24"), MAC: []byte{2, 0, 0, 0, 0, 1}}
)

// started returns a Handler with a network and an endpoint that is joined.
func started(t *testing.T, d Driver, s *script, o Options) *Handler {
	t.Helper()
	h := open(t, d, o)
	err := h.createNetwork(t.Context(), net1)
	if err == nil {
		_, err = h.createEndpoint(t.Context(), "n1", ep1)
	}
	if err == nil {
		_, err = h.join(t.Context(), "n1", "e1", Sandbox{Key: "/netns/1"})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.took()
	return h
}

func fails(context.Context) error { return errdefs.Errorf(errdefs.ErrUnavailable, "uplink is down") }

func TestFailureIsUndone(t *testing.T) {
	s := &script{}
	h := open(t, connector{s}, Options{})
	s.will("create", fails)
	err := h.createNetwork(t.Context(), net1)
	if err == nil || err.Error() != "network n1: uplink is down" || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("CreateNetwork: %v", err)
	}
	wantCalls(t, s, "create n1", "delete n1")
	if got := h.Networks(); len(got) != 0 {
		t.Errorf("networks %+v", got)
	}

	s.will("create", nil)
	s.will("add", fails)
	if err := h.createNetwork(t.Context(), net1); err != nil {
		t.Fatal(err)
	}
	if _, err := h.createEndpoint(t.Context(), "n1", ep1); err == nil || err.Error() != "network n1: endpoint e1: uplink is down" {
		t.Errorf("CreateEndpoint: %v", err)
	}
	wantCalls(t, s, "create n1", "add e1", "remove e1")

	s.will("add", nil)
	s.will("join", fails)
	if _, err := h.createEndpoint(t.Context(), "n1", ep1); err != nil {
		t.Fatal(err)
	}
	if _, err := h.join(t.Context(), "n1", "e1", Sandbox{Key: "/netns/1"}); err == nil {
		t.Error("Join succeeded")
	}
	if err := h.deleteEndpoint(t.Context(), "n1", "e1"); err != nil {
		t.Error(err)
	}
	wantCalls(t, s, "add e1", "join e1", "leave e1", "remove e1")
}

func TestProgramThatFailsIsRevoked(t *testing.T) {
	s := &script{}
	h := started(t, connector{s}, s, Options{})
	s.will("program", fails)
	if err := h.program(t.Context(), connector{s}, "n1", "e1", EndpointOptions{}); err == nil {
		t.Error("Program succeeded")
	}
	wantCalls(t, s, "program e1", "revoke e1")
}

func TestPanicIsUndone(t *testing.T) {
	s := &script{}
	h := open(t, s, Options{})
	s.will("create", func(context.Context) error { panic("boom") })
	if err := h.createNetwork(t.Context(), net1); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("CreateNetwork: %v", err)
	}
	wantCalls(t, s, "create n1", "delete n1")
}

func TestOrderIsKept(t *testing.T) {
	s := &script{}
	c := connector{s}
	h := started(t, c, s, Options{})
	if err := h.program(t.Context(), c, "n1", "e1", EndpointOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := h.deleteNetwork(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, s, "program e1", "revoke e1", "leave e1", "remove e1", "delete n1")
	// The engine's own calls come too late, with IDs that nobody knows any more.
	for _, call := range []func(context.Context, string, string) error{h.leave, h.deleteEndpoint} {
		if err := call(t.Context(), "n1", "e1"); err != nil {
			t.Error(err)
		}
	}
}

func TestSettledMayNotChange(t *testing.T) {
	for _, tt := range []struct {
		name string
		a    Assigned
		want string // "" is admitted
	}{
		{"nothing", Assigned{}, ""},
		{"the same", Assigned{IPv4: ep1.IPv4, MAC: ep1.MAC}, ""},
		{"another address", Assigned{IPv4: netip.MustParsePrefix("10.0.0.3/24")}, "changes the address from 10.0.0.2/24, which is settled, to 10.0.0.3/24"},
		{"another length", Assigned{IPv4: netip.MustParsePrefix("10.0.0.2/16")}, "changes the address"},
		{"another MAC", Assigned{MAC: []byte{2, 0, 0, 0, 0, 9}}, "changes the MAC from 02:00:00:00:00:01, which is settled, to 02:00:00:00:00:09"},
		{"wrong family", Assigned{IPv6: netip.MustParsePrefix("10.0.0.3/24")}, "10.0.0.3/24 is no IPv6 address"},
		{"its own choice", Assigned{IPv6: netip.MustParsePrefix("fd00::2/64")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{assigned: tt.a}
			h := open(t, s, Options{})
			if err := h.createNetwork(t.Context(), net1); err != nil {
				t.Fatal(err)
			}
			s.took()
			got, err := h.createEndpoint(t.Context(), "n1", ep1)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				wantCalls(t, s, "add e1", "remove e1")
				return
			}
			if err != nil || got.IPv4.IsValid() || got.MAC != nil || got.IPv6 != tt.a.IPv6 {
				t.Errorf("CreateEndpoint = %+v, %v", got, err)
			}
		})
	}
}

func TestAttachment(t *testing.T) {
	gw := netip.MustParseAddr("10.0.0.1")
	for _, tt := range []struct {
		name string
		a    Attachment
		want string
	}{
		{"none", Attachment{NoGatewayBridge: true}, ""},
		{"usual", Attachment{Interface: "veth1", Gateway: gw}, ""},
		{"link-local", Attachment{Interface: "veth1", GatewayIPv6: netip.MustParseAddr("fe80::1")}, ""},
		{"gateway alone", Attachment{Gateway: gw}, "a gateway, but no interface"},
		{"routes alone", Attachment{Routes: []Route{{Destination: net1.IPv4[0].Prefix}}}, "routes, but no interface"},
		{"long name", Attachment{Interface: "sixteen-bytes-xx"}, `interface name "sixteen-bytes-xx"`},
		{"space", Attachment{Interface: "veth1", Prefix: "e h"}, `interface name "e h"`},
		{"space in the whole name", Attachment{Interface: "veth1", Name: "e h"}, `interface name "e h"`},
		{"name alone", Attachment{Name: "lan0"}, "a name, but no interface"},
		{"far gateway", Attachment{Interface: "veth1", Gateway: netip.MustParseAddr("192.168.0.1")}, "lies in no pool"},
		{"own address", Attachment{Interface: "veth1", Gateway: ep1.IPv4.Addr()}, "own address"},
		{"wrong family", Attachment{Interface: "veth1", GatewayIPv6: gw}, "10.0.0.1 is no IPv6 gateway"},
		{"route nowhere", Attachment{Interface: "veth1", Routes: []Route{{NextHop: gw}}}, "without a destination"},
		{"route across", Attachment{Interface: "veth1", Routes: []Route{{netip.MustParsePrefix("fd00::/64"), gw}}}, "two families"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := checkAttachment(net1, ep1, tt.a)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err == nil && got.Interface != "" && got.Prefix != "eth" {
				t.Errorf("prefix %q", got.Prefix)
			}
		})
	}
}

func TestOthersDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		h := started(t, s, s, Options{})
		release := make(chan struct{})
		s.will("join", func(context.Context) error { <-release; return nil })
		other := Endpoint{ID: "e2"}
		if _, err := h.createEndpoint(t.Context(), "n1", other); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		go func() { _, _ = h.join(t.Context(), "n1", "e2", Sandbox{Key: "/netns/2"}) }() // ends below
		synctest.Wait()
		s.will("join", nil)
		if err := h.leave(t.Context(), "n1", "e1"); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("a call for another endpoint waited %v", took)
		}
		if err := h.leave(t.Context(), "n1", "e2"); !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "network n1: endpoint e2: leave: another call for it has not ended: gave up after 45s") {
			t.Errorf("a call for the same endpoint: %v", err)
		}
		close(release)
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestHangUpIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		h := open(t, s, Options{})
		s.will("create", func(context.Context) error { time.Sleep(10 * time.Second); return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.createNetwork(ctx, net1); err == nil {
			t.Error("CreateNetwork succeeded")
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantCalls(t, s, "create n1", "delete n1")
	})
}

func TestUnfinishedIsSwept(t *testing.T) {
	dir := t.TempDir()
	s := &script{}
	h := started(t, s, s, Options{State: Dir(dir)})
	s.will("remove", fails)
	if err := h.deleteEndpoint(t.Context(), "n1", "e1"); err == nil {
		t.Error("DeleteEndpoint succeeded")
	}
	wantCalls(t, s, "leave e1", "remove e1")
	s.will("delete", fails)
	if err := h.createNetwork(t.Context(), Network{ID: "n2"}); err != nil {
		t.Fatal(err)
	}
	if err := h.deleteNetwork(t.Context(), "n2"); err == nil {
		t.Error("DeleteNetwork succeeded")
	}

	again := &script{}
	h = open(t, again, Options{State: Dir(dir)})
	wantCalls(t, again, "remove e1", "delete n2")
	if got := h.Networks(); len(got) != 1 || len(got[0].Endpoints) != 0 || got[0].Network.ID != "n1" {
		t.Errorf("networks %+v, want n1 without endpoints", got)
	}
}

// broken is a State that cannot be written.
type broken struct{ State }

func (broken) Save(context.Context, string, []byte) error { return errors.New("disk full") }

func TestStateThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	s := &script{}
	h := open(t, s, Options{State: broken{Dir(dir)}})
	if err := h.createNetwork(t.Context(), net1); err == nil || err.Error() != "network n1: disk full" {
		t.Errorf("CreateNetwork: %v", err)
	}
	wantCalls(t, s)

	// What exists can be deleted all the same.
	started(t, s, s, Options{State: Dir(dir)})
	h = open(t, s, Options{State: broken{Dir(dir)}})
	if err := h.deleteNetwork(t.Context(), "n1"); err != nil {
		t.Error(err)
	}
	wantCalls(t, s, "leave e1", "remove e1", "delete n1")
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("state: %v, %v; want none", files, err)
	}
}

func TestStateFromOutside(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":         "{",
		"another network": `{"Version":1,"Network":{"ID":"n2"}}`,
		"another version": `{"Version":2,"Network":{"ID":"n1"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "n1.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := NewHandler(t.Context(), &script{}, Options{State: Dir(dir)})
			if err == nil || !strings.HasPrefix(err.Error(), "state of network n1: ") || len(errdefs.Hints(err)) == 0 {
				t.Errorf("NewHandler: %v", err)
			}
		})
	}
}

// TestStateIsRead holds this version to what an earlier one wrote.
func TestStateIsRead(t *testing.T) {
	dir := t.TempDir()
	const text = `{"Version":1,"Network":{"ID":"n1","EnableIPv4":true,"EnableIPv6":false,"Internal":false,"IPv4":[{"AddressSpace":"local","Prefix":"10.0.0.0/24","Gateway":"10.0.0.1/24"}]},` +
		`"Endpoints":{"e1":{"Asked":{"ID":"e1","IPv4":"10.0.0.2/24","IPv6":"","MAC":"AgAAAAAB","Options":{}},"Assigned":{"IPv4":"","IPv6":"","MAC":null},"Sandbox":{"Key":"/netns/1","Options":{}}}}}` + "\n"
	s := &script{}
	started(t, s, s, Options{State: Dir(dir)})
	written, err := os.ReadFile(filepath.Join(dir, "n1.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(written)); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	got := open(t, s, Options{State: Dir(dir)}).Networks()
	joined := ep1
	joined.Sandbox = &Sandbox{Key: "/netns/1"}
	want := []Restored{{Network: net1, Endpoints: []Endpoint{joined}}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// post makes one call over HTTP.
func post(t *testing.T, h *Handler, method, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.Methods()[method].ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+method, strings.NewReader(body)))
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, strings.TrimSpace(string(b))
}

func TestAnswersOnTheWire(t *testing.T) {
	s := &script{attachment: Attachment{
		Interface: "veth1", Name: "lan0", Gateway: netip.MustParseAddr("10.0.0.1"),
		Routes: []Route{{Destination: netip.MustParsePrefix("10.1.0.0/16"), NextHop: netip.MustParseAddr("10.0.0.9")}, {Destination: netip.MustParsePrefix("10.2.0.0/16")}},
	}}
	h := open(t, s, Options{})
	withInfo := started(t, connector{s}, s, Options{})
	for _, tt := range []struct {
		h            *Handler
		method, body string
		status       int
		want         string
	}{
		{h, wire.NetworkGetCapabilities, ``, 200, `{"Scope":"local","ConnectivityScope":"local"}`},
		{h, wire.NetworkGwAllocCheck, `{"Options":{}}`, 200, `{"SkipIPv4":false,"SkipIPv6":false}`},
		{h, wire.NetworkAllocate, `{"NetworkID":"n1","Options":{"a":"b"}}`, 200, `{"Options":{"a":"b"}}`},
		{h, wire.NetworkFree, `{"NetworkID":"n1"}`, 200, `{}`},
		{h, wire.NetworkProgramExternal, `{"NetworkID":"n1","EndpointID":"e1"}`, 404, `{"Err":"NetworkDriver.ProgramExternalConnectivity: this driver has no such method"}`},
		{h, wire.NetworkRevokeExternal, `{}`, 404, `{"Err":"NetworkDriver.RevokeExternalConnectivity: this driver has no such method"}`},
		{h, wire.NetworkDiscoverNew, `{}`, 404, `{"Err":"NetworkDriver.DiscoverNew: this driver has no such method"}`},
		{h, wire.NetworkDiscoverDelete, `{}`, 404, `{"Err":"NetworkDriver.DiscoverDelete: this driver has no such method"}`},
		{h, wire.NetworkEndpointOperInfo, `{"NetworkID":"x","EndpointID":"y"}`, 200, `{"Value":{}}`},
		{withInfo, wire.NetworkEndpointOperInfo, `{"NetworkID":"n1","EndpointID":"e1"}`, 200, `{"Value":{}}`},
		{h, wire.NetworkCreate, `{"NetworkID":"n1","IPv4Data":[{"Pool":"10.0.0.0/24","Gateway":"10.0.0.1/24"}]}`, 200, `{}`},
		{h, wire.NetworkCreate, `{"NetworkID":"n3","IPv4Data":[{"Pool":"10.0.0.0"}]}`, 500, `{"Err":"network n3: pool \"10.0.0.0\": not an address with a prefix length"}`},
		{h, wire.NetworkCreate, `{"NetworkID":"a/b"}`, 500, `{"Err":"network ID \"a/b\": not an ID"}`},
		// A MAC that came among the options alone is told to the engine.
		{h, wire.NetworkCreateEndpoint, `{"NetworkID":"n1","EndpointID":"e1","Options":{"com.docker.network.endpoint.macaddress":"AkIRIjNE"}}`, 200, `{"Interface":{"Address":"","AddressIPv6":"","MacAddress":"02:42:11:22:33:44"}}`},
		{h, wire.NetworkCreateEndpoint, `{"NetworkID":"n1","EndpointID":"e2","Interface":{"Address":"10.0.0.2/24","MacAddress":"02:42:11:22:33:44"}}`, 200, `{"Interface":null}`},
		{
			h, wire.NetworkJoin, `{"NetworkID":"n1","EndpointID":"e1","SandboxKey":"/x"}`, 200,
			`{"InterfaceName":{"SrcName":"veth1","DstPrefix":"eth","DstName":"lan0"},"Gateway":"10.0.0.1","StaticRoutes":[{"Destination":"10.1.0.0/16","RouteType":0,"NextHop":"10.0.0.9"},{"Destination":"10.2.0.0/16","RouteType":1}]}`,
		},
		{h, wire.NetworkJoin, `{"NetworkID":"n9","EndpointID":"e1","SandboxKey":"/x"}`, 500, `{"Err":"network n9: endpoint e1: this plugin does not know the network; the plugin lost its state; remove the network and create it again"}`},
	} {
		status, got := post(t, tt.h, tt.method, tt.body)
		if status != tt.status || got != tt.want {
			t.Errorf("%s %s:\n got %d %s\nwant %d %s", tt.method, tt.body, status, got, tt.status, tt.want)
		}
	}
	if calls := s.took(); !slices.Contains(calls, "info e1") {
		t.Errorf("the driver was not asked for information: %q", calls)
	}
}

// nodes is a driver that wants to know the nodes.
type nodes struct {
	*script
	got []Node
}

func (d *nodes) NodeJoined(_ context.Context, n Node) error { d.got = append(d.got, n); return nil }
func (d *nodes) NodeLeft(_ context.Context, n Node) error   { d.got = append(d.got, n); return nil }
func (d *nodes) Scope() (scope, connectivity Scope)         { return Global, "" }

func TestNodes(t *testing.T) {
	d := &nodes{script: &script{}}
	h := open(t, d, Options{})
	for _, body := range []string{
		`{"DiscoveryType":1,"DiscoveryData":{"Address":"10.0.0.7","BindAddress":"10.0.0.8","Self":true}}`,
		`{"DiscoveryType":3,"DiscoveryData":null}`,
	} {
		if status, got := post(t, h, wire.NetworkDiscoverNew, body); status != 200 {
			t.Errorf("DiscoverNew %s: %d %s", body, status, got)
		}
	}
	want := []Node{{Address: netip.MustParseAddr("10.0.0.7"), BindAddress: netip.MustParseAddr("10.0.0.8"), Self: true}}
	if !slices.Equal(d.got, want) {
		t.Errorf("nodes %+v, want %+v", d.got, want)
	}
	if _, got := post(t, h, wire.NetworkGetCapabilities, ""); got != `{"Scope":"global","ConnectivityScope":"global"}` {
		t.Errorf("GetCapabilities: %s", got)
	}
}

func TestOptions(t *testing.T) {
	var w wire.CreateEndpointRequest
	err := json.Unmarshal([]byte(`{"NetworkID":"n","EndpointID":"e",
		"Interface":{"Address":"10.99.0.77/24","AddressIPv6":"","MacAddress":"02:42:11:22:33:44"},
		"Options":{"com.docker.network.endpoint.exposedports":[{"Proto":6,"Port":80},{"Proto":17,"Port":53}],
		"com.docker.network.endpoint.macaddress":"AkIRIjNE","com.docker.network.endpoint.dnsservers":["10.0.0.53"],
		"com.docker.network.endpoint.ifname":"lan0","com.docker.network.endpoint.sysctls":"a=1,b=2",
		"com.docker.network.driver.private.no_proxy_6to4":true,"com.docker.new":[1],
		"com.docker.network.portmap":[{"Proto":6,"IP":"","Port":80,"HostIP":"127.0.0.1","HostPort":8081,"HostPortEnd":8081}],"dk":"dv"}}`), &w)
	if err != nil {
		t.Fatal(err)
	}
	got, err := endpointFromWire(&w)
	want := Endpoint{ID: "e", IPv4: netip.MustParsePrefix("10.99.0.77/24"), MAC: []byte{2, 0x42, 0x11, 0x22, 0x33, 0x44}, Options: EndpointOptions{
		ExposedPorts:  []Port{{TCP, 80}, {UDP, 53}},
		PortMap:       []PortBinding{{Port: Port{TCP, 80}, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8081, HostPortEnd: 8081}},
		DNS:           []netip.Addr{netip.MustParseAddr("10.0.0.53")},
		InterfaceName: "lan0", Sysctls: "a=1,b=2", NoProxy6To4: true,
		DriverOpts: map[string]string{"dk": "dv"}, Raw: map[string]json.RawMessage{"com.docker.new": json.RawMessage("[1]")},
	}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("endpoint: %v (-want +got):\n%s", err, diff)
	}
	if p := (Port{SCTP, 9}).String() + (Port{99, 1}).String(); p != "9/sctp1/99" {
		t.Errorf("ports %s", p)
	}

	n, err := networkFromWire(&wire.CreateNetworkRequest{NetworkID: "n", Options: wire.NetworkOptions{
		wire.OptionGeneric: json.RawMessage(`{"opt1":"val1","n":{"a": 1}}`), wire.OptionInternal: json.RawMessage("true"),
		wire.OptionEnableIPv4: json.RawMessage("false"), "other": json.RawMessage("1"),
	}})
	wantN := Network{ID: "n", Internal: true, Options: map[string]string{"opt1": "val1", "n": `{"a":1}`}, Raw: map[string]json.RawMessage{"other": json.RawMessage("1")}}
	if diff := cmp.Diff(wantN, n); err != nil || diff != "" {
		t.Errorf("network: %v (-want +got):\n%s", err, diff)
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(`{"NetworkID":"n","Options":{"com.docker.network.generic":{"a":"b"}},"IPv4Data":[{"Pool":"10.0.0.0/8","AuxAddresses":{"a":"10.0.0.1/8"}}]}`))
	f.Add([]byte(`{"EndpointID":"e","Interface":{"Address":"10.0.0.1/8"},"Options":{"com.docker.network.portmap":[{"Proto":6,"HostIP":"::"}],"x":"y"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n wire.CreateNetworkRequest
		if json.Unmarshal(b, &n) == nil {
			if got, err := networkFromWire(&n); err == nil && !equal(got, got) {
				t.Errorf("network cannot be written down: %+v", got)
			}
		}
		var ep wire.CreateEndpointRequest
		if json.Unmarshal(b, &ep) == nil {
			if got, err := endpointFromWire(&ep); err == nil && !equal(got, got) {
				t.Errorf("endpoint cannot be written down: %+v", got)
			}
		}
	})
}
