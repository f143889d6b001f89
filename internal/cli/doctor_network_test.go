package cli

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
)

func TestNetworkOverlaps(t *testing.T) {
	p := netip.MustParsePrefix
	s := control.NetworkStatus{Networks: []control.NetworkInfo{
		{Name: "blue", Subnets: []netip.Prefix{p("10.32.0.0/16"), p("fd00::/64")}}, {Name: "red", Subnets: []netip.Prefix{p("10.33.0.0/16")}},
	}}
	var got []string
	overlaps(s, []netip.Prefix{p("0.0.0.0/0"), p("10.32.7.0/24"), p("192.168.0.0/16"), p("fd00::/8")}, func(n string, subnet, r netip.Prefix) {
		got = append(got, n+" "+subnet.String()+" "+r.String())
	})
	if want := []string{"blue 10.32.0.0/16 10.32.7.0/24", "blue fd00::/64 fd00::/8"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestNetworkPaths: what is wrong with the way to a host is told, and what is right is not.
func TestNetworkPaths(t *testing.T) {
	d := &doctor{}
	d.networkPaths(control.NetworkStatus{Peers: []control.NetworkPeer{
		{Nickname: "me", State: "self"},
		{Nickname: "good", State: "reachable", Path: "direct", MTU: 1420},
		{Nickname: "far", State: "reachable", Path: "via good", MTU: 1420},
		{Nickname: "thin", State: "reachable", Path: "direct", MTU: 900},
		{Nickname: "mute", State: "reachable", Path: "none"},
		{Nickname: "down", State: "unreachable", Path: "none"},
	}})
	var got []string
	for _, f := range d.found {
		got = append(got, f.Result+" "+f.Text)
		if f.Mend == "" {
			t.Errorf("%s: nothing to do about it", f.Text)
		}
	}
	want := []string{
		"warn data to far goes via good, which costs time",
		"warn the path to thin carries packets of 900 bytes only: something between drops larger ones",
		"fail data to mute has no way",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNetworkLine(t *testing.T) {
	for want, n := range map[string]control.NetworkSummary{
		`joining; "remora network status" tells more`: {State: "joining"},
		`ready, 2 of 3 hosts reachable (1 direct, 0 relayed), networks 1, addresses 2 of 256 given, names 4, tunnel none, problems 1: "remora network status" tells them`: {
			State: "ready", Members: 3, Reachable: 2, Direct: 1, Networks: 1, Given: 2, Owned: 256, Names: 4, Problems: 1,
		},
	} {
		if got := networkLine(n); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}
