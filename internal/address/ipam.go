package address

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

// OptionNet is the option of "docker network create --ipam-opt" that names the network: an engine asks for
// addresses before it makes a network, and never says what that is called.
const OptionNet = "net"

// AddressSpace is the name of the one space in which engines get pools.
const AddressSpace = "remora"

// IPAM is an [ipam.Driver] over an [Allocator]. A pool is a subnet of a network of the cluster.
//
// An engine that asks for a pool of a network that is known, by [OptionNet] or by its subnet, gets that one, whatever
// host made it. Otherwise the network is made. So the same command on each host makes the same network.
type IPAM struct{ *Allocator }

var _ ipam.Driver = IPAM{}

// DefaultAddressSpaces returns [AddressSpace] twice.
func (IPAM) DefaultAddressSpaces(context.Context) (local, global string, err error) {
	return AddressSpace, AddressSpace, nil
}

// RequestPool hands out a subnet of a network.
func (d IPAM) RequestPool(ctx context.Context, r ipam.PoolRequest) (ipam.Pool, error) {
	if r.AddressSpace != AddressSpace {
		return ipam.Pool{}, errdefs.Errorf(errdefs.ErrInvalid, "address space %.60q: there is %q", r.AddressSpace, AddressSpace)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Options)) {
		if key != OptionNet {
			return ipam.Pool{}, errdefs.Errorf(errdefs.ErrInvalid, "IPAM option %.60q: not known, there is %q, the name of the network", key, OptionNet)
		}
		if err := checkName(r.Options[key]); err != nil {
			return ipam.Pool{}, err
		}
	}
	s, p, ok, err := d.known(r)
	if err != nil {
		return ipam.Pool{}, err
	}
	if !ok {
		if s, p, err = d.create(ctx, r); err != nil {
			return ipam.Pool{}, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := s.ID + "/" + p.String()
	if d.offers[id] && !r.Pool.IsValid() {
		// An engine that has a route to the subnet asks again for as long as it is offered the same.
		delete(d.offers, id)
		return ipam.Pool{}, errdefs.Errorf(errdefs.ErrInUse, "subnet %s of network %q: this host has routes to it; for the engine to take it all the same, add --subnet %s", p, s.Name, p)
	}
	d.offers[id], d.making[s.ID] = !r.Pool.IsValid(), true
	return ipam.Pool{ID: id, Prefix: p}, nil
}

// checkName refuses what cannot be the name of a network.
func checkName(name string) error {
	if !isName(name) {
		return errdefs.Errorf(errdefs.ErrInvalid, "IPAM option %q: %.60q is no name of a network", OptionNet, name)
	}
	return nil
}

func isName(name string) bool {
	return name != "" && len(name) <= record.MaxName && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' })
}

// known returns the network that is asked for, if there is one.
func (d IPAM) known(r ipam.PoolRequest) (s Space, p netip.Prefix, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.look()
	name, p := r.Options[OptionNet], r.Pool
	if name != "" {
		s, ok = v.named(name)
	} else if p.IsValid() {
		s, ok = v.subnets()[p]
	}
	if !ok {
		return s, p, false, nil
	}
	if err := s.mayUse(); err != nil {
		return s, p, false, err
	}
	family := ofFamily(s.Prefixes, r.V6)
	switch {
	case len(family) == 0 && s.Creator == v.self && s.network.Engine:
		return s, p, false, nil // it gets one
	case len(family) == 0:
		return s, p, false, errdefs.Errorf(errdefs.ErrInvalid, "network %q: has no subnet of that family, but %s", s.Name, join(s.Prefixes))
	case !p.IsValid():
		p = family[0]
	case !slices.Contains(family, p):
		return s, p, false, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "network %q: its subnet is %s, not %s", s.Name, join(family), p), "leave out --subnet: the network has the same one on all hosts")
	}
	if sub := r.SubPool; sub.IsValid() && !slices.Contains(s.Range, sub) {
		return s, p, false, errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "network %q: its range is %s, not %s", s.Name, join(s.Range), sub), "leave out --ip-range: the network has the same one on all hosts")
	}
	if d.engineHas(s.ID, p) {
		return s, p, false, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "subnet %s: this host has network %q of it already", p, s.Name), "choose another --subnet, or remove the network that has it")
	}
	return s, p, true, nil
}

