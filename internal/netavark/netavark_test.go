package netavark

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// plugin keeps what it is asked for, and answers with what a container got.
type plugin struct {
	created  []Network
	setUp    []Container
	tornDown []Container
	path     string
	err      error
}

func (p *plugin) Create(_ context.Context, n Network) (Network, error) {
	p.created = append(p.created, n)
	n.Subnets = []Subnet{{Subnet: netip.MustParsePrefix("10.1.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.1")}}
	return n, p.err
}

func (p *plugin) Setup(_ context.Context, path string, c Container) (Status, error) {
	p.path, p.setUp = path, append(p.setUp, c)
	return Status{
		Search: []string{"remora.local"}, Servers: []netip.Addr{netip.MustParseAddr("10.1.0.1")},
		Interfaces: map[string]Interface{"eth0": {MAC: "02:72:0a:01:00:02", Subnets: []Address{{Address: netip.MustParsePrefix("10.1.0.2/16")}}}},
	}, p.err
}

func (p *plugin) Teardown(_ context.Context, path string, c Container) error {
	p.path, p.tornDown = path, append(p.tornDown, c)
	return p.err
}

func (*plugin) Info() Info { return Info{Version: "1", APIVersion: APIVersion} }

// sent is what netavark 1.14 writes for setup and teardown.
func sent(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/setup.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func call(p Plugin, in string, args ...string) (string, error) {
	var out bytes.Buffer
	err := Serve(context.Background(), p, args, strings.NewReader(in), &out)
	return out.String(), err
}

func TestServe(t *testing.T) {
	p := &plugin{}
	out, err := call(p, sent(t), "setup", "/run/netns/one")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"dns_search_domains":["remora.local"],"dns_server_ips":["10.1.0.1"],"interfaces":{"eth0":{"mac_address":"02:72:0a:01:00:02","subnets":[{"ipnet":"10.1.0.2/16"}]}}}` + "\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	c := p.setUp[0]
	if c.Name != "testctr" || c.Network.Name != "blue" || c.Options.Interface != "eth0" || p.path != "/run/netns/one" || c.Options.Addresses[0] != netip.MustParseAddr("10.88.0.50") {
		t.Errorf("it was asked for %+v at %s", c, p.path)
	}
	if out, err := call(p, sent(t), "teardown", "/run/netns/one"); err != nil || out != "" || len(p.tornDown) != 1 {
		t.Errorf("teardown: %q, %v", out, err)
	}
	for _, args := range [][]string{nil, {"info"}} {
		if out, err := call(p, "", args...); err != nil || out != `{"version":"1","api_version":"1.0.0"}`+"\n" {
			t.Errorf("info: %q, %v", out, err)
		}
	}
}

// TestCreateKeepsTheRest: what this version does not know comes back as it was.
func TestCreateKeepsTheRest(t *testing.T) {
	in := `{"name":"blue","id":"ab12","driver":"remora","created":"2026-11-01T00:00:00Z","labels":{"a":"b"},"subnets":[{"subnet":"10.1.0.0/16"}],"ipv6_enabled":false,"internal":true,"dns_enabled":true,"options":{"mtu":"1400"}}`
	out, err := call(&plugin{}, in, "create")
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	must(t, json.Unmarshal([]byte(out), &got))
	must(t, json.Unmarshal([]byte(strings.Replace(in, `"10.1.0.0/16"}`, `"10.1.0.0/16","gateway":"10.1.0.1"}`, 1)), &want))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWrongInput(t *testing.T) {
	good := sent(t)
	for name, c := range map[string]struct {
		args     []string
		in, want string
	}{
		"no JSON":      {[]string{"create"}, "hello", "is not the JSON that netavark sends"},
		"nothing":      {[]string{"create"}, "", "is not the JSON"},
		"no name":      {[]string{"create"}, `{"id":"1"}`, `is no name of a network`},
		"bad name":     {[]string{"create"}, `{"name":"../x","id":"1"}`, `network "../x"`},
		"bad ID":       {[]string{"create"}, `{"name":"x","id":"../1"}`, "not letters and digits"},
		"bad subnet":   {[]string{"create"}, `{"name":"x","id":"1","subnets":[{"subnet":"10.1"}]}`, "10.1"},
		"no subnet":    {[]string{"create"}, `{"name":"x","id":"1","subnets":[{}]}`, "a subnet is missing"},
		"no path":      {[]string{"setup"}, good, "path of the network namespace is missing"},
		"no container": {[]string{"setup", "/x"}, strings.Replace(good, "752947ff91f961eb3cb47ffe9315016979f3ffbec09e4d96a4fae3fb03391697", "", 1), "container ID"},
		"bad link":     {[]string{"setup", "/x"}, strings.Replace(good, "eth0", "an interface", 1), "no interface can be called so"},
		"bad MAC":      {[]string{"teardown", "/x"}, strings.Replace(good, "aa:bb:cc:dd:aa:00", "aa:bb", 1), `MAC "aa:bb"`},
		"unknown call": {[]string{"destroy"}, good, `call "destroy": not known`},
		"too long":     {[]string{"create"}, strings.Repeat(" ", maxInput+1), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &plugin{}
			out, err := call(p, c.in, c.args...)
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), c.want) || out != "" {
				t.Errorf("%q, %v", out, err)
			}
			if len(p.created)+len(p.setUp)+len(p.tornDown) > 0 {
				t.Error("the plugin was asked all the same")
			}
		})
	}
}

// TestTell: an error is one line of JSON, with what to do.
func TestTell(t *testing.T) {
	var out bytes.Buffer
	must(t, Tell(&out, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "network %q:\nit is blue", "x"), "paint it")))
	if want := `{"error":"network \"x\":; it is blue (paint it)"}` + "\n"; out.String() != want {
		t.Errorf("%s, want %s", out.String(), want)
	}
}

func TestRange(t *testing.T) {
	subnet := netip.MustParsePrefix("10.50.0.0/16")
	for _, c := range []struct{ start, end, want string }{
		{"10.50.8.0", "10.50.8.255", "10.50.8.0/24"},
		{"10.50.8.1", "10.50.8.255", "10.50.8.0/24"},
		{"10.50.0.1", "10.50.255.255", "10.50.0.0/16"},
		{"10.50.8.5", "10.50.8.5", "10.50.8.5/32"},
		{"10.50.8.5", "10.50.8.20", ""},
		{"10.51.0.0", "10.51.0.255", ""},
	} {
		got, ok := Range{netip.MustParseAddr(c.start), netip.MustParseAddr(c.end)}.Prefix(subnet)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%s to %s: %s, %t", c.start, c.end, got, ok)
		}
	}
	if _, ok := (Range{}).Prefix(subnet); ok {
		t.Error("no range is one")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(sent(f)))
	f.Add([]byte(`{"name":"x","id":"1","subnets":[{"subnet":"10.1.0.0/16","lease_range":{"start_ip":"10.1.0.1"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := DecodeContainer(bytes.NewReader(text)); err == nil && (c.ID == "" || c.Network.Name == "" || strings.Contains(c.Options.Interface, "/")) {
			t.Errorf("taken: %+v", c)
		}
		n, err := DecodeNetwork(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range n.Subnets {
			if s.Range != nil {
				s.Range.Prefix(s.Subnet)
			}
		}
		again, err := json.Marshal(n)
		must(t, err)
		if _, err := DecodeNetwork(bytes.NewReader(again)); err != nil {
			t.Errorf("%s became %s: %v", text, again, err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
