package mesh_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestManyNetworks: the first and the last of many work, and do not see each other.
func TestManyNetworks(t *testing.T) {
	l := newLab(t)
	a, b := l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24")
	var networks []record.Network
	for i := range 32 {
		networks = append(networks, record.Network{
			ID: fmt.Sprintf("%02x000000000000aa", i), Subnets: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", 100+i))}, Plain: i%2 == 1,
		})
	}
	l.tell(networks)
	l.start()
	for i, n := range networks {
		for h, host := range []*host{a, b} {
			if i > 0 && i < len(networks)-1 {
				host.network[n.ID] = host.must(order{Verb: "ensure", Network: n.ID, Addresses: bridgeAddresses(n, h)}).Link
			}
		}
	}
	first, last := networks[0], networks[len(networks)-1]
	a1, b1, a2, b2 := a.box(first), b.box(first), a.box(last), b.box(last)
	a1.reach(b1)
	a2.reach(b2)
	if _, err := a1.send(b2, "x", 1); err == nil {
		t.Error("a container reaches one in another network")
	}
	s := a.status()
	if len(s.Problems) > 0 {
		t.Errorf("problems: %q", s.Problems)
	}
	l.in(a.ns, "nft flush set inet remora set-subnets4")
	eventually(t, 5*time.Second, "elements of a set are put back", func() bool {
		return a.status().Repairs > s.Repairs && strings.Contains(l.in(a.ns, "nft list set inet remora set-subnets4"), "10.100.0.0")
	})
}
