package address

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
	"github.com/remora-plugins/remora/sdk/ipam/ipamtest"
)

func TestConformance(t *testing.T) {
	for _, pool := range []string{"10.98.0.0/24", "10.96.0.0/16", "fd00:98::/64"} {
		t.Run(netip.MustParsePrefix(pool).Addr().String(), func(t *testing.T) {
			var h *labHost
			ipamtest.Run(t, ipamtest.Config{
				New: func(t *testing.T) ipam.Driver {
					h = newLab(t, 1).hosts[0]
					return IPAM{h.Allocator}
				},
				Reopen: func(*testing.T, ipam.Driver) ipam.Driver {
					h.kill()
					h.start()
					return IPAM{h.Allocator}
				},
				Pool: netip.MustParsePrefix(pool),
			})
		})
	}
}

func request(t *testing.T, h *labHost, r ipam.PoolRequest) (ipam.Pool, error) {
	t.Helper()
	r.AddressSpace = AddressSpace
	return IPAM{h.Allocator}.RequestPool(t.Context(), r)
}

// TestSameNetworkOnEachHost is the same command on each of two hosts.
func TestSameNetworkOnEachHost(t *testing.T) {
	for what, r := range map[string]ipam.PoolRequest{
		"by name":   {Options: map[string]string{OptionNet: "blue"}},
		"by subnet": {Pool: pfx("10.9.0.0/16")},
		"by both":   {Pool: pfx("10.9.0.0/16"), SubPool: pfx("10.9.8.0/22"), Options: map[string]string{OptionNet: "blue"}},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, 2)
			var pools []ipam.Pool
			var gateways []netip.Prefix
			for _, h := range l.hosts {
				p, err := request(t, h, r)
				must(t, err)
				gw, err := IPAM{h.Allocator}.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Gateway: true})
				must(t, err)
				pools, gateways = append(pools, p), append(gateways, gw.Prefix)
				l.gossip()
			}
			if pools[0].ID != pools[1].ID || pools[0].Prefix != pools[1].Prefix || gateways[0] == gateways[1] {
				t.Errorf("pools %+v, gateways %s", pools, gateways)
			}
			if got := l.hosts[1].Networks(); len(got) != 1 {
				t.Errorf("networks %v", got)
			}
			// The network is there until the last engine has removed it, the creator first.
			for i, h := range l.hosts {
				must(t, IPAM{h.Allocator}.ReleasePool(t.Context(), pools[i].ID))
				if n := len(h.Networks()); i == 0 && n != 1 {
					t.Errorf("the network is gone although another host has it")
				}
				l.gossip()
			}
			for range 3 {
				l.settle()
			}
			for _, h := range l.hosts {
				if got := h.Networks(); len(got) > 0 && !resting(h) {
					t.Errorf("networks %v", got)
				}
			}
		})
	}
}

// resting reports whether addresses of h, or of a host with it, rest, and are given back later.
func resting(h *labHost) bool {
	for _, o := range h.lab.hosts {
		for _, s := range o.Status().Spaces {
			if s.Resting > 0 {
				return true
			}
		}
	}
	return false
}

