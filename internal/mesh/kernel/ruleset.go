package kernel

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// TableName is that of our table of nftables, of the family inet.
const TableName = "remora"

// tunnels are the links on which packets of other hosts arrive.
var tunnels = []string{plan.Tunnel, plan.VXLAN4, plan.VXLAN6}

// ruleset is the whole of our table.
type ruleset struct {
	table  *nftables.Table
	chains []*nftables.Chain
	sets   []*set
	rules  []*rule
	nextID uint32
}

type set struct {
	*nftables.Set
	elements []nftables.SetElement
}

type rule struct {
	chain *nftables.Chain
	exprs exprs
}

// build says what the table has to be.
//
// A packet from a network's bridge goes to its own network or, unless that is internal, where the host's other
// rules let it; one for a bridge comes from the same network, by the way on which its sender is reached, or is an
// answer; one that is passed on between two other hosts stays within one network. Everything else is dropped.
func build(p plan.Rules) *ruleset {
	r := &ruleset{table: &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}}
	var subnets, plain []netip.Prefix
	for _, n := range p.Nets {
		subnets, plain = append(subnets, n.Subnets...), append(plain, n.Plain...)
	}
	r.sources(subnets, plain, singles(p.Own))
	forward := r.base("forward", nftables.ChainHookForward, nftables.ChainPriorityFilter)
	mss := r.base("mss", nftables.ChainHookForward, nftables.ChainPriorityMangle)
	for _, at := range []expr.MetaKey{in, out} {
		r.add(mss, isLink(at, ours), clampMSS())
	}
	narrow := r.pair("narrow", p.Narrow)[1]
	for _, s := range []side{from, to} {
		r.add(mss, addr(s, narrow), leastMSS())
	}
	r.input(p)
	var leave, enter []nftables.SetElement
	for _, n := range p.Nets {
		if n.Bridge == "" {
			continue
		}
		from, to := r.network(n)
		leave, enter = append(leave, goes(n.Bridge, from)), append(enter, goes(n.Bridge, to))
	}
	r.add(forward, r.choose(in, "leave", leave))
	r.add(forward, r.choose(out, "enter", enter))
	transit := r.chain("transit")
	for _, side := range []expr.MetaKey{in, out} {
		for _, name := range tunnels {
			r.add(forward, isLink(side, name), jump(transit.Name))
		}
	}
	r.add(transit, notLink(in, ours), drop())
	r.add(transit, notLink(out, ours), drop())
	for _, n := range p.Nets {
		for _, s := range r.pair(n.Name+"-subnets", n.Subnets) {
			r.add(transit, addr(from, s), addr(to, s), accept())
		}
	}
	r.add(transit, drop())
	return r
}

