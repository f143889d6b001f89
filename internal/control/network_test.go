package control

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNetworkSummary(t *testing.T) {
	s := NetworkStatus{
		State: "ready", Tunnel: "WireGuard",
		Peers: []NetworkPeer{
			{State: "self", Addresses: 100},
			{State: "reachable", Path: "direct", Addresses: 7},
			{State: "reachable", Path: "via nyc"},
			{State: "reachable", Path: "none"},
			{State: "unreachable", Path: "direct"},
		},
		Networks: []NetworkInfo{{Used: 3}, {Used: 4}},
		DNS:      NetworkDNS{Entries: 5},
		Problems: []Advice{{Text: "one"}},
	}
	want := NetworkSummary{
		State: "ready", Members: 5, Reachable: 4, Direct: 1, Relayed: 1, Networks: 2, Owned: 100, Given: 7, Names: 5, Tunnel: "WireGuard", Problems: 1,
	}
	if diff := cmp.Diff(want, s.Summary()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(NetworkSummary{State: "off"}, NetworkStatus{State: "off"}.Summary()); diff != "" {
		t.Error(diff)
	}
}
