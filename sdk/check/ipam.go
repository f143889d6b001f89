package check

import (
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/remora-plugins/remora/sdk/client"
)

const (
	docIPAM  = "moby daemon/libnetwork/docs/ipam.md"
	mobyIPAM = "moby daemon/libnetwork/ipams/remote/remote.go"
)

func ipamCases() []Case {
	return ofKind(IPAM, []Case{
		{
			ID: "ipam/lifecycle", Basic: true, run: ipamLifecycle,
			Asserts: "A pool is given, an address for the gateway and one for a container out of it, and all are taken back.",
			Source:  docIPAM + ", RequestPool, RequestAddress; moby daemon/libnetwork/network.go, ipamAllocate",
		},
		{
			ID: "ipam/address-spaces", Basic: true, run: addressSpaces,
			Asserts: "GetDefaultAddressSpaces is answered, without which no network gets a pool from the plugin, and names an address space for networks of one host.",
			Source:  docIPAM + ", GetDefaultAddressSpaces and RequestPool (AddressSpace is mandatory); " + mobyIPAM + ", RequestPool; libnetwork drvregistry/drvregistry.go, registerIpamDriver (20.10)",
		},
		{
			ID: "ipam/capabilities", run: ipamCapabilities,
			Asserts: "GetCapabilities is answered with an object, or is not there.",
			Source:  docIPAM + ", GetCapabilities; " + mobyIPAM + ", getCapabilities",
		},
		{
			ID: "ipam/named-pool", run: namedPool,
			Asserts: "A pool that is asked for by name is that pool, and is free again when it was released.",
			Source:  docIPAM + ", RequestPool (docker network create --subnet)",
		},
		{
			ID: "ipam/pools-apart", run: poolsApart,
			Asserts: "Pools that the plugin chooses do not overlap and have IDs of their own: an engine asks for the next one before it gives back what overlaps a route.",
			Source:  "moby daemon/libnetwork/ipams/remote/remote.go, RequestPool (checkOverlaps)",
		},
		{
			ID: "ipam/ipv6-pool", run: ipv6Pool,
			Asserts: "A pool of IPv6 is one, whether it is asked for by name or not, as are the addresses out of it; or it is refused.",
			Source:  docIPAM + ", RequestPool (docker network create --ipv6; V6); " + mobyIPAM + ", RequestPool",
		},
		{
			ID: "ipam/sub-pool", run: subPool,
			Asserts: "With a range, addresses that the plugin chooses are in that range.",
			Source:  docIPAM + ", RequestPool (docker network create --ip-range)",
		},
		{
			ID: "ipam/release-twice", run: ipamReleaseTwice,
			Asserts: "Releases that are repeated, or of what is gone, do no harm.",
			Source:  mobyClient + ", callWithRetry; moby daemon/libnetwork/network.go, ipamReleaseVersion",
		},
		{
			ID: "ipam/errors", run: ipamErrors,
			Asserts: "What fails has its reason in Error beside status 200, or another status: an engine does not read Err beside 200.",
			Source:  docIPAM + "; moby daemon/libnetwork/ipams/remote/api/api.go, Response",
		},
		{
			ID: "ipam/empty-body", run: ipamEmptyBody,
			Asserts: "RequestAddress without a body is not answered with an address: it is how an engine repeats a call after its connection broke.",
			Source:  mobyClient + ", callWithRetry",
		},
	})
}

// space is the address space of networks on one host.
func (t *T) space() string {
	local, _, err := t.c.IPAM().AddressSpaces(t.ctx)
	t.must("GetDefaultAddressSpaces", err)
	return local
}

// pool requests a pool, any where prefix is zero.
func (t *T) pool(r client.PoolRequest) client.Pool {
	r.AddressSpace = t.space()
	p, err := t.tryPool(r)
	t.must("RequestPool", err)
	t.usable(p, r)
	return p
}

// usable wants a pool to be one that was asked for.
func (t *T) usable(p client.Pool, r client.PoolRequest) {
	switch {
	case p.ID == "":
		t.Fatalf("RequestPool answers without a PoolID")
	case p.Prefix != p.Prefix.Masked():
		t.Errorf("RequestPool answers with %s, which is no network", p.Prefix)
	case r.Prefix.IsValid() && p.Prefix != r.Prefix:
		t.Fatalf("RequestPool of %s answers with %s", r.Prefix, p.Prefix)
	}
}