func TestSecondFamily(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	opts := map[string]string{OptionNet: "blue"}
	four, err := request(t, a, ipam.PoolRequest{Options: opts})
	must(t, err)
	six, err := request(t, a, ipam.PoolRequest{Options: opts, V6: true, Pool: pfx("fd00:9::/64")})
	must(t, err)
	l.gossip()
	for _, want := range []ipam.Pool{four, six} {
		got, err := request(t, b, ipam.PoolRequest{Options: opts, V6: want.Prefix.Addr().Is6()})
		if err != nil || got.ID != want.ID {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	if s := b.Networks(); len(s) != 1 || !slices.Equal(s[0].Prefixes, []netip.Prefix{four.Prefix, six.Prefix}) {
		t.Errorf("networks %v", s)
	}
	if _, err := request(t, a, ipam.PoolRequest{V6: true}); !errors.Is(err, errdefs.ErrUnavailable) || errdefs.Hints(err) == nil {
		t.Errorf("IPv6 without a range of it: %v", err)
	}
}

// TestSecondFamilyUnnamed: an engine that names no network asks for a subnet of each family, and means one network.
func TestSecondFamilyUnnamed(t *testing.T) {
	l := newLab(t, 1)
	a := l.hosts[0]
	four, err := request(t, a, ipam.PoolRequest{})
	must(t, err)
	six, err := request(t, a, ipam.PoolRequest{V6: true, Pool: pfx("fd00:8::/64")})
	must(t, err)
	if s := a.Networks(); len(s) != 1 || !slices.Equal(s[0].Prefixes, []netip.Prefix{four.Prefix, six.Prefix}) {
		t.Errorf("networks %v", s)
	}
	must(t, a.Configure(t.Context(), a.Networks()[0].ID, Choices{}))
	// One that was made, and two that are in the making, are not taken for it.
	_, err = request(t, a, ipam.PoolRequest{V6: true, Pool: pfx("fd00:9::/64")})
	must(t, err)
	for range 2 {
		_, err = request(t, a, ipam.PoolRequest{})
		must(t, err)
	}
	_, err = request(t, a, ipam.PoolRequest{V6: true, Pool: pfx("fd00:a::/64")})
	must(t, err)
	if s := a.Networks(); len(s) != 5 {
		t.Errorf("networks %v", s)
	}
}

func TestWrongPools(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	a.Allocator.config.Routes = func() ([]netip.Prefix, error) {
		return []netip.Prefix{pfx("0.0.0.0/0"), pfx("172.17.0.0/16"), pfx("10.32.0.0/16")}, nil
	}
	blue, err := request(t, a, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}})
	must(t, err)
	if blue.Prefix != pfx("10.33.0.0/16") {
		t.Errorf("subnet %s, not the first to which there is no route", blue.Prefix)
	}
	_, err = IPAM{a.Allocator}.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: blue.ID, Gateway: true})
	must(t, err)
	l.gossip()
	for what, tt := range map[string]struct {
		h     *labHost
		r     ipam.PoolRequest
		class error
	}{
		"route":           {a, ipam.PoolRequest{Pool: pfx("172.17.8.0/24")}, errdefs.ErrInUse},
		"overlap":         {b, ipam.PoolRequest{Pool: pfx("10.33.8.0/24")}, errdefs.ErrInUse},
		"around":          {b, ipam.PoolRequest{Pool: pfx("10.0.0.0/8")}, errdefs.ErrInUse},
		"other subnet":    {b, ipam.PoolRequest{Pool: pfx("10.9.0.0/16"), Options: map[string]string{OptionNet: "blue"}}, errdefs.ErrExists},
		"other range":     {b, ipam.PoolRequest{Pool: blue.Prefix, SubPool: pfx("10.33.8.0/24")}, errdefs.ErrExists},
		"twice":           {a, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}}, errdefs.ErrInUse},
		"other family":    {b, ipam.PoolRequest{V6: true, Options: map[string]string{OptionNet: "blue"}}, errdefs.ErrInvalid},
		"unknown option":  {b, ipam.PoolRequest{Options: map[string]string{"network": "blue"}}, errdefs.ErrInvalid},
		"no name":         {b, ipam.PoolRequest{Options: map[string]string{OptionNet: ""}}, errdefs.ErrInvalid},
		"name with space": {b, ipam.PoolRequest{Options: map[string]string{OptionNet: "a b"}}, errdefs.ErrInvalid},
		"one address":     {b, ipam.PoolRequest{Pool: pfx("192.0.2.1/32")}, errdefs.ErrInvalid},
	} {
		if got, err := request(t, tt.h, tt.r); !errors.Is(err, tt.class) {
			t.Errorf("%s: %+v, %v, want %v", what, got, err, tt.class)
		}
	}
	// A subnet in the cluster's range is had from who owns that part of it, unless it is in use there.
	if got, err := request(t, b, ipam.PoolRequest{Pool: pfx("10.40.0.0/20")}); err != nil || got.Prefix != pfx("10.40.0.0/20") {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := request(t, b, ipam.PoolRequest{Pool: pfx("10.44.0.0/14")}); err != nil || got.Prefix != pfx("10.44.0.0/14") {
		t.Errorf("a subnet of several parts: %+v, %v", got, err)
	}
	l.cutOff[b.store.self] = 1
	if got, err := request(t, b, ipam.PoolRequest{Pool: pfx("10.41.0.0/20")}); !errors.Is(err, errdefs.ErrUnavailable) || errdefs.Hints(err) == nil {
		t.Errorf("a part of the range of a host that is out of reach: %+v, %v", got, err)
	}
	if _, err := (IPAM{b.Allocator}).RequestPool(t.Context(), ipam.PoolRequest{AddressSpace: "x"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("wrong space: %v", err)
	}
}

// TestBothSidesMakeNetworks: hosts that are apart make networks of one name, with subnets that do not overlap.
func TestBothSidesMakeNetworks(t *testing.T) {
	l := newLab(t, 2)
	_, err := request(t, l.hosts[1], ipam.PoolRequest{}) // it has a part of the range now
	must(t, err)
	l.gossip()
	l.cutOff[l.hosts[1].store.self] = 1
	var pools []ipam.Pool
	for _, h := range l.hosts {
		p, err := request(t, h, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}})
		must(t, err)
		pools = append(pools, p)
	}
	if pools[0].Prefix.Overlaps(pools[1].Prefix) {
		t.Errorf("pools %+v", pools)
	}
	delete(l.cutOff, l.hosts[1].store.self)
	l.settle()
	for _, h := range l.hosts {
		hidden := 0
		for _, s := range h.Status().Spaces {
			if s.Hidden {
				hidden++
			}
		}
		if n := h.Networks(); len(n) != 2 || hidden != 1 {
			t.Errorf("networks %v, hidden %d", n, hidden)
		}
	}
	l.same()
}

