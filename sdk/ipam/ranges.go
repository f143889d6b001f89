package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// span is the addresses from lo to hi, both included.
type span struct{ lo, hi netip.Addr }

// MarshalText writes a span as "lo-hi", or as one address.
func (s span) MarshalText() ([]byte, error) {
	if s.lo == s.hi {
		return s.lo.MarshalText()
	}
	return []byte(s.lo.String() + "-" + s.hi.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (s *span) UnmarshalText(text []byte) (err error) {
	lo, hi, two := strings.Cut(string(text), "-")
	if !two {
		hi = lo
	}
	if s.lo, err = netip.ParseAddr(lo); err != nil {
		return err
	}
	if s.hi, err = netip.ParseAddr(hi); err != nil {
		return err
	}
	if s.hi.Less(s.lo) || s.lo.Is4() != s.hi.Is4() {
		return fmt.Errorf("range %q ends before it begins", text)
	}
	return nil
}

// ranges is a set of addresses of one family: spans in order that neither overlap nor
// touch. It takes room for what is scattered, not for what there is, so that a pool of
// IPv6 costs no more than one of IPv4.
type ranges []span

// find returns the index of the first span that does not end before a, and whether a is
// in it.
func (r ranges) find(a netip.Addr) (int, bool) {
	return slices.BinarySearchFunc(r, a, func(s span, a netip.Addr) int {
		switch {
		case s.hi.Less(a):
			return -1
		case a.Less(s.lo):
			return 1
		}
		return 0
	})
}

func (r ranges) has(a netip.Addr) bool {
	_, ok := r.find(a)
	return ok
}

// with returns the set and a. It does not change r.
func (r ranges) with(a netip.Addr) ranges {
	i, ok := r.find(a)
	if ok {
		return r
	}
	s := span{a, a}
	j := i
	if i > 0 && r[i-1].hi.Next() == a {
		i--
		s.lo = r[i].lo
	}
	if j < len(r) && a.Next() == r[j].lo {
		s.hi = r[j].hi
		j++
	}
	return slices.Concat(r[:i], ranges{s}, r[j:])
}

// without returns the set without a. It does not change r.
func (r ranges) without(a netip.Addr) ranges {
	i, ok := r.find(a)
	if !ok {
		return r
	}
	var rest ranges
	if r[i].lo != a {
		rest = append(rest, span{r[i].lo, a.Prev()})
	}
	if r[i].hi != a {
		rest = append(rest, span{a.Next(), r[i].hi})
	}
	return slices.Concat(r[:i], rest, r[i+1:])
}

// firstFree returns the first address from lo to hi that is not in the set.
func (r ranges) firstFree(lo, hi netip.Addr) (netip.Addr, bool) {
	for a := lo; a.IsValid() && !hi.Less(a); {
		i, ok := r.find(a)
		if !ok {
			return a, true
		}
		a = r[i].hi.Next()
	}
	return netip.Addr{}, false
}

// last returns the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