// address requests an address of a pool.
func (t *T) address(p client.Pool, r client.AddressRequest) netip.Addr {
	r.PoolID = p.ID
	a, err := t.tryAddress(r)
	t.must("RequestAddress", err)
	switch {
	case !p.Prefix.Contains(a.Addr()):
		t.Fatalf("RequestAddress answers with %s, which is not in pool %s", a, p.Prefix)
	case r.Address.IsValid() && a.Addr() != r.Address:
		t.Fatalf("RequestAddress of %s answers with %s", r.Address, a)
	}
	return a.Addr()
}

// gateway is the address of the gateway, which the engine requests unless it came with the pool.
func (t *T) gateway(p client.Pool) netip.Addr {
	if p.Gateway.IsValid() {
		return p.Gateway.Addr()
	}
	return t.address(p, client.AddressRequest{Gateway: true})
}

func (t *T) release(p client.Pool, a netip.Addr) { t.must("ReleaseAddress", t.tryRelease(p, a)) }

func ipamLifecycle(t *T) {
	p := t.pool(client.PoolRequest{})
	gw := t.gateway(p)
	a := t.address(p, client.AddressRequest{})
	if a == gw {
		t.Errorf("a container gets the address %s of the gateway", a)
	}
	t.release(p, a)
	if !p.Gateway.IsValid() {
		t.release(p, gw)
	}
	t.releasePool(p)
}

func addressSpaces(t *T) {
	local, global, err := t.c.IPAM().AddressSpaces(t.ctx)
	t.must("GetDefaultAddressSpaces", err)
	if local == "" { // the other is asked for in a Swarm alone
		t.Errorf("the address spaces are %q and %q, and the first is empty", local, global)
	}
}

func ipamCapabilities(t *T) {
	if _, err := t.c.IPAM().Capabilities(t.ctx); unanswered(err) {
		t.Fatalf("GetCapabilities: %w", err)
	}
}

func namedPool(t *T) {
	for range 2 {
		p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
		t.address(p, client.AddressRequest{})
		t.releasePool(p)
	}
}

func poolsApart(t *T) {
	a, b := t.pool(client.PoolRequest{}), t.pool(client.PoolRequest{})
	if a.ID == b.ID {
		t.Errorf("two pools have the ID %q", a.ID)
	}
	if a.Prefix.Overlaps(b.Prefix) {
		t.Errorf("the pools %s and %s overlap", a.Prefix, b.Prefix)
	}
	t.releasePool(a)
	t.releasePool(b)
}

func ipv6Pool(t *T) {
	for _, prefix := range []netip.Prefix{{}, t.p.subnet6()} {
		r := client.PoolRequest{AddressSpace: t.space(), Prefix: prefix, IPv6: true}
		p, err := t.tryPool(r)
		if !t.allowed("RequestPool of IPv6", err) {
			continue
		}
		t.usable(p, r)
		if !p.Prefix.Addr().Is6() {
			t.Errorf("RequestPool of IPv6 answers with %s", p.Prefix)
		}
		t.address(p, client.AddressRequest{})
		t.releasePool(p)
	}
}

func subPool(t *T) {
	pool := t.subnetOf(1)
	part := netip.PrefixFrom(nth(pool, 32).Addr(), 28)
	p := t.pool(client.PoolRequest{Prefix: pool, Range: part})
	for range 5 {
		if a := t.address(p, client.AddressRequest{}); !part.Contains(a) {
			t.Errorf("RequestAddress answers with %s, and the range is %s", a, part)
		}
	}
	t.releasePool(p)
}

func ipamReleaseTwice(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	a := t.address(p, client.AddressRequest{})
	b := t.address(p, client.AddressRequest{})
	t.release(p, a)
	if err := t.c.IPAM().ReleaseAddress(t.ctx, p.ID, a); unanswered(err) {
		t.Fatalf("ReleaseAddress again: %w", err)
	}
	for range 8 {
		if got := t.address(p, client.AddressRequest{}); got == b {
			t.Fatalf("address %s, which is in use, is handed out after another was released twice", b)
		}
	}
	t.releasePool(p)
	if err := t.c.IPAM().ReleasePool(t.ctx, p.ID); unanswered(err) {
		t.Fatalf("ReleasePool again: %w", err)
	}
	if err := t.c.IPAM().ReleaseAddress(t.ctx, p.ID, b); unanswered(err) {
		t.Fatalf("ReleaseAddress of a pool that is gone: %w", err)
	}
	t.releasePool(t.pool(client.PoolRequest{Prefix: t.subnetOf(1)}))
}

