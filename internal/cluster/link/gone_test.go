package link

import (
	"net/netip"
	"testing"
)

// TestIsGone: the zone of a connection's address is not part of what the host has.
func TestIsGone(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::1")}
	for at, gone := range map[string]bool{
		"10.0.0.1": false, "10.0.0.2": true, "127.0.0.1": false, "::1": false, "fe80::1%eth0": false, "fe80::2%eth0": true, "2001:db8::1": false,
	} {
		if got := isGone(netip.MustParseAddr(at), own); got != gone {
			t.Errorf("%s is gone: %t, want %t", at, got, gone)
		}
	}
}
