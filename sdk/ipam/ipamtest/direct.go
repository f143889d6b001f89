package ipamtest

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

func poolDirect() cases {
	return cases{
		"AddressSpaces":    addressSpaces,
		"NamedPool":        namedPool,
		"AnyPool":          anyPool,
		"OverlappingPool":  overlappingPool,
		"ReleasePoolTwice": releasePoolTwice,
		"PoolsAtOnce":      poolsAtOnce,
	}
}

func addressDirect() cases {
	return cases{
		"AnyAddress":           anyAddress,
		"NamedAddress":         namedAddress,
		"AddressInUse":         addressInUse,
		"AddressOutsidePool":   addressOutsidePool,
		"Gateway":              gateway,
		"SubPool":              subPool,
		"ReleaseAddressTwice":  releaseAddressTwice,
		"AddressOfUnknownPool": addressOfUnknownPool,
		"AddressesAtOnce":      addressesAtOnce,
		"ReplayInPlace":        replayInPlace,
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// undone fails unless err is nil or says that there is nothing to undo.
func undone(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%s: %v", what, err)
	}
}

func space(t *testing.T, d ipam.Driver) string {
	t.Helper()
	local, _, err := d.DefaultAddressSpaces(t.Context())
	must(t, "DefaultAddressSpaces", err)
	return local
}

// pool requests a pool, any if p is zero.
func pool(t *testing.T, d ipam.Driver, p netip.Prefix) ipam.Pool {
	t.Helper()
	got, err := d.RequestPool(t.Context(), ipam.PoolRequest{AddressSpace: space(t, d), Pool: p, Options: map[string]string{}, V6: p.Addr().Is6()})
	must(t, "RequestPool", err)
	if got.ID == "" || got.Prefix != got.Prefix.Masked() || p.IsValid() && got.Prefix != p {
		t.Fatalf("RequestPool(%s) = %+v", p, got)
	}
	return got
}

// address requests an address, any if a is zero.
func address(t *testing.T, d ipam.Driver, p ipam.Pool, a netip.Addr) netip.Addr {
	t.Helper()
	got, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Address: a, Options: map[string]string{}})
	must(t, "RequestAddress", err)
	if got.Prefix.Bits() != p.Prefix.Bits() || !p.Prefix.Contains(got.Prefix.Addr()) || a.IsValid() && got.Prefix.Addr() != a {
		t.Fatalf("RequestAddress(%s) of %s = %s", a, p.Prefix, got.Prefix)
	}
	return got.Prefix.Addr()
}

func addressSpaces(t *testing.T, c Config) {
	local, global, err := c.New(t).DefaultAddressSpaces(t.Context())
	must(t, "DefaultAddressSpaces", err)
	if local == "" || global == "" {
		t.Errorf("address spaces %q and %q", local, global)
	}
}

func namedPool(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
	p = pool(t, d, c.Pool) // it is free again
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}

// anyPool is what an engine does when the first pool overlaps a route of the host: it asks
// for another before it gives the first one back.
func anyPool(t *testing.T, c Config) {
	d := c.New(t)
	a := pool(t, d, netip.Prefix{})
	b := pool(t, d, netip.Prefix{})
	if a.ID == b.ID || a.Prefix.Overlaps(b.Prefix) {
		t.Errorf("pools %+v and %+v", a, b)
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), a.ID))
	must(t, "ReleasePool", d.ReleasePool(t.Context(), b.ID))
}

func overlappingPool(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	address(t, d, p, netip.Addr{})
	part := netip.PrefixFrom(c.Pool.Addr(), c.Pool.Bits()+1)
	if got, err := d.RequestPool(t.Context(), ipam.PoolRequest{AddressSpace: space(t, d), Pool: part, V6: part.Addr().Is6()}); err == nil {
		t.Errorf("RequestPool(%s) = %+v although %s is out", part, got, c.Pool)
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
	p = pool(t, d, part)
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}

func releasePoolTwice(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	for range 2 {
		undone(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
	}
	undone(t, "ReleasePool of what never was", d.ReleasePool(t.Context(), "no-such-pool"))
}

func poolsAtOnce(t *testing.T, c Config) {
	d := c.New(t)
	local := space(t, d)
	var mu sync.Mutex
	var got []ipam.Pool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			p, err := d.RequestPool(t.Context(), ipam.PoolRequest{AddressSpace: local})
			if err != nil {
				t.Errorf("RequestPool: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, p)
		})
	}
	wg.Wait()
	for i, p := range got {
		for _, q := range got[:i] {
			if p.Prefix.Overlaps(q.Prefix) || p.ID == q.ID {
				t.Errorf("pools %+v and %+v", p, q)
			}
		}
		undone(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
	}
}

func anyAddress(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	seen := map[netip.Addr]bool{}
	for range 20 {
		a := address(t, d, p, netip.Addr{})
		if seen[a] {
			t.Errorf("address %s was handed out twice", a)
		}
		if a == c.Pool.Masked().Addr() {
			t.Errorf("address %s names the network itself", a)
		}
		seen[a] = true
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID)) // with what is still out
}

func namedAddress(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	a := host(c.Pool, 40)
	address(t, d, p, a)
	for range 60 - 10 {
		if got := address(t, d, p, netip.Addr{}); got == a {
			t.Fatalf("address %s was handed out twice", a)
		}
	}
	must(t, "ReleaseAddress", d.ReleaseAddress(t.Context(), p.ID, a))
	address(t, d, p, a)
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}

func addressInUse(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	a := address(t, d, p, netip.Addr{})
	if got, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Address: a}); err == nil {
		t.Errorf("RequestAddress(%s) = %s although a container has it", a, got.Prefix)
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}

