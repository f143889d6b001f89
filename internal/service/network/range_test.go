package network

import (
	"net/netip"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestOwnRange: a cluster's IPv6 range is a unique local one, always the same, and another cluster's is another.
func TestOwnRange(t *testing.T) {
	local := netip.MustParsePrefix("fd00::/8")
	seen := map[netip.Prefix]bool{}
	for i := range 1000 {
		c := record.Cluster{byte(i), byte(i >> 8)}
		p := ownRange(c)
		if p.Bits() != 48 || !local.Contains(p.Addr()) || p != p.Masked() || p != ownRange(c) {
			t.Fatalf("%v", p)
		}
		if seen[p] {
			t.Errorf("%v is that of two", p)
		}
		seen[p] = true
	}
}
