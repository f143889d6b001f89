package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func host(n byte) record.Host { return record.Host{n} }

var blue = record.Network{ID: "b1000000000000b1", Subnets: []netip.Prefix{prefix("10.40.0.0/16")}}

// cluster is n hosts with keys, 10.9.0.1 and up, and a block of blue each.
func cluster(n int) Input {
	in := Input{
		Members: map[record.Host]record.Member{}, Links: map[record.Host]record.Links{}, Networks: []record.Network{blue},
		TunnelPort: 6784, VXLANPort: 6785, Secret: []byte("secret"), Facts: Facts{Uplink: 1500},
	}
	for i := 1; i <= n; i++ {
		h, key, a := host(byte(i)), [32]byte{byte(i)}, netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})
		in.Members[h] = record.Member{
			Nickname: fmt.Sprintf("h%d", i), TunnelKey: &key, Control: []netip.AddrPort{netip.AddrPortFrom(a, 6783)}, Tunnel: []netip.AddrPort{netip.AddrPortFrom(a, 6784)},
		}
		in.Blocks = append(in.Blocks, Block{blue.ID, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 40, byte(i), 0}), 24), h})
	}
	in.Self = host(1)
	return in
}

func as(in Input, self byte) Input {
	in.Self = host(self)
	return in
}

func change(in Input, h byte, f func(*record.Member)) {
	m := in.Members[host(h)]
	f(&m)
	in.Members[host(h)] = m
}

func kind(p Plan, h byte) string {
	for _, path := range p.Paths {
		if path.Host == host(h) {
			return path.Kind
		}
	}
	return ""
}

// TestPairsAgree: whatever two hosts want, both send the same way, and never in the clear unless both want that.
func TestPairsAgree(t *testing.T) {
	wants := map[string]func(*record.Member){
		"encrypts":          func(*record.Member) {},
		"has no key":        func(m *record.Member) { m.TunnelKey = nil },
		"trusts the link":   func(m *record.Member) { m.Trusted = []netip.Prefix{prefix("10.9.0.0/24")} },
		"trusts another":    func(m *record.Member) { m.Trusted = []netip.Prefix{prefix("10.8.0.0/24")} },
		"trusts itself":     func(m *record.Member) { m.Trusted = []netip.Prefix{prefix("10.9.0.1/32"), prefix("10.9.0.2/32")} },
		"is behind NAT":     func(m *record.Member) { m.Control = nil },
		"trusts behind NAT": func(m *record.Member) { m.Control, m.Trusted = nil, []netip.Prefix{prefix("10.0.0.0/8")} },
	}
	for one, f := range wants {
		for other, g := range wants {
			for _, onLink := range []bool{false, true} {
				in := cluster(2)
				change(in, 1, f)
				change(in, 2, g)
				if onLink {
					in.Facts.OnLink = map[netip.Addr]string{netip.MustParseAddr("10.9.0.1"): "eth0", netip.MustParseAddr("10.9.0.2"): "eth0"}
				}
				here, there := Compute(in), Compute(as(in, 2))
				want := Sealed
				bare := [2]bool{one == "has no key", other == "has no key"}
				switch {
				case bare[0] != bare[1]:
					want = None
				case bare[0] || one == "trusts the link" && other == "trusts the link":
					if want = Boxed; onLink {
						want = Routed
					}
				}
				if a, b := kind(here, 2), kind(there, 1); a != want || b != want {
					t.Errorf("one %s, the other %s, on one link %v: %s and %s, want %s", one, other, onLink, a, b, want)
				}
				if want == None && (here.Paths[0].Problem == "" || len(here.Routes) > 0) {
					t.Errorf("one %s, the other %s: %+v, %+v", one, other, here.Paths, here.Routes)
				}
			}
		}
	}
}

