package kernel

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// addrs are addresses of one family that rules look for.
type addrs struct {
	r        *ruleset
	v6       bool
	name     string
	prefixes []netip.Prefix // none within another
	set      *nftables.Set  // made when it is needed
}

// pair has those of IPv4 and of IPv6.
type pair [2]*addrs

func (r *ruleset) pair(name string, prefixes []netip.Prefix) pair {
	return pair{
		{r: r, name: "set-" + name + "4", prefixes: outermost(family(prefixes, false))},
		{r: r, name: "set-" + name + "6", prefixes: outermost(family(prefixes, true)), v6: true},
	}
}

func (p pair) of(v6 bool) *addrs {
	if v6 {
		return p[1]
	}
	return p[0]
}

func (a *addrs) empty() bool { return len(a.prefixes) == 0 }

// Where addresses are in the headers.
type side int

const (
	from side = iota
	to
)

// never holds for no packet.
var never = &expr.Cmp{}

// addr holds for packets from or to some addresses.
func addr(s side, a *addrs) exprs {
	family := byte(unix.NFPROTO_IPV4)
	if a.v6 {
		family = unix.NFPROTO_IPV6
	}
	return append(meta(expr.MetaKeyNFPROTO, family), within(s, a)...)
}

// address loads that of a packet of a family.
func address(s side, v6 bool) *expr.Payload {
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	if v6 {
		load.Offset, load.Len = 8, 16
	}
	if s == to {
		load.Offset += load.Len
	}
	return load
}

// within is addr for packets of which the family is known. One prefix is compared, which takes a tenth of the time of a
// look into a set.
func within(s side, a *addrs) exprs {
	if a.empty() {
		return exprs{never}
	}
	load := address(s, a.v6)
	e := exprs{load}
	if len(a.prefixes) > 1 {
		return append(e, &expr.Lookup{SourceRegister: 1, SetName: a.asSet().Name, SetID: a.set.ID})
	}
	p := a.prefixes[0]
	key := p.Addr().AsSlice()
	if bits := p.Bits(); bits%8 == 0 && bits > 0 {
		load.Len = uint32(bits / 8)
		key = key[:load.Len]
	} else {
		mask := make([]byte, len(key))
		for i := range bits {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		e = append(e, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: load.Len, Mask: mask, Xor: make([]byte, len(key))})
	}
	return append(e, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: key})
}

// not turns what addr holds for into what it does not hold for, of the same family.
func not(parts exprs) exprs {
	switch e := parts[len(parts)-1].(type) {
	case *expr.Lookup:
		e.Invert = true
	case *expr.Cmp:
		if e == never {
			return nil
		}
		e.Op = expr.CmpOpNeq
	}
	return parts
}

func (a *addrs) asSet() *nftables.Set {
	if a.set == nil {
		kind := nftables.TypeIPAddr
		if a.v6 {
			kind = nftables.TypeIP6Addr
		}
		a.r.nextID++
		a.set = &nftables.Set{Table: a.r.table, ID: a.r.nextID, Name: a.name, KeyType: kind, Interval: true}
		a.r.sets = append(a.r.sets, &set{a.set, intervals(a.prefixes)})
	}
	return a.set
}

// outermost leaves out the prefixes that are within others.
func outermost(prefixes []netip.Prefix) (out []netip.Prefix) {
	for _, p := range slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare) {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// intervals are the elements of a set of prefixes: where each begins, and where it has ended. Those that touch
// are one.
func intervals(prefixes []netip.Prefix) (elements []nftables.SetElement) {
	sorted := slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
	var end netip.Addr
	for _, p := range sorted {
		next := last(p).Next()
		switch {
		case end.IsValid() && p.Addr().Compare(end) <= 0:
			if next.Compare(end) <= 0 {
				continue
			}
			elements = elements[:len(elements)-1]
		default:
			elements = append(elements, nftables.SetElement{Key: p.Addr().AsSlice()})
		}
		end = next
		elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elements
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func family(prefixes []netip.Prefix, v6 bool) (of []netip.Prefix) {
	for _, p := range prefixes {
		if p.Addr().Is6() == v6 {
			of = append(of, p.Masked())
		}
	}
	return of
}

func singles(addrs []netip.Addr) (prefixes []netip.Prefix) {
	for _, a := range addrs {
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	return prefixes
}