// Disown says that no engine of this host has a network any more that one had. The next one that asks for it is given it, with the
// gateway that it had.
func (a *Allocator) Disown(space string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nobodys[space] = true
}

// engineHas reports whether an engine that asks for pools has addresses of a subnet. The caller holds mu.
func (a *Allocator) engineHas(space string, subnet netip.Prefix) bool {
	if a.nobodys[space] {
		return false
	}
	for at, u := range a.used {
		if at.space == space && subnet.Contains(at.address) && !strings.HasPrefix(u.key, PodmanKey) {
			return true
		}
	}
	return false
}

// create makes the network that is asked for, or adds a subnet of the other family to it.
func (d IPAM) create(ctx context.Context, r ipam.PoolRequest) (s Space, p netip.Prefix, err error) {
	n := NewNetwork{Name: r.Options[OptionNet], Network: record.Network{Engine: true}, V4: !r.V6, V6: r.V6}
	if r.Pool.IsValid() {
		n.Network.Subnets, n.V4, n.V6 = []netip.Prefix{r.Pool}, false, false
	}
	if r.SubPool.IsValid() {
		n.Network.Range = []netip.Prefix{r.SubPool}
	}
	d.mu.Lock()
	v := d.look()
	var old Space
	ok := false
	switch {
	case n.Name != "":
		old, ok = v.named(n.Name)
	case r.V6:
		old, ok = d.half(v)
	}
	d.mu.Unlock()
	if ok {
		s, err = d.addSubnet(ctx, old, n)
	} else {
		s, err = d.CreateNetwork(ctx, n)
	}
	if err != nil {
		return s, p, err
	}
	return s, ofFamily(s.Prefixes, r.V6)[0], nil
}

// half is the network of which an engine has just asked for a subnet of IPv4, without naming it: it asks for that and one of IPv6, one
// after the other, and makes the network then. Where there are several, none is taken for it. The caller holds mu.
func (d IPAM) half(v *view) (half Space, ok bool) {
	for id := range d.making {
		s, known := v.spaces[id]
		if !known || s.Creator != v.self || !s.network.Engine || s.network.Told || len(ofFamily(s.Prefixes, true)) > 0 || s.Name != s.Prefixes[0].String() {
			continue
		}
		if ok {
			return Space{}, false
		}
		half, ok = s, true
	}
	return half, ok
}

// RequestAddress hands out an address; the gateway is the first of this host's first block.
func (d IPAM) RequestAddress(ctx context.Context, r ipam.AddressRequest) (ipam.Address, error) {
	space, subnet, err := parsePool(r.PoolID)
	if err != nil {
		return ipam.Address{}, err
	}
	key := cmp.Or(r.Endpoint, "container")
	d.mu.Lock()
	delete(d.offers, r.PoolID)
	delete(d.nobodys, space)
	making := d.making[space]
	d.mu.Unlock()
	switch {
	case r.Gateway:
		key = GatewayKey
	case making && r.Address.IsValid() && r.Endpoint == "": // there is no container of it yet
		key = AuxKey
	}
	p, err := d.Allocate(ctx, Want{Space: space, Subnet: subnet, Address: r.Address, Key: key})
	return ipam.Address{Prefix: p}, err
}

// ReleaseAddress takes an address back.
func (d IPAM) ReleaseAddress(ctx context.Context, poolID string, at netip.Addr) error {
	space, _, err := parsePool(poolID)
	if err != nil {
		return err
	}
	return d.Release(ctx, space, at)
}

// ReleasePool says that this host's engine has no network of the subnet any more.
func (d IPAM) ReleasePool(ctx context.Context, poolID string) error {
	space, subnet, err := parsePool(poolID)
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.offers, poolID)
	d.mu.Unlock()
	return d.Leave(ctx, space, subnet)
}

func parsePool(id string) (space string, subnet netip.Prefix, err error) {
	space, text, _ := strings.Cut(id, "/")
	subnet, bad := netip.ParsePrefix(text)
	if bad != nil {
		return "", subnet, errdefs.Errorf(errdefs.ErrNotFound, "pool %.60q: not known", id)
	}
	return space, subnet, nil
}
