package network

import (
	"net/netip"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/link"
	"github.com/remora-plugins/remora/internal/cluster/record"
)

func TestHidden(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}
	seen := func(at string) link.Peer { return link.Peer{Dialed: true, Observed: netip.MustParseAddrPort(at)} }
	accepted, relayed := seen("203.0.113.7:40000"), seen("203.0.113.7:40000")
	accepted.Dialed, relayed.Via = false, record.Host{1}
	for name, tt := range map[string]struct {
		peers     []link.Peer
		is, known bool
	}{
		"no link":                      {nil, false, false},
		"seen where it is":             {[]link.Peer{seen("10.0.0.5:40000")}, false, true},
		"likewise, mapped":             {[]link.Peer{seen("[::ffff:10.0.0.5]:40000")}, false, true},
		"seen elsewhere":               {[]link.Peer{seen("203.0.113.7:40000")}, true, true},
		"by one of two":                {[]link.Peer{seen("10.0.0.5:1"), seen("203.0.113.7:2")}, true, true},
		"who dialled it knows nothing": {[]link.Peer{accepted}, false, false},
		"nor who is behind another":    {[]link.Peer{relayed}, false, false},
	} {
		if is, known := hiddenFrom(tt.peers, own); is != tt.is || known != tt.known {
			t.Errorf("%s: hidden %t, known %t", name, is, known)
		}
	}
}