// sources drops, before anything else, what says that it comes from a network but does not come the way that
// its sender is reached by. What passes from container to container is not tracked: only what has to do with the
// host itself, or with what is outside, needs to be. Nor are queries for names, of which there are many.
func (r *ruleset) sources(subnets, plain, own []netip.Prefix) {
	pre := r.base("sources", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	r.add(pre, isLink(in, ours), destPort(53), untracked())
	nets, host := r.pair("subnets", subnets), r.pair("own", own)
	for i, s := range nets {
		r.add(pre, addr(from, s), addr(to, s), not(addr(to, host[i])), untracked())
	}
	r.add(pre, isLink(in, ours), accept())
	r.add(pre, isLink(in, "lo"), accept())
	for _, s := range r.pair("plain", plain) {
		r.add(pre, addr(from, s), accept())
	}
	for _, s := range nets {
		r.add(pre, addr(from, s), drop())
	}
	output := r.base("answers", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	r.add(output, isLink(out, ours), sourcePort(53), untracked())
	// Containers route all of a network's IPv6 by their bridge. Told that a neighbour is on their own link they would
	// believe it for long, and it may be on another host the next minute.
	r.add(output, isLink(out, ours), protocol(unix.IPPROTO_ICMPV6), icmpType(redirect6), drop())
}

// input guards the host itself: other hosts' containers may ping it, and reach what it shows them.
func (r *ruleset) input(p plan.Rules) {
	chain := r.base("input", nftables.ChainHookInput, nftables.ChainPriorityFilter)
	guest := r.chain("guest")
	for _, name := range tunnels { // a network's groups, sent within what is guarded already
		r.add(chain, isLink(in, name), destPort(p.VXLANPort), accept())
	}
	for _, s := range r.pair("senders", singles(p.Senders)) {
		r.add(chain, destPort(p.VXLANPort), addr(from, s), accept())
	}
	r.add(chain, destPort(p.VXLANPort), notLink(in, "lo"), drop())
	for _, name := range tunnels {
		r.add(chain, isLink(in, name), jump(guest.Name))
	}
	r.add(guest, answers(), accept())
	r.add(guest, protocol(unix.IPPROTO_ICMP), accept())
	r.add(guest, protocol(unix.IPPROTO_ICMPV6), accept())
	var exposed []netip.Addr
	for _, n := range p.Nets {
		exposed = append(exposed, n.Exposed...)
	}
	for _, s := range r.pair("exposed", singles(exposed)) {
		r.add(guest, addr(to, s), accept())
	}
	r.add(guest, drop())
}

// network is what may pass the bridge of a network, in two chains.
func (r *ruleset) network(n plan.Net) (leave, enter *nftables.Chain) {
	sealed, plain := r.pair(n.Name+"-sealed", n.Sealed), r.pair(n.Name+"-plain", n.Plain)
	leave, enter = r.chain("net-"+n.Name+"-from"), r.chain("net-"+n.Name+"-to")
	r.add(leave, isLink(out, n.Bridge), accept())
	for i := range sealed {
		r.add(leave, addr(from, sealed[i]), drop())
		r.add(leave, addr(from, plain[i]), drop())
		r.add(leave, isLink(out, plan.Tunnel), addr(to, sealed[i]), accept())
		r.add(leave, notLink(out, plan.Tunnel), addr(to, plain[i]), accept())
	}
	r.add(leave, isLink(out, ours), drop())
	for _, s := range r.pair(n.Name+"-own", n.Subnets) {
		r.add(leave, addr(to, s), drop())
	}
	if n.Internal {
		r.add(leave, drop())
	}

	r.add(enter, isLink(in, n.Bridge), accept())
	for i := range sealed {
		r.add(enter, isLink(in, plan.Tunnel), addr(from, sealed[i]), accept())
		r.add(enter, notLink(in, plan.Tunnel), addr(from, plain[i]), accept())
	}
	if !n.Internal {
		r.add(enter, answers(), accept())
	}
	r.add(enter, drop())
	return leave, enter
}

// goes is the element of a map that sends packets of an interface to a chain.
func goes(link string, to *nftables.Chain) nftables.SetElement {
	return nftables.SetElement{Key: linkName(link), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: to.Name}}
}

// choose goes to the chain that a map has for the interface. However many networks there are, that is one step.
func (r *ruleset) choose(side expr.MetaKey, name string, elements []nftables.SetElement) exprs {
	r.nextID++
	m := &nftables.Set{Table: r.table, ID: r.nextID, Name: "map-" + name, KeyType: nftables.TypeIFName, IsMap: true, DataType: nftables.TypeVerdict}
	r.sets = append(r.sets, &set{m, elements})
	return exprs{
		&expr.Meta{Key: side, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
	}
}

func (r *ruleset) base(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	kind, policy := nftables.ChainTypeFilter, nftables.ChainPolicyAccept
	c := &nftables.Chain{Name: name, Table: r.table, Hooknum: hook, Priority: priority, Type: kind, Policy: &policy}
	r.chains = append(r.chains, c)
	return c
}

func (r *ruleset) chain(name string) *nftables.Chain {
	c := &nftables.Chain{Name: name, Table: r.table}
	r.chains = append(r.chains, c)
	return c
}

// add adds a rule. One that no packet matches is left out, for every packet would be looked up in its empty set: of IPv6
// where there is none, of encrypted ways where all are plain.
func (r *ruleset) add(c *nftables.Chain, parts ...exprs) {
	if e := all(parts...); !slices.ContainsFunc(e, r.never) {
		r.rules = append(r.rules, &rule{c, e})
	}
}

// never reports whether something holds for no packet.
func (r *ruleset) never(e expr.Any) bool {
	l, ok := e.(*expr.Lookup)
	return ok && !l.Invert && slices.ContainsFunc(r.sets, func(s *set) bool { return s.Name == l.SetName && len(s.elements) == 0 })
}

// pair makes a set for each family.
func (r *ruleset) pair(name string, prefixes []netip.Prefix) (sets []*nftables.Set) {
	for _, v6 := range []bool{false, true} {
		kind, suffix := nftables.TypeIPAddr, "4"
		if v6 {
			kind, suffix = nftables.TypeIP6Addr, "6"
		}
		r.nextID++
		s := &nftables.Set{Table: r.table, ID: r.nextID, Name: "set-" + name + suffix, KeyType: kind, Interval: true}
		r.sets = append(r.sets, &set{s, intervals(family(prefixes, v6))})
		sets = append(sets, s)
	}
	return sets
}

// comment marks a rule with its place and with all that the table was made from, so that a table of another
// version, or one that somebody changed, is known.
func (r *ruleset) comment(fingerprint string, i int) string {
	return fmt.Sprintf("remora %s %d", fingerprint, i)
}