// TestPlainNetwork: a network that wants no encryption has none between hosts of which neither is behind NAT.
func TestPlainNetwork(t *testing.T) {
	in := cluster(3)
	plain := record.Network{ID: "aa000000000000aa", Subnets: []netip.Prefix{prefix("10.50.0.0/16")}, Plain: true}
	in.Networks = append(in.Networks, plain)
	for i := byte(1); i <= 3; i++ {
		in.Blocks = append(in.Blocks, Block{plain.ID, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 50, i, 0}), 24), host(i)})
	}
	change(in, 3, func(m *record.Member) { m.Control = nil })
	p := Compute(in)
	link := map[string]string{}
	for _, r := range p.Routes {
		link[r.Dst.String()] = r.Link
	}
	want := map[string]string{"10.40.2.0/24": Tunnel, "10.40.3.0/24": Tunnel, "10.50.2.0/24": VXLAN4, "10.50.3.0/24": Tunnel}
	if diff := cmp.Diff(want, link); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	// What may come the plain way is no longer taken from the tunnel, and the other way round.
	two := p.Tunnel.Peers[tunnel.Key{2}]
	if !slices.Contains(two.Allowed, prefix("10.40.2.0/24")) || slices.Contains(two.Allowed, prefix("10.50.2.0/24")) {
		t.Errorf("allowed: %v", two.Allowed)
	}
	if diff := cmp.Diff([]string{"10.9.0.2"}, strings.Fields(strings.Trim(fmt.Sprint(p.Rules.Senders), "[]"))); diff != "" {
		t.Errorf("senders (-want +got):\n%s", diff)
	}
}

// TestBlocksWithin: the network's maker owns all of it but what it gave away.
func TestBlocksWithin(t *testing.T) {
	in := cluster(3)
	in.Blocks = []Block{
		{blue.ID, prefix("10.40.0.0/16"), host(2)},
		{blue.ID, prefix("10.40.128.0/17"), host(3)},
		{blue.ID, prefix("10.40.192.0/24"), host(1)},
		{blue.ID, prefix("10.99.0.0/24"), host(2)},                     // of no subnet
		{"0000000000000000", prefix("10.40.7.0/24"), host(3)},          // of no network
		{blue.ID, prefix("10.40.8.0/24"), record.Host{9}},              // of no member
		{blue.ID, prefix("10.40.192.0/24"), host(3)},                   // of two
		{blue.ID, prefix("10.0.0.0/8"), host(3)},                       // of more than there is
		{blue.ID, prefix("10.40.0.0/16"), host(2)},                     // twice
		{blue.ID, netip.MustParsePrefix("fd40::/112"), record.Host{2}}, // of another family
	}
	p := Compute(in)
	owner := func(a string) (who string) {
		for _, r := range p.Routes {
			if r.Dst.Contains(netip.MustParseAddr(a)) {
				for _, peer := range p.Tunnel.Peers {
					if slices.Contains(peer.Allowed, r.Dst) {
						who += peer.Endpoint.Addr().String()
					}
				}
			}
		}
		return who
	}
	for a, want := range map[string]string{
		"10.40.0.1": "10.9.0.2", "10.40.127.255": "10.9.0.2", "10.40.128.0": "10.9.0.3", "10.40.191.255": "10.9.0.3", "10.40.193.0": "10.9.0.3", "10.40.192.7": "", "10.99.0.1": "",
	} {
		if got := owner(a); got != want {
			t.Errorf("%s is %q, want %q", a, got, want)
		}
	}
	if len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "10.40.192.0/24") {
		t.Errorf("problems: %q", p.Problems)
	}
	if p.Routes[0].Dst != prefix("10.40.0.0/17") {
		t.Errorf("a half is cut up: %v", p.Routes)
	}
}