func TestDeleteNetwork(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	s := a.network("blue")
	l.gossip()
	at, err := a.any(s)
	must(t, err)
	_, err = b.any(s)
	must(t, err)
	l.gossip()
	for what, tt := range map[string]struct {
		err, class error
	}{
		"in use": {a.DeleteNetwork(t.Context(), "blue"), errdefs.ErrInUse}, "not its own": {b.DeleteNetwork(t.Context(), "blue"), errdefs.ErrDenied},
		"unknown": {a.DeleteNetwork(t.Context(), "red"), errdefs.ErrNotFound},
	} {
		if !errors.Is(tt.err, tt.class) {
			t.Errorf("%s: %v", what, tt.err)
		}
	}
	must(t, a.Release(t.Context(), s.ID, at))
	c := a.network("empty")
	must(t, a.DeleteNetwork(t.Context(), "empty"))
	if _, err := a.any(c); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("address of a network that is gone: %v", err)
	}
	if err := a.store.Put(record.KindNetwork, "odd", record.Network{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CreateNetwork(t.Context(), NewNetwork{Name: "none"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("network without a subnet: %v", err)
	}
}

// TestAuxiliary: an address that is put aside when a network is made belongs to no container, and is no leak.
func TestAuxiliary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1)
		d := IPAM{l.hosts[0].Allocator}
		p, err := request(t, l.hosts[0], ipam.PoolRequest{Pool: pfx("10.9.0.0/16")})
		must(t, err)
		ask := func(at string, gateway bool) {
			t.Helper()
			_, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Address: addr(at), Gateway: gateway})
			must(t, err)
		}
		ask("10.9.0.1", true)
		ask("10.9.0.9", false)
		s, _ := d.Find(p.Prefix)
		must(t, d.Configure(t.Context(), s.ID, Choices{}))
		ask("10.9.0.10", false) // a container's
		for range 3 {
			time.Sleep(time.Minute)
			freed, err := d.Reconcile(t.Context(), time.Now(), []netip.Addr{addr("10.9.0.1")}, nil)
			must(t, err)
			for _, at := range freed {
				if at != addr("10.9.0.10") {
					t.Errorf("%s was freed", at)
				}
			}
		}
		if out := d.Addresses(); len(out) != 2 || out[1].Key != AuxKey {
			t.Errorf("out: %v", out)
		}
	})
}

// TestOfferedTwice: an engine that cannot take a subnet asks again at once, for ever if it is offered the same.
func TestOfferedTwice(t *testing.T) {
	l := newLab(t, 1)
	a := l.hosts[0]
	blue := ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}}
	for range 2 {
		p, err := request(t, a, blue)
		must(t, err)
		if _, err := request(t, a, blue); !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), "--subnet "+p.Prefix.String()) {
			t.Errorf("asked again: %v", err)
		}
		must(t, IPAM{a.Allocator}.ReleasePool(t.Context(), p.ID))
	}
	p, err := request(t, a, blue)
	must(t, err)
	blue.Pool = p.Prefix // by its value it may be asked for as often as one likes
	for range 2 {
		_, err := request(t, a, blue)
		must(t, err)
	}
}
