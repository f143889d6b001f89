package address

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// tries is how often a host asks for a part of the cluster's range, of which a large subnet needs several.
const tries = 16

// NewNetwork is what a network is to be.
type NewNetwork struct {
	// Name is the network's; empty is that of its first subnet.
	Name string
	// Network has the subnets that are chosen, and everything else. ID and Created are given here.
	Network record.Network
	// V4 and V6: a subnet of the cluster's range is added.
	V4, V6 bool
}

// CreateNetwork makes a network known to all hosts. This one owns all of it. A network of that name is ErrExists, a
// subnet that overlaps another, or a route of this host, is ErrInUse.
func (a *Allocator) CreateNetwork(ctx context.Context, n NewNetwork) (Space, error) {
	if n.Name != "" && !isName(n.Name) { // no engine could make it
		return Space{}, errdefs.Errorf(errdefs.ErrInvalid, "network %.60q: a name has no spaces and no slash, and at most %d bytes", n.Name, record.MaxName)
	}
	n.Network.Subnets = slices.Clone(n.Network.Subnets)
	for i, p := range n.Network.Subnets {
		if !p.IsValid() || p != p.Masked() || p.IsSingleIP() || p.Bits() == 0 {
			return Space{}, errdefs.Errorf(errdefs.ErrInvalid, "subnet %s: not a subnet", p)
		}
		for _, q := range n.Network.Subnets[:i] {
			if p.Overlaps(q) {
				return Space{}, errdefs.Errorf(errdefs.ErrInvalid, "subnet %s: overlaps %s, which is wanted too", p, q)
			}
		}
	}
	for _, p := range n.Network.Range {
		if !slices.ContainsFunc(n.Network.Subnets, func(s netip.Prefix) bool { return covers(s, p) }) {
			return Space{}, errdefs.Errorf(errdefs.ErrInvalid, "range %s: not in a subnet of the network", p)
		}
	}
	routes, err := a.routes()
	if err != nil {
		return Space{}, err
	}
	for try := 0; ; try++ {
		s, missing, err := a.tryCreate(n, routes)
		if err != nil || !missing.subnet.IsValid() {
			return s, err
		}
		if try == tries {
			return Space{}, errdefs.Errorf(errdefs.ErrUnavailable, "subnet: other networks were faster, %d times", tries)
		}
		if err := a.acquire(ctx, missing); err != nil {
			if missing.address.IsValid() {
				return Space{}, errdefs.Hint(fmt.Errorf("subnet in the cluster's range: %w", err), "leave the choice of the subnet to the cluster, or choose one outside its range")
			}
			return Space{}, errdefs.Hint(fmt.Errorf("no subnet is left on this host: %w", err), "choose one outside the cluster's range with --subnet")
		}
	}
}

// routes returns those of this host, without the default route.
func (a *Allocator) routes() (out []netip.Prefix, err error) {
	if a.config.Routes == nil {
		return nil, nil
	}
	all, err := a.config.Routes()
	for _, p := range all {
		if p.Bits() > 0 {
			out = append(out, p)
		}
	}
	return out, err
}

// tryCreate makes the network, or says what this host has to own before it can.
func (a *Allocator) tryCreate(n NewNetwork, routes []netip.Prefix) (s Space, missing wanted, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.look()
	for _, p := range n.Network.Subnets {
		if missing, err = v.mayTake(p, routes); err != nil || missing.subnet.IsValid() {
			return s, missing, err
		}
	}
	for _, v6 := range []bool{false, true} {
		if v6 && !n.V6 || !v6 && !n.V4 {
			continue
		}
		p, err := v.cut(v6, routes)
		if err != nil {
			return s, missing, err
		}
		if !p.IsValid() {
			return s, wanted{space: clusterRange, subnet: everything(v6)}, nil
		}
		n.Network.Subnets = append(n.Network.Subnets, p)
	}
	if len(n.Network.Subnets) == 0 {
		return s, missing, errdefs.Errorf(errdefs.ErrInvalid, "network %q: without a subnet", n.Name)
	}
	n.Name = cmp.Or(n.Name, n.Network.Subnets[0].String())
	if old, ok := v.named(n.Name); ok {
		if err := old.mayUse(); err != nil {
			return s, missing, err
		}
		return s, missing, errdefs.Errorf(errdefs.ErrExists, "network %q: there is one, of subnet %s", n.Name, join(old.Prefixes))
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return s, missing, err
	}
	n.Network.ID, n.Network.Created = hex.EncodeToString(id), time.Now().UTC()
	a.view = nil
	if err := a.config.Store.Put(record.KindNetwork, n.Name, n.Network); err != nil {
		return s, missing, err
	}
	return a.look().spaces[n.Network.ID], wanted{}, nil
}