// TestRelayAgrees: the two ends of every pair that lost its way choose the same relay, and one that both reach.
func TestRelayAgrees(t *testing.T) {
	in := cluster(6)
	for i := byte(3); i <= 5; i++ { // the sixth reaches but one of them
		in.Links[host(i)] = record.Links{Links: []record.Link{
			{Host: host(1), RTT: time.Duration(i) * time.Millisecond / 10, Tunnel: in.Members[host(1)].Tunnel[0]},
			{Host: host(2), RTT: time.Millisecond / 10, Tunnel: in.Members[host(2)].Tunnel[0], MTU: 1300},
		}}
	}
	in.Links[host(6)] = record.Links{Links: []record.Link{{Host: host(1), Tunnel: in.Members[host(1)].Tunnel[0]}}}
	down := func(self byte, who ...byte) Plan {
		in := as(in, self)
		in.Facts.Down = map[record.Host]bool{}
		for _, w := range who {
			in.Facts.Down[host(w)] = true
		}
		return Compute(in)
	}
	via := func(p Plan, h byte) record.Host {
		for _, path := range p.Paths {
			if path.Host == host(h) {
				return path.Via
			}
		}
		t.Fatalf("no path to %d", h)
		return record.Host{}
	}
	here, there := down(1, 2), down(2, 1)
	relay := via(here, 2)
	if relay.IsZero() || relay == host(6) || relay != via(there, 1) {
		t.Fatalf("relays %v and %v", relay, via(there, 1))
	}
	peer := here.Tunnel.Peers[tunnel.Key{relay[0]}]
	if !slices.Contains(peer.Allowed, prefix("10.40.2.0/24")) || slices.Contains(here.Tunnel.Peers[tunnel.Key{2}].Allowed, prefix("10.40.2.0/24")) {
		t.Errorf("allowed: %v", peer.Allowed)
	}
	if !slices.Contains(here.Tunnel.Peers[tunnel.Key{2}].Allowed, netip.PrefixFrom(Inner(host(2)), 128)) {
		t.Error("the direct way is not asked any more")
	}
	for _, r := range here.Routes {
		if r.Dst == prefix("10.40.2.0/24") && r.MTU != 1300 {
			t.Errorf("the MTU of a relayed path is %d", r.MTU)
		}
	}
	// One that is lost as well is none; without any the pair stays as it is, and says so.
	if other := via(down(1, 2, relay[0]), 2); other.IsZero() || other == relay {
		t.Errorf("relay %v", other)
	}
	if p := down(1, 2, 3, 4, 5, 6); !via(p, 2).IsZero() || p.Paths[0].Problem == "" {
		t.Errorf("%+v", p.Paths[0])
	}
	// One that is far is taken only where there is no near one.
	l := in.Links[relay]
	l.Links[0].RTT = time.Second
	if other := via(down(1, 2), 2); other == relay {
		t.Error("a relay that is a second away is chosen")
	}
}

func TestPairKey(t *testing.T) {
	a, b := Compute(cluster(3)), Compute(as(cluster(3), 2))
	key := a.Tunnel.Peers[tunnel.Key{2}].Shared
	if key != b.Tunnel.Peers[tunnel.Key{1}].Shared || key == (tunnel.Key{}) {
		t.Error("two hosts have different keys, or none")
	}
	if key == a.Tunnel.Peers[tunnel.Key{3}].Shared {
		t.Error("two pairs have one key")
	}
	in := cluster(2)
	in.Secret = []byte("another")
	if Compute(in).Tunnel.Peers[tunnel.Key{2}].Shared == key {
		t.Error("two clusters have one key")
	}
}

func TestMTU(t *testing.T) {
	in := cluster(2)
	mtu := func() int { return Compute(in).Routes[0].MTU }
	if m := mtu(); m != 1420 {
		t.Errorf("%d", m)
	}
	in.Facts.MTU = map[record.Host]int{host(2): 1300}
	if m := mtu(); m != 1300 {
		t.Errorf("%d", m)
	}
	in.Facts.MTU[host(2)] = 900
	if m := mtu(); m != Floor {
		t.Errorf("%d", m)
	}
	in.Facts.MTU, in.Facts.Uplink = nil, 9000
	if m := mtu(); m != 8920 {
		t.Errorf("%d", m)
	}
	in.Networks = []record.Network{blue}
	in.Networks[0].MTU = 1400
	if m := mtu(); m != 1400 {
		t.Errorf("%d", m)
	}
}

