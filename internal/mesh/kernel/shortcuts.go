package kernel

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// buildShortcuts says what our table of the family netdev has to be. Its rules see what arrives on a bridge of ours and on
// the link to other hosts before the host itself does. What is whole, for this host's own MAC, from a block on one side
// and for a block on the other is passed on to the neighbour that has it; all else goes its usual way, also what the host
// has something to say about: packets whose time is over, with options, of other VLANs.
func buildShortcuts(list []plan.Shortcut, index func(link string) uint32) *ruleset {
	r := &ruleset{table: &nftables.Table{Name: TableName, Family: nftables.TableFamilyNetdev}}
	arrived := map[string]*nftables.Chain{}
	for _, s := range list {
		var blocks []netip.Prefix
		for _, w := range s.Ways {
			blocks = append(blocks, w.Dst)
		}
		v6, name := s.Own[0].Addr().Is6(), s.Bridge+"-"+s.Link
		own, others, host := r.pair(name+"-own", s.Own).of(v6), r.pair(name+"-others", blocks).of(v6), r.pair(name+"-host", singles(s.Host)).of(v6)
		r.pass(r.ingress(arrived, s.Bridge), v6, index(s.Link), within(to, others), within(from, own), r.via(name, v6, s.Ways))
		r.pass(r.ingress(arrived, s.Link), v6, index(s.Bridge), within(from, others), within(to, own), not(within(to, host)), exprs{address(to, v6)})
	}
	return r
}

// ingress is the chain of what arrives on a link.
func (r *ruleset) ingress(arrived map[string]*nftables.Chain, link string) *nftables.Chain {
	if c, ok := arrived[link]; ok {
		return c
	}
	c := r.base("from-"+link, nftables.ChainHookIngress, nftables.ChainPriorityFilter)
	c.Device = link
	arrived[link] = c
	return c
}

// pass adds a rule that passes packets on by a link, to the address that the last of its parts leave in the first register.
func (r *ruleset) pass(c *nftables.Chain, v6 bool, link uint32, parts ...exprs) {
	e := all(meta(expr.MetaKeyPROTOCOL, etherType(v6)...), all(parts[:len(parts)-1]...), whole(v6), parts[len(parts)-1])
	e = append(e, &expr.Immediate{Register: 2, Data: binaryutil.NativeEndian.PutUint32(link)})
	r.rules = append(r.rules, &rule{c, e, &passOn{v6}})
}

func etherType(v6 bool) []byte {
	if v6 {
		return []byte{unix.ETH_P_IPV6 >> 8, unix.ETH_P_IPV6 & 0xff}
	}
	return []byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}
}

// whole holds for packets that need nothing but to be passed on: they are for this host's MAC, of no VLAN (of which
// only the frame tells), without options of IP, and have more than one hop left.
func whole(v6 bool) exprs {
	e := append(meta(expr.MetaKeyPKTTYPE, unix.PACKET_HOST), field(expr.PayloadBaseLLHeader, 12, expr.CmpOpEq, etherType(v6)...)...)
	if v6 {
		return append(e, field(expr.PayloadBaseNetworkHeader, 7, expr.CmpOpGt, 1)...)
	}
	e = append(e, field(expr.PayloadBaseNetworkHeader, 0, expr.CmpOpEq, 0x45)...)
	return append(e, field(expr.PayloadBaseNetworkHeader, 8, expr.CmpOpGt, 1)...)
}

// field compares a part of a header.
func field(base expr.PayloadBase, offset uint32, op expr.CmpOp, value ...byte) exprs {
	return exprs{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(value))},
		&expr.Cmp{Op: op, Register: 1, Data: value},
	}
}

// via leaves the neighbour by which a packet's block is reached in the first register.
func (r *ruleset) via(name string, v6 bool, ways []plan.Way) exprs {
	if len(ways) == 1 {
		return exprs{&expr.Immediate{Register: 1, Data: ways[0].Via.AsSlice()}}
	}
	kind, digit := nftables.TypeIPAddr, "4"
	if v6 {
		kind, digit = nftables.TypeIP6Addr, "6"
	}
	r.nextID++
	m := &nftables.Set{Table: r.table, ID: r.nextID, Name: "map-" + name + digit, KeyType: kind, DataType: kind, IsMap: true, Interval: true}
	r.sets = append(r.sets, &set{m, spans(ways)})
	return exprs{address(to, v6), &expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}}
}

// spans are the elements of a map of blocks: where each begins, and where it has ended, also if the next begins there.
func spans(ways []plan.Way) (elements []nftables.SetElement) {
	sorted := slices.SortedFunc(slices.Values(ways), func(a, b plan.Way) int { return a.Dst.Compare(b.Dst) })
	for _, w := range sorted {
		elements = append(elements,
			nftables.SetElement{Key: w.Dst.Addr().AsSlice(), Val: w.Via.AsSlice()},
			nftables.SetElement{Key: last(w.Dst).Next().AsSlice(), IntervalEnd: true})
	}
	return elements
}