// mayTake says why a network cannot have subnet p, or what this host has to own first.
func (v *view) mayTake(p netip.Prefix, routes []netip.Prefix) (missing wanted, err error) {
	for q, s := range v.subnets() {
		if p.Overlaps(q) {
			return missing, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "subnet %s: overlaps %s of network %q", p, q, s.Name),
				"choose another --subnet, or name that network to make it known to this engine")
		}
	}
	for _, q := range routes {
		if p.Overlaps(q) {
			return missing, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "subnet %s: this host has a route to %s", p, q), "choose another --subnet")
		}
	}
	s := v.spaces[clusterRange]
	inside := common(s.Prefixes, []netip.Prefix{p})
	if others := minus(inside, prefixesOf(v.mine(clusterRange))); len(others) > 0 {
		return wanted{space: clusterRange, subnet: everything(p.Addr().Is6()), address: others[0].Addr()}, nil
	}
	return missing, nil
}

// cut returns the first subnet of the cluster's range that this host may take, or none where it owns none.
func (v *view) cut(v6 bool, routes []netip.Prefix) (netip.Prefix, error) {
	s, err := v.space(clusterRange, netip.Prefix{})
	if err != nil {
		return netip.Prefix{}, err
	}
	parts := ofFamily(s.Prefixes, v6)
	if len(parts) == 0 {
		return netip.Prefix{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the cluster's range has no addresses of that family"), "choose a subnet with --subnet")
	}
	taken := slices.Clone(routes)
	for p := range v.subnets() {
		taken = append(taken, p)
	}
	if len(minus(parts, routes)) == 0 {
		return netip.Prefix{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "the cluster's range %s: this host has routes to all of it", join(parts)), "choose a subnet with --subnet")
	}
	free := minus(common(prefixesOf(v.mine(clusterRange)), parts), taken)
	slices.SortFunc(free, bySize)
	for _, p := range slices.Backward(free) { // the smallest piece that will do
		if bits := s.bits(p); p.Bits() <= bits {
			return netip.PrefixFrom(p.Addr(), bits), nil
		}
	}
	return netip.Prefix{}, nil
}

func everything(v6 bool) netip.Prefix {
	if v6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func join(list []netip.Prefix) string {
	var b strings.Builder
	for i, p := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// addSubnet adds the subnet of n to s, which this host created.
func (a *Allocator) addSubnet(ctx context.Context, s Space, n NewNetwork) (Space, error) {
	routes, err := a.routes()
	if err != nil {
		return s, err
	}
	for try := 0; ; try++ {
		s, missing, err := a.tryAdd(s, n, routes)
		if err != nil || !missing.subnet.IsValid() {
			return s, err
		}
		if try == tries {
			return s, errdefs.Errorf(errdefs.ErrUnavailable, "subnet: other networks were faster, %d times", tries)
		}
		if err := a.acquire(ctx, missing); err != nil {
			return s, err
		}
	}
}

func (a *Allocator) tryAdd(s Space, n NewNetwork, routes []netip.Prefix) (_ Space, missing wanted, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.look()
	network := v.spaces[s.ID].network
	more := n.Network.Subnets
	if len(more) == 0 {
		p, err := v.cut(n.V6, routes)
		if err != nil {
			return s, missing, err
		}
		if !p.IsValid() {
			return s, wanted{space: clusterRange, subnet: everything(n.V6)}, nil
		}
		more = []netip.Prefix{p}
	} else if missing, err = v.mayTake(more[0], routes); err != nil || missing.subnet.IsValid() {
		return s, missing, err
	}
	network.Subnets = append(slices.Clone(network.Subnets), more...)
	if len(network.Range)+len(n.Network.Range) > 0 { // each family has one, or all of it
		if len(network.Range) == 0 {
			network.Range = slices.Clone(s.Prefixes)
		}
		if n.Network.Range == nil {
			n.Network.Range = more
		}
		network.Range = append(slices.Clone(network.Range), n.Network.Range...)
	}
	a.view = nil
	if err := a.config.Store.Put(record.KindNetwork, s.Name, network); err != nil {
		return s, missing, err
	}
	return a.look().spaces[s.ID], missing, nil
}
