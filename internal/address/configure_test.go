package address

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

func TestConfigure(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	p, err := request(t, a, ipam.PoolRequest{Pool: pfx("10.9.0.0/16")})
	must(t, err)
	l.gossip()
	s, _ := a.Find(p.Prefix)
	id := s.ID
	yes, no, mtu := true, false, 1400
	want := Choices{Plain: &yes, Multicast: &yes, Internal: &no, MTU: &mtu}
	if err := b.Configure(t.Context(), id, want); !errors.Is(err, errdefs.ErrExists) || !strings.Contains(err.Error(), "multicast is false, encrypted is true, mtu is 0") {
		t.Errorf("on the host that did not make it: %v", err)
	}
	must(t, a.Configure(t.Context(), id, want))
	l.gossip()
	if n := b.Networks()[0].Record(); !n.Plain || !n.Multicast || n.Internal || n.MTU != 1400 {
		t.Errorf("%+v", n)
	}
	must(t, b.Configure(t.Context(), id, want))
	must(t, b.Configure(t.Context(), id, Choices{}))
	if _, err := b.any(b.Networks()[0]); err != nil {
		t.Error(err)
	}
	if err := a.Configure(t.Context(), id, Choices{Plain: &no}); !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("once another host has a part: %v", err)
	}
	must(t, a.Configure(t.Context(), id, want))
	if s, ok := a.Find(pfx("10.8.0.0/16")); ok {
		t.Errorf("unknown subnet: found %v", s)
	}
	if err := a.Configure(t.Context(), "none", want); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown network: %v", err)
	}
}
