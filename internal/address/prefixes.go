package address

import (
	"cmp"
	"net/netip"
	"slices"
)

// halves returns the two halves of p, which is no single address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return low, netip.PrefixFrom(a, p.Bits()+1)
}

// last returns the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// covers reports whether all of part lies in whole.
func covers(whole, part netip.Prefix) bool {
	return whole.Bits() <= part.Bits() && whole.Contains(part.Addr())
}

// minus returns what of whole is in none of parts, as few prefixes as can be, in order.
func minus(whole []netip.Prefix, parts []netip.Prefix) []netip.Prefix {
	var left []netip.Prefix
	for _, p := range whole {
		left = appendMinus(left, p, parts)
	}
	return merged(left)
}

func appendMinus(left []netip.Prefix, p netip.Prefix, parts []netip.Prefix) []netip.Prefix {
	var inside []netip.Prefix
	for _, q := range parts {
		switch {
		case covers(q, p):
			return left
		case covers(p, q):
			inside = append(inside, q)
		}
	}
	if inside == nil {
		return append(left, p)
	}
	low, high := halves(p)
	return appendMinus(appendMinus(left, low, inside), high, inside)
}

// common returns what is in both a and b.
func common(a, b []netip.Prefix) []netip.Prefix {
	var both []netip.Prefix
	for _, p := range a {
		for _, q := range b {
			switch {
			case covers(p, q):
				both = append(both, q)
			case covers(q, p):
				both = append(both, p)
			}
		}
	}
	return merged(both)
}

// merged returns the same addresses in as few prefixes as can be, in order.
func merged(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, byAddress)
	var out []netip.Prefix
	for _, p := range list {
		if len(out) > 0 && covers(out[len(out)-1], p) {
			continue
		}
		out = append(out, p)
		for len(out) > 1 {
			a, b := out[len(out)-2], out[len(out)-1]
			if a.Bits() != b.Bits() || a.Bits() == 0 {
				break
			}
			parent := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
			if !parent.Contains(b.Addr()) {
				break
			}
			out = append(out[:len(out)-2], parent)
		}
	}
	return out
}

func byAddress(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// bySize orders prefixes, the largest first, and of two of one size the higher.
func bySize(a, b netip.Prefix) int {
	return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), b.Addr().Compare(a.Addr()))
}

// blockBits returns the length of a block of p: of what a host takes at a time. It is a /24, or /112 of IPv6,
// where there are eight of these at least; a smaller one is cut into eight, down to eight addresses.
func blockBits(p netip.Prefix) int {
	want, least := 24, 29
	if p.Addr().Is6() {
		want, least = 112, 125
	}
	return max(p.Bits(), min(max(want, p.Bits()+3), least))
}

// subnetBits is the length of the subnets that are cut from p, a cluster's range.
func subnetBits(p netip.Prefix) int {
	if p.Addr().Is6() {
		return max(p.Bits(), 64)
	}
	return max(p.Bits(), min(max(16, p.Bits()+4), 24))
}

func ofFamily(list []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if p.Addr().Is6() == v6 {
			out = append(out, p)
		}
	}
	return out
}