func addressOutsidePool(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	a := c.Pool.Masked().Addr().Prev()
	if got, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Address: a}); err == nil {
		t.Errorf("RequestAddress(%s) of %s = %s", a, c.Pool, got.Prefix)
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}

func gateway(t *testing.T, c Config) {
	for _, want := range []netip.Addr{{}, host(c.Pool, 50)} {
		d := c.New(t)
		p := pool(t, d, c.Pool)
		if p.Gateway.IsValid() {
			continue // the driver has one of its own
		}
		got, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Address: want, Gateway: true})
		must(t, "RequestAddress of a gateway", err)
		if want.IsValid() && got.Prefix.Addr() != want || !p.Prefix.Contains(got.Prefix.Addr()) {
			t.Errorf("gateway %s, want %s", got.Prefix, want)
		}
		if a := address(t, d, p, netip.Addr{}); a == got.Prefix.Addr() {
			t.Errorf("a container got the gateway's address %s", a)
		}
		must(t, "ReleaseAddress", d.ReleaseAddress(t.Context(), p.ID, got.Prefix.Addr()))
		must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
	}
}

func subPool(t *testing.T, c Config) {
	d := c.New(t)
	sub := netip.PrefixFrom(host(c.Pool, 32), c.Pool.Addr().BitLen()-4)
	p, err := d.RequestPool(t.Context(), ipam.PoolRequest{AddressSpace: space(t, d), Pool: c.Pool, SubPool: sub, V6: c.Pool.Addr().Is6()})
	must(t, "RequestPool", err)
	if p.Prefix != c.Pool {
		t.Fatalf("pool %s, want %s", p.Prefix, c.Pool)
	}
	address(t, d, p, host(c.Pool, 3)) // what is named may lie anywhere in the pool
	for range 5 {
		if a := address(t, d, p, netip.Addr{}); !sub.Contains(a) {
			t.Errorf("address %s is not in range %s", a, sub)
		}
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}

func releaseAddressTwice(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	a := address(t, d, p, netip.Addr{})
	for range 2 {
		undone(t, "ReleaseAddress", d.ReleaseAddress(t.Context(), p.ID, a))
	}
	undone(t, "ReleaseAddress of what never was out", d.ReleaseAddress(t.Context(), p.ID, host(c.Pool, 50)))
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
	undone(t, "ReleaseAddress of a pool that is gone", d.ReleaseAddress(t.Context(), p.ID, a))
}

func addressOfUnknownPool(t *testing.T, c Config) {
	if got, err := c.New(t).RequestAddress(t.Context(), ipam.AddressRequest{PoolID: "no-such-pool"}); err == nil {
		t.Errorf("RequestAddress of a pool that is not there: %s", got.Prefix)
	}
}

func addressesAtOnce(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	var mu sync.Mutex
	seen := map[netip.Addr]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				got, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID})
				if err != nil {
					t.Errorf("RequestAddress: %v", err)
					return
				}
				mu.Lock()
				seen[got.Prefix.Addr()]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 40 {
		t.Errorf("%d addresses for 40 containers", len(seen))
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}

// replays reports whether engines replay to d.
func replays(d ipam.Driver) bool {
	c, ok := d.(ipam.Capabler)
	return ok && c.Capabilities().RequiresRequestReplay
}

// replayInPlace is an engine that starts while the plugin has been there all the time.
func replayInPlace(t *testing.T, c Config) {
	d := c.New(t)
	p := pool(t, d, c.Pool)
	gw, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Gateway: true})
	must(t, "RequestAddress of a gateway", err)
	a := address(t, d, p, netip.Addr{})
	if replays(d) {
		p = pool(t, d, c.Pool)
		_, err := d.RequestAddress(t.Context(), ipam.AddressRequest{PoolID: p.ID, Gateway: true, Address: gw.Prefix.Addr()})
		must(t, "RequestAddress of a gateway in a replay", err)
		address(t, d, p, a)
	}
	for range 10 {
		if got := address(t, d, p, netip.Addr{}); got == a || got == gw.Prefix.Addr() {
			t.Errorf("address %s was handed out twice", got)
		}
	}
	must(t, "ReleasePool", d.ReleasePool(t.Context(), p.ID))
}
