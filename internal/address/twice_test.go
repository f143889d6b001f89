package address

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
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

// TestNames: what no engine could make is not made known to all hosts.
func TestNames(t *testing.T) {
	h := newLab(t, 1).hosts[0]
	for _, name := range []string{"a b", "a/b", "10.9.0.0/16", "a\nb", strings.Repeat("a", 256)} {
		if _, err := h.CreateNetwork(t.Context(), NewNetwork{Name: name, V4: true}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if got := h.Networks(); len(got) > 0 {
		t.Errorf("networks %v", got)
	}
	must(t, second(h.CreateNetwork(t.Context(), NewNetwork{Name: "päck.1", V4: true})))
}