func TestKeepalive(t *testing.T) {
	in := cluster(2)
	if k := Compute(in).Tunnel.Peers[tunnel.Key{2}].Keepalive; k != 0 {
		t.Errorf("a host that can be reached sends every %v", k)
	}
	change(in, 1, func(m *record.Member) { m.Control = nil })
	if k := Compute(in).Tunnel.Peers[tunnel.Key{2}].Keepalive; k != 25*time.Second {
		t.Errorf("a host behind NAT sends every %v", k)
	}
}

// TestGather: what cannot be used is left out and counted, and of two networks of one name the first counts.
func TestGather(t *testing.T) {
	older := `{"id":"aa000000000000aa","subnets":["10.50.0.0/16"],"created":"2026-01-01T00:00:00Z"}`
	records := []record.Record{
		{Key: record.Key{Writer: host(1), Kind: record.KindMember}, Body: []byte(`{"nickname":"one"}`)},
		{Key: record.Key{Writer: host(2), Kind: record.KindMember}, Body: []byte(`{"nickname":2}`)},
		{Key: record.Key{Writer: host(1), Kind: record.KindLinks}, Body: []byte(`[]`)},
		{Key: record.Key{Writer: host(1), Kind: record.KindNetwork, Name: "n"}, Body: []byte(strings.ReplaceAll(strings.ReplaceAll(older, "2026", "2027"), "aa", "bb"))},
		{Key: record.Key{Writer: host(2), Kind: record.KindNetwork, Name: "n"}, Body: []byte(older)},
		{Key: record.Key{Writer: host(1), Kind: record.KindNetwork, Name: "short"}, Body: []byte(`{"id":"aa","subnets":["10.50.0.0/16"]}`)},
		{Key: record.Key{Writer: host(1), Kind: record.KindNetwork, Name: "evil"}, Body: []byte(`{"id":"../../../../../..","subnets":["10.50.0.0/16"]}`)},
		{Key: record.Key{Writer: host(1), Kind: record.KindNetwork, Name: "all"}, Body: []byte(`{"id":"cc000000000000cc","subnets":["0.0.0.0/0"]}`)},
		{Key: record.Key{Writer: host(1), Kind: record.KindNetwork, Name: "odd"}, Body: []byte(`{"id":"cc000000000000cc","subnets":["10.50.0.1/16"]}`)},
	}
	var in Input
	bad := in.Gather(func(kind string) (list []record.Record) {
		for _, r := range records {
			if r.Kind == kind {
				list = append(list, r)
			}
		}
		return list
	})
	if bad != 6 || len(in.Members) != 1 || len(in.Networks) != 1 || in.Networks[0].ID != "aa000000000000aa" {
		t.Errorf("%d are bad; members %v, networks %v", bad, in.Members, in.Networks)
	}
	Compute(in) // of a host that is no member itself
}

// BenchmarkCompute plans for one of 1,000 hosts, each with a block in each of ten networks.
func BenchmarkCompute(b *testing.B) {
	in := cluster(255)
	for n := range 10 {
		network := record.Network{ID: fmt.Sprintf("%016x", n+1), Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(50 + n), 0, 0}), 16)}}
		in.Networks = append(in.Networks, network)
		for i := range 1000 {
			h, key := record.Host{byte(i), byte(i >> 8), 1}, [32]byte{byte(i), byte(i >> 8), 1}
			a := netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)})
			in.Members[h] = record.Member{
				TunnelKey: &key, Control: []netip.AddrPort{netip.AddrPortFrom(a, 6783)}, Tunnel: []netip.AddrPort{netip.AddrPortFrom(a, 6784)},
			}
			in.Links[h] = record.Links{Links: make([]record.Link, 12)}
			in.Blocks = append(in.Blocks, Block{network.ID, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(50 + n), byte(i >> 2), byte(i << 6)}), 26), h})
		}
	}
	for b.Loop() {
		Compute(in)
	}
}
