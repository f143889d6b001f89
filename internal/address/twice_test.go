package address

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestSubnetOfTwoNetworks: two hosts that were apart have made networks of one subnet. Everybody finds the one that was made first, each time.
func TestSubnetOfTwoNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3)
		l.cutOff[l.hosts[1].store.self] = 1
		subnet := NewNetwork{Name: "blue", Network: record.Network{Subnets: []netip.Prefix{pfx("192.168.77.0/24")}}}
		first, err := l.hosts[0].CreateNetwork(t.Context(), subnet)
		must(t, err)
		time.Sleep(time.Second)
		must(t, second(l.hosts[1].CreateNetwork(t.Context(), subnet)))
		clear(l.cutOff)
		l.settle()
		for range 50 {
			for i, h := range l.hosts {
				if got, ok := h.Find(first.Prefixes[0]); !ok || got.ID != first.ID {
					t.Fatalf("host %d finds the network of ID %s, want %s", i, got.ID, first.ID)
				}
			}
		}
	})
}