func ipamErrors(t *T) {
	a, err := t.once("IpamDriver.RequestAddress", `{"PoolID":"`+Prefix+t.p.run+`","Address":"","Options":null}`)
	t.must("RequestAddress of a pool that is not there", err)
	if a.status != http.StatusOK {
		return
	}
	var e struct{ Error, Address string }
	if err := decode(a.body, &e); err != nil || e.Error == "" {
		t.Errorf("RequestAddress of a pool that is not there: %s; an engine sees no error in that", a)
	}
}

func ipamEmptyBody(t *T) {
	a, err := t.once("IpamDriver.RequestAddress", "")
	if err != nil {
		return // which an engine takes for a failure
	}
	var got struct{ Address string }
	if a.success() && decode(a.body, &got) == nil && got.Address != "" {
		t.Errorf("RequestAddress without a body: %s", a)
	}
}

func addressCases() []Case {
	return ofKind(IPAM, []Case{
		{
			ID: "ipam/addresses-apart", run: addressesApart,
			Asserts: "No address is handed out twice, and none is that of the network itself.",
			Source:  docIPAM + ", RequestAddress",
		},
		{
			ID: "ipam/prefix-length", run: prefixLength,
			Asserts: "An address comes with the prefix length of its pool: the engine sets both on the interface, and with a longer one containers find neither gateway nor one another, unless the network driver gives them routes.",
			Source:  docIPAM + ", RequestAddress (Address in CIDR notation); moby daemon/libnetwork/endpoint.go, assignAddressVersion",
		},
		{
			ID: "ipam/named-address", run: namedAddress,
			Asserts: "An address that is asked for by name is that address, is in nobody else's hands, and is free again when it was released.",
			Source:  docIPAM + ", RequestAddress (docker run --ip)",
		},
		{
			ID: "ipam/address-in-use", run: addressInUse,
			Asserts: "An address that a container has is refused to another.",
			Source:  docIPAM + ", RequestAddress",
		},
		{
			ID: "ipam/address-outside", run: addressOutside,
			Asserts: "An address that is not in the pool is refused.",
			Source:  docIPAM + ", RequestAddress",
		},
		{
			ID: "ipam/gateway", run: ipamGateway,
			Asserts: "The gateway's address, also one that was asked for by name, is in the pool and no container's.",
			Source:  docIPAM + ", RequestAddress (RequestAddressType com.docker.network.gateway)",
		},
		{
			ID: "ipam/endpoint-options", run: endpointOptions,
			Asserts: "The options that engines send with a request for an address, the container's MAC and since 29 its name, are no error.",
			Source:  docIPAM + ", GetCapabilities (RequiresMACAddress); moby issue 50586",
		},
		{
			ID: "ipam/addresses-at-once", run: addressesAtOnce,
			Asserts: "40 addresses that are asked for at once are 40 addresses.",
			Source:  "moby daemon/libnetwork/endpoint.go, assignAddress (no lock is held for other endpoints)",
		},
	})
}

func addressesApart(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	seen := map[netip.Addr]bool{}
	for range 20 {
		a := t.address(p, client.AddressRequest{})
		if seen[a] {
			t.Errorf("address %s is handed out twice", a)
		}
		if a == p.Prefix.Addr() {
			t.Errorf("address %s is that of the network", a)
		}
		seen[a] = true
	}
	t.releasePool(p)
}

func prefixLength(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	for _, r := range []client.AddressRequest{{PoolID: p.ID, Gateway: true}, {PoolID: p.ID}, {PoolID: p.ID, Address: nth(p.Prefix, 40).Addr()}} {
		a, err := t.tryAddress(r)
		t.must("RequestAddress", err)
		if a.Bits() != p.Prefix.Bits() {
			t.Errorf("RequestAddress answers with %s, and the pool is %s", a, p.Prefix)
		}
	}
	t.releasePool(p)
}

func namedAddress(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	a := nth(p.Prefix, 10).Addr()
	t.address(p, client.AddressRequest{Address: a})
	for range 20 {
		if got := t.address(p, client.AddressRequest{}); got == a {
			t.Fatalf("address %s, which was asked for by name, is handed out again", a)
		}
	}
	t.release(p, a)
	t.address(p, client.AddressRequest{Address: a})
	t.releasePool(p)
}

