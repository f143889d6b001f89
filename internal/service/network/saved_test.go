package network

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestTake(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	usual := saved{
		Nickname: host, Listen: ":6783", Tunnel: 6784, Domain: "remora.local", Range: prefix("10.32.0.0/12"), Subnet: prefix("10.32.0.0/16"),
	}
	with := func(change func(*saved)) saved {
		s := usual
		change(&s)
		return s
	}
	for name, tt := range map[string]struct {
		before saved
		asked  control.NetworkLaunchRequest
		want   saved
	}{
		"nothing": {saved{}, control.NetworkLaunchRequest{}, usual},
		"a range of one's own": {
			saved{},
			control.NetworkLaunchRequest{Range: prefix("10.48.0.0/12")},
			with(func(s *saved) { s.Range, s.Subnet = prefix("10.48.0.0/12"), prefix("10.48.0.0/16") }),
		},
		"a small one": {
			saved{},
			control.NetworkLaunchRequest{Range: prefix("192.168.7.0/24")},
			with(func(s *saved) { s.Range, s.Subnet = prefix("192.168.7.0/24"), prefix("192.168.7.0/24") }),
		},
		"a subnet in it": {
			saved{},
			control.NetworkLaunchRequest{Range: prefix("10.0.0.0/8"), Subnet: prefix("10.9.0.0/16")},
			with(func(s *saved) { s.Range, s.Subnet = prefix("10.0.0.0/8"), prefix("10.9.0.0/16") }),
		},
		"what was asked before is remembered": {
			with(func(s *saved) { s.Nickname, s.MTU, s.Trusted = "old", 1400, []netip.Prefix{prefix("10.0.0.0/8")} }),
			control.NetworkLaunchRequest{Peers: []string{"other"}, Tunnel: 7000},
			with(func(s *saved) {
				s.Nickname, s.MTU, s.Trusted, s.Tunnel = "old", 1400, []netip.Prefix{prefix("10.0.0.0/8")}, 7000
			}),
		},
		"the domain is written as it is meant": {
			saved{}, control.NetworkLaunchRequest{Domain: "Shop.Example."}, with(func(s *saved) { s.Domain = "shop.example" }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := tt.before
			if err := got.take(tt.asked); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("what is remembered (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTakeRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		asked control.NetworkLaunchRequest
		says  string
	}{
		"a range, with peers":     {control.NetworkLaunchRequest{Peers: []string{"a"}, Range: prefix("10.0.0.0/8")}, "only the host that founds"},
		"a subnet elsewhere":      {control.NetworkLaunchRequest{Subnet: prefix("192.168.0.0/16")}, "not in the range"},
		"a range of IPv6":         {control.NetworkLaunchRequest{Range: prefix("fd00::/48")}, "want IPv4"},
		"a range that is no use":  {control.NetworkLaunchRequest{Range: prefix("10.0.0.0/30")}, "/28"},
		"no address to listen on": {control.NetworkLaunchRequest{Listen: "nowhere"}, "want an address and a port"},
		"a name with a space":     {control.NetworkLaunchRequest{Nickname: "my host"}, "without spaces"},
		"a tiny MTU":              {control.NetworkLaunchRequest{MTU: 576}, "1280"},
		"no domain":               {control.NetworkLaunchRequest{Domain: "a..b"}, "a..b"},
	} {
		t.Run(name, func(t *testing.T) {
			var s saved
			if err := s.take(tt.asked); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want %q", err, tt.says)
			}
		})
	}
}

func TestTakePassword(t *testing.T) {
	var s saved
	if _, err := s.takePassword(control.NetworkLaunchRequest{Peers: []string{"a"}}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("to join without a password: %v", err)
	}
	made, err := s.takePassword(control.NetworkLaunchRequest{})
	if err != nil || made == "" || s.Password == nil {
		t.Fatalf("made %q, %v", made, err)
	}
	first := *s.Password
	var other saved
	if _, err := other.takePassword(control.NetworkLaunchRequest{Password: made}); err != nil || *other.Password != first {
		t.Errorf("the password that was made is not taken: %v", err)
	}
	s.Once = true
	if _, err := s.takePassword(control.NetworkLaunchRequest{}); err != nil || *s.Password != first {
		t.Errorf("the next launch has another password: %v", err)
	}
	if _, err := s.takePassword(control.NetworkLaunchRequest{NoPassword: true}); err != nil || s.Password != nil {
		t.Errorf("without one there is one: %v", err)
	}
}

// TestOptions: with the options of a network an engine makes the same network.
func TestOptions(t *testing.T) {
	for _, want := range []record.Network{{}, {Plain: true, Multicast: true, MTU: 1400}, {Multicast: true}} {
		yes, mtu := true, 1400
		no := false
		c := catalog.Choices{Multicast: &want.Multicast}
		options := map[string]string{}
		if want.Plain {
			c.Encrypted, options["encrypted"] = &no, "false"
		}
		if want.Multicast {
			c.Multicast, options["multicast"] = &yes, "true"
		}
		if want.MTU != 0 {
			c.MTU, options["mtu"] = &mtu, "1400"
		}
		var n record.Network
		chosen(&n, c)
		if diff := cmp.Diff(want, n); diff != "" {
			t.Errorf("the network (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(options, optionsOf(n)); diff != "" {
			t.Errorf("its options (-want +got):\n%s", diff)
		}
	}
}

func TestRefusedIsRemembered(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, err := newRefused(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.add("a")
	r.add("b")
	r.drop("a")
	again, err := newRefused(root, nil)
	if err != nil || again.has("a") || !again.has("b") {
		t.Errorf("a is %t, b is %t, %v; want b alone", again.has("a"), again.has("b"), err)
	}
}
