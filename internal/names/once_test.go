package names

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// What several records say alike is told once (RFC 2181, 5): a name that was given by hand at two hosts, and the service of a container in two
// networks, to an asker who is in neither.
func TestOnce(t *testing.T) {
	c := newCluster()
	one, two := c.host(1), c.host(2)
	for _, h := range []*host{one, two} {
		if err := NewHand(h, nil).Add("printer", addrs("192.0.2.7 2001:db8::7")); err != nil {
			t.Fatal(err)
		}
	}
	one.network(t, "red", "r", "10.1.0.0/16")
	one.network(t, "blue", "b", "10.2.0.0/16")
	for network, at := range map[string]string{"r": "10.1.0.2", "b": "10.2.0.2"} {
		body := record.Name{Network: network, Names: []string{"api"}, Addresses: addrs(at), Container: "c1", Service: "_http._tcp 80"}
		if err := one.Put(record.KindName, "docker/c1/"+network, body); err != nil {
			t.Fatal(err)
		}
	}
	zones := New(Config{}, c, reach{c})
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  int
	}{
		{"printer.", dns.TypeA, 1},
		{"printer.", dns.TypeAAAA, 1},
		{"printer.", dns.TypeANY, 2},
		{"_http._tcp.api.remora.local.", dns.TypeSRV, 1},
		{"api.", dns.TypeA, 2},
	} {
		m := new(dns.Msg)
		if !zones.Zone().Answer(m, dns.Question{Name: tt.name, Qtype: tt.qtype, Qclass: dns.ClassINET}, netip.MustParseAddr("127.0.0.1")) || len(m.Answer) != tt.want {
			t.Errorf("%s %s: %d answers, want %d: %s", tt.name, dns.TypeToString[tt.qtype], len(m.Answer), tt.want, m)
		}
	}
}