func addressInUse(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	a := t.address(p, client.AddressRequest{})
	_, err := t.c.IPAM().RequestAddress(t.ctx, client.AddressRequest{PoolID: p.ID, Address: a})
	if err == nil {
		t.Errorf("address %s is handed out by name although a container has it", a)
	} else if unanswered(err) {
		t.Fatalf("RequestAddress of what is in use: %w", err)
	}
	t.releasePool(p)
}

func addressOutside(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	a := p.Prefix.Addr().Prev()
	_, err := t.c.IPAM().RequestAddress(t.ctx, client.AddressRequest{PoolID: p.ID, Address: a})
	if err == nil {
		t.Errorf("address %s is handed out of pool %s", a, p.Prefix)
	} else if unanswered(err) {
		t.Fatalf("RequestAddress of what is not in the pool: %w", err)
	}
	t.releasePool(p)
}

func ipamGateway(t *T) {
	for i, named := range []bool{false, true} {
		p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1 + i)})
		if p.Gateway.IsValid() && !named {
			t.releasePool(p)
			continue // the plugin has one of its own
		}
		r := client.AddressRequest{Gateway: true}
		if named {
			r.Address = nth(p.Prefix, 9).Addr()
		}
		gw := t.address(p, r)
		for range 12 {
			if a := t.address(p, client.AddressRequest{}); a == gw {
				t.Fatalf("a container gets the address %s of the gateway", a)
			}
		}
		t.release(p, gw)
		t.releasePool(p)
	}
}

func endpointOptions(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1), Options: map[string]string{}})
	t.address(p, client.AddressRequest{MAC: net.HardwareAddr{2, 0x42, 198, 18, 1, 7}, EndpointName: "web"})
	t.releasePool(p)
}

func addressesAtOnce(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	seen := map[netip.Addr]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				a, err := t.tryAddress(client.AddressRequest{PoolID: p.ID})
				if err != nil {
					t.Errorf("RequestAddress of one of 8 at once: %w", err)
					return
				}
				mu.Lock()
				seen[a.Addr()]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for a, n := range seen {
		if n > 1 {
			t.Errorf("address %s is handed out %d times", a, n)
		}
	}
	t.releasePool(p)
}

func ipamReplays() []Case {
	cases := ofKind(IPAM, []Case{
		{
			ID: "ipam/engine-network", run: ipamNetwork,
			Asserts: "docker network create with gateway and auxiliary address, two containers with and without --ip, network rm.",
			Source:  "moby daemon/libnetwork/network.go, ipamAllocateVersion and ipamReleaseVersion",
		},
		{
			ID: "ipam/engine-crash", run: ipamCrash,
			Asserts: "The engine is killed: to a plugin that wants it, everything is requested again by name; to others nothing, and they have kept what was out.",
			Source:  docIPAM + ", GetCapabilities (RequiresRequestReplay); moby daemon/libnetwork/controller.go, reservePools",
		},
	})
	for i := range cases {
		cases[i].Engine = true
	}
	return cases
}

func ipamNetwork(t *T) {
	for range 2 {
		p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
		gw := t.gateway(p)
		aux := t.address(p, client.AddressRequest{Address: nth(p.Prefix, 50).Addr()})
		first := t.address(p, client.AddressRequest{})
		named := t.address(p, client.AddressRequest{Address: nth(p.Prefix, 40).Addr()})
		if first == gw || first == aux || first == named {
			t.Errorf("address %s is handed out twice", first)
		}
		for _, a := range []netip.Addr{first, named, aux} {
			t.release(p, a)
		}
		if !p.Gateway.IsValid() {
			t.release(p, gw)
		}
		t.releasePool(p)
	}
}

func ipamCrash(t *T) {
	p := t.pool(client.PoolRequest{Prefix: t.subnetOf(1)})
	gw := t.gateway(p)
	a := t.address(p, client.AddressRequest{})
	t.activates()
	caps, err := t.c.IPAM().Capabilities(t.ctx)
	if unanswered(err) {
		t.Fatalf("GetCapabilities: %w", err)
	}
	if caps.WantsReplay {
		old := p.ID
		p = t.pool(client.PoolRequest{Prefix: p.Prefix})
		t.replaced(old, p.ID)
		if !p.Gateway.IsValid() {
			t.address(p, client.AddressRequest{Gateway: true, Address: gw})
		}
		t.address(p, client.AddressRequest{Address: a})
	}
	for range 10 {
		if got := t.address(p, client.AddressRequest{}); got == a || got == gw {
			t.Fatalf("address %s is handed out twice", got)
		}
	}
	t.release(p, a)
	t.releasePool(p)
}
