package address

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// space returns the space of an ID, to which subnet belongs.
func (v *view) space(id string, subnet netip.Prefix) (Space, error) {
	s, ok := v.spaces[id]
	switch {
	case !ok && id == clusterRange:
		return s, errdefs.Errorf(errdefs.ErrUnavailable, "the cluster's range: not known on this host yet")
	case !ok:
		return s, errdefs.Errorf(errdefs.ErrNotFound, "network %s: not known on this host, or removed", id)
	case subnet.IsValid() && !slices.Contains(s.Prefixes, subnet):
		return s, errdefs.Errorf(errdefs.ErrInvalid, "subnet %s: not one of %s", subnet, s)
	}
	return s, nil
}

// named returns w.Address if this host may give it out, and none where another host owns it.
func (a *Allocator) named(v *view, s Space, w Want) (netip.Addr, error) {
	at := w.Address
	switch {
	case !w.Subnet.Contains(at):
		return netip.Addr{}, errdefs.Errorf(errdefs.ErrInvalid, "address %s: not in subnet %s", at, w.Subnet)
	case at == w.Subnet.Addr(), at.Is4() && at == last(w.Subnet):
		return netip.Addr{}, errdefs.Errorf(errdefs.ErrInvalid, "address %s: it stands for the subnet %s itself", at, w.Subnet)
	}
	if u, ok := a.used[spot{s.ID, at}]; ok {
		return netip.Addr{}, errdefs.Errorf(errdefs.ErrInUse, "address %s: in use on this host by %q", at, u.key)
	}
	for _, h := range v.mine(s.ID) {
		if h.prefix.Contains(at) {
			return at, nil
		}
	}
	return netip.Addr{}, nil
}

// blocks returns those in which addresses are out, or rest.
func (a *Allocator) blocks(s Space, subnet netip.Prefix, resting bool) []netip.Prefix {
	return slices.SortedFunc(maps.Keys(a.counts(s, subnet, resting)), byAddress)
}

// counts returns how many addresses are out, or rest, by block; those that are given only by name do not count.
func (a *Allocator) counts(s Space, subnet netip.Prefix, resting bool) map[netip.Prefix]int {
	n := map[netip.Prefix]int{}
	add := func(at spot) {
		if at.space != s.ID || subnet.IsValid() && !subnet.Contains(at.address) {
			return
		}
		b := s.block(at.address)
		if apart(b, at.address) {
			n[b] += 0
		} else {
			n[b]++
		}
	}
	for at := range a.used {
		add(at)
	}
	for _, f := range a.spent {
		if resting || time.Since(f.at) < Rest {
			add(f.spot)
		}
	}
	return n
}

// room is how many addresses of a block are given to those who name none.
func room(b netip.Prefix) int {
	n := 1 << min(b.Addr().BitLen()-b.Bits(), 62)
	if b.Addr().Is4() {
		n--
	}
	return n - 1
}

// block returns the block to which an address of s belongs.
func (s Space) block(at netip.Addr) netip.Prefix {
	p, _ := at.Prefix(s.bits(netip.PrefixFrom(at, at.BitLen())))
	return p
}

// choose returns an address that is free: one that was never out of a block that is in use, then the one that has rested longest,
// then the first of another block. If there is none, short says how things are.
func (a *Allocator) choose(v *view, s Space, subnet netip.Prefix) (got netip.Addr, short string) {
	mine := common(prefixesOf(v.mine(s.ID)), common(s.Range, []netip.Prefix{subnet}))
	resting := map[netip.Addr]bool{}
	for _, f := range a.spent {
		if f.space == s.ID {
			resting[f.address] = true
		}
	}
	counts := a.counts(s, subnet, true)
	begun := slices.SortedFunc(maps.Keys(counts), byAddress)
	for _, b := range begun {
		if counts[b] >= room(b) {
			continue
		}
		if at := a.fresh(s, b, mine, resting); at.IsValid() {
			return at, ""
		}
	}
	wait := time.Duration(-1)
	for _, f := range a.spent {
		if f.space != s.ID || !within(mine, f.address) {
			continue
		}
		if rest := Rest - time.Since(f.at); rest <= 0 {
			return f.address, ""
		} else if wait < 0 {
			wait = rest
		}
	}
	free := minus(mine, begun)
	slices.SortFunc(free, bySize)
	for _, p := range slices.Backward(free) { // the smallest first: the large ones are for other hosts
		for b := s.block(p.Addr()); p.Overlaps(b); b = s.block(last(b).Next()) {
			if at := a.fresh(s, b, mine, resting); at.IsValid() {
				return at, ""
			}
			if !last(b).Next().IsValid() {
				break
			}
		}
	}
	if len(mine) == 0 {
		return got, "this host has no addresses of it"
	}
	out, _ := a.count(s.ID, subnet)
	short = fmt.Sprintf("all addresses of this host are out (%d)", out)
	if wait > 0 {
		short += fmt.Sprintf(", one is free again in %s", wait.Round(time.Second))
	}
	return got, short
}

// apart reports whether an address of block b is given only by name: the first of a block, and the last of IPv4, stand
// for the subnet in one block or another.
func apart(b netip.Prefix, at netip.Addr) bool {
	return at == b.Addr() || at.Is4() && at == last(b)
}

// fresh returns the first address of block b that is mine and was never out.
func (a *Allocator) fresh(s Space, b netip.Prefix, mine []netip.Prefix, resting map[netip.Addr]bool) netip.Addr {
	for _, p := range common(mine, []netip.Prefix{b}) {
		for at := p.Addr(); p.Contains(at); at = at.Next() {
			if resting[at] || apart(b, at) {
				continue
			}
			if _, out := a.used[spot{s.ID, at}]; !out {
				return at
			}
		}
	}
	return netip.Addr{}
}

func within(list []netip.Prefix, at netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(at) })
}
