package address

import (
	"errors"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

// TestRename gives a network the name that its engine has for it, which the host that made it alone may do.
func TestRename(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	p, err := request(t, a, ipam.PoolRequest{Pool: pfx("10.9.0.0/16")})
	must(t, err)
	_, err = request(t, a, ipam.PoolRequest{Options: map[string]string{OptionNet: "green"}})
	must(t, err)
	l.gossip()
	s, ok := a.Find(p.Prefix)
	if !ok || s.Name != "10.9.0.0/16" {
		t.Fatalf("a network without a name is called %q", s.Name)
	}
	if err := b.Rename(s.ID, "blue"); !errors.Is(err, errdefs.ErrDenied) {
		t.Errorf("on the host that did not make it: %v", err)
	}
	if err := a.Rename(s.ID, "green"); !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("to a name that another has: %v", err)
	}
	if err := a.Rename(s.ID, "two words"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("to what is no name: %v", err)
	}
	if err := a.Rename("none", "blue"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a network that nobody knows: %v", err)
	}
	must(t, a.Rename(s.ID, "blue"))
	must(t, a.Rename(s.ID, "blue"))
	l.gossip()
	for _, h := range l.hosts {
		var names []string
		for _, n := range h.Networks() {
			names = append(names, n.Name)
		}
		now, _ := h.Find(p.Prefix)
		if now.ID != s.ID || now.Name != "blue" || len(names) != 2 {
			t.Errorf("it is %q, among %q", now.Name, names)
		}
	}
}

// TestEnd has every host leave a network before it is gone.
func TestEnd(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	p, err := request(t, a, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}})
	must(t, err)
	l.gossip()
	if _, err := b.any(b.Networks()[0]); err != nil {
		t.Fatal(err)
	}
	l.gossip()
	if err := b.EndNetwork(t.Context(), "blue"); !errors.Is(err, errdefs.ErrDenied) {
		t.Errorf("on the host that did not make it: %v", err)
	}
	if err := a.EndNetwork(t.Context(), "red"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	must(t, a.EndNetwork(t.Context(), "blue"))
	must(t, a.EndNetwork(t.Context(), "blue"))
	l.gossip()
	s, _ := b.Find(p.Prefix)
	if !s.Record().Going {
		t.Fatal("the other host is not told")
	}
	if err := a.DeleteNetwork(t.Context(), "blue"); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("while another host has a part in it: %v", err)
	}
}

// TestGiveAll leaves a cluster: what the host owned is another's, and no address is lost.
func TestGiveAll(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	p, err := request(t, a, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}})
	must(t, err)
	s, _ := a.Find(p.Prefix)
	at, err := a.Allocate(t.Context(), Want{Space: s.ID, Subnet: p.Prefix, Key: "container"})
	must(t, err)
	l.gossip()
	if err := a.GiveAll(b.store.Self()); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("while an address is out: %v", err)
	}
	must(t, a.Release(t.Context(), s.ID, at.Addr()))
	if err := a.GiveAll(a.store.Self()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("to itself: %v", err)
	}
	must(t, a.GiveAll(b.store.Self()))
	l.gossip()
	for _, h := range l.hosts {
		for _, space := range []string{s.ID, clusterRange} {
			for _, o := range h.Owned(space) {
				if o.Owner != b.store.Self() {
					t.Errorf("%s of space %q is still that of the host that left", o.Prefix, space)
				}
			}
		}
	}
}

// TestTell has other hosts hear that the engine that asked for addresses has made the network.
func TestTell(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	_, err := request(t, a, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}})
	must(t, err)
	l.gossip()
	s := b.Networks()[0]
	if r := s.Record(); r.Told || !r.Engine {
		t.Errorf("before it is made: %+v", r)
	}
	if err := b.Tell(s.ID, nil); !errors.Is(err, errdefs.ErrDenied) {
		t.Errorf("on the host that did not make it: %v", err)
	}
	must(t, a.Tell(s.ID, map[string]string{"x": "y"}))
	must(t, a.Tell(s.ID, nil)) // once is enough
	l.gossip()
	if r := b.Networks()[0].Record(); !r.Told || r.Labels["x"] != "y" {
		t.Errorf("after that: %+v", r)
	}
}
