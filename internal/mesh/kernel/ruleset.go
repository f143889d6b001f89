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

	tunnelled bool // some network has blocks behind the tunnel
}

type set struct {
	*nftables.Set
	elements []nftables.SetElement
}

type rule struct {
	chain *nftables.Chain
	exprs exprs
	last  *passOn // after them, if there is one
}

// build says what the table has to be.
//
// A packet from a network's bridge goes to its own network or, unless that is internal, where the host's other
// rules let it; one for a bridge comes from the same network, by the way on which its sender is reached, or is an
// answer; one that is passed on between two other hosts stays within one network. Everything else is dropped.
func build(p plan.Rules) *ruleset {
	r := &ruleset{table: &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}}
	var subnets, plain, sealed []netip.Prefix
	for _, n := range p.Nets {
		subnets, plain, sealed = append(subnets, n.Subnets...), append(plain, n.Plain...), append(sealed, n.Sealed...)
	}
	r.tunnelled = len(sealed) > 0
	senders := r.pair("senders", singles(p.Senders))
	r.sources(p.VXLANPort, senders, subnets, plain, singles(p.Own))
	forward := r.base("forward", nftables.ChainHookForward, nftables.ChainPriorityFilter)
	if narrow := r.pair("narrow", p.Narrow)[1]; !narrow.empty() {
		mss := r.base("mss", nftables.ChainHookForward, nftables.ChainPriorityMangle)
		r.add(mss, addr(from, narrow), leastMSS())
		r.add(mss, addr(to, narrow), leastMSS())
	}
	r.input(p.VXLANPort, senders, p.Nets)
	var leave, enter []choice
	for _, n := range p.Nets {
		if n.Bridge == "" {
			continue
		}
		from, to := r.network(n)
		leave, enter = append(leave, choice{n.Bridge, from}), append(enter, choice{n.Bridge, to})
	}
	r.choose(forward, in, "leave", leave)
	r.choose(forward, out, "enter", enter)
	transit := r.chain("transit")
	for _, side := range []expr.MetaKey{in, out} {
		for _, name := range tunnels {
			r.add(forward, isLink(side, name), jump(transit.Name))
		}
	}
	r.add(transit, notLink(in, ours), drop())
	r.add(transit, notLink(out, ours), drop())
	r.add(transit, clampMSS())
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
// host itself, or with what is outside, needs to be. Nor are queries for names, of which there are many, nor the
// packets around those of a VXLAN, of which both hosts send their own and none is the answer to another.
func (r *ruleset) sources(port uint16, senders pair, subnets, plain, own []netip.Prefix) {
	pre := r.base("sources", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	inside, near := r.chain("inside"), r.chain("near")
	r.add(pre, isLink(in, ours), jump(inside.Name))
	for _, s := range senders {
		r.add(pre, destPort(port), addr(from, s), untracked(), accept())
	}
	for _, s := range r.pair("plain", plain) {
		r.add(pre, addr(from, s), jump(near.Name))
	}
	nets, host := r.pair("subnets", subnets), r.pair("own", own)
	for _, s := range nets {
		r.add(pre, addr(from, s), notLink(in, "lo"), drop())
	}
	for _, c := range []*nftables.Chain{inside, near} {
		for i, s := range nets {
			r.add(c, addr(to, s), not(addr(to, host[i])), untracked(), accept())
		}
	}
	r.add(inside, destPort(53), untracked())
	output := r.base("answers", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	spoken := r.chain("spoken")
	r.add(output, isLink(out, ours), jump(spoken.Name))
	for _, s := range senders {
		r.add(output, destPort(port), addr(to, s), untracked())
	}
	r.add(spoken, sourcePort(53), untracked())
	// Containers route all of a network's IPv6 by their bridge. Told that a neighbour is on their own link they would
	// believe it for long, and it may be on another host the next minute.
	r.add(spoken, protocol(unix.IPPROTO_ICMPV6), icmpType(redirect6), drop())
}

// input guards the host itself: other hosts' containers may ping it, and reach what it shows them.
func (r *ruleset) input(port uint16, senders pair, nets []plan.Net) {
	chain := r.base("input", nftables.ChainHookInput, nftables.ChainPriorityFilter)
	ourLinks, guest := r.chain("ours"), r.chain("guest")
	r.add(chain, isLink(in, ours), jump(ourLinks.Name))
	for _, s := range senders {
		r.add(chain, destPort(port), addr(from, s), accept())
	}
	r.add(chain, destPort(port), notLink(in, "lo"), drop())
	for _, name := range tunnels {
		r.add(ourLinks, isLink(in, name), jump(guest.Name))
	}
	r.add(ourLinks, destPort(port), drop())
	r.add(guest, destPort(port), accept()) // a network's groups, sent within what is guarded already
	r.add(guest, answers(), accept())
	r.add(guest, protocol(unix.IPPROTO_ICMP), accept())
	r.add(guest, protocol(unix.IPPROTO_ICMPV6), accept())
	var exposed []netip.Addr
	for _, n := range nets {
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
	var by, notBy, sealedFrom exprs
	if r.tunnelled { // else there is nobody to confuse it with
		by, notBy, sealedFrom = isLink(out, plan.Tunnel), notLink(out, plan.Tunnel), notLink(in, plan.Tunnel)
	}
	r.add(leave, isLink(out, n.Bridge), accept())
	r.add(leave, clampMSS())
	for _, s := range r.pair(n.Name+"-remote", slices.Concat(n.Sealed, n.Plain)) {
		r.add(leave, addr(from, s), drop())
	}
	for i := range sealed {
		r.add(leave, addr(to, sealed[i]), by, accept())
		r.add(leave, addr(to, plain[i]), notBy, accept())
	}
	r.add(leave, isLink(out, ours), drop())
	for _, s := range r.pair(n.Name+"-own", n.Subnets) {
		r.add(leave, addr(to, s), drop())
	}
	if n.Internal {
		r.add(leave, drop())
	}

	r.add(enter, clampMSS())
	for i := range sealed {
		r.add(enter, addr(from, sealed[i]), isLink(in, plan.Tunnel), accept())
		r.add(enter, addr(from, plain[i]), sealedFrom, accept())
	}
	if !n.Internal {
		r.add(enter, answers(), accept())
	}
	r.add(enter, drop())
	return leave, enter
}

// choice sends packets of an interface to a chain.
type choice struct {
	link string
	to   *nftables.Chain
}

// few is up to how many interfaces one after the other is faster than to look into a map, even for a packet of none of them.
const few = 2

// choose goes to the chain of the interface. However many networks there are, that is one step.
func (r *ruleset) choose(c *nftables.Chain, side expr.MetaKey, name string, all []choice) {
	if len(all) <= few {
		for _, one := range all {
			r.add(c, isLink(side, one.link), jump(one.to.Name))
		}
		return
	}
	var elements []nftables.SetElement
	for _, one := range all {
		elements = append(elements, nftables.SetElement{Key: linkName(one.link), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: one.to.Name}})
	}
	r.nextID++
	m := &nftables.Set{Table: r.table, ID: r.nextID, Name: "map-" + name, KeyType: nftables.TypeIFName, IsMap: true, DataType: nftables.TypeVerdict}
	r.sets = append(r.sets, &set{m, elements})
	r.add(c, exprs{
		&expr.Meta{Key: side, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
	})
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
	if e := all(parts...); !slices.ContainsFunc(e, func(x expr.Any) bool { return x == expr.Any(never) }) {
		r.rules = append(r.rules, &rule{chain: c, exprs: e})
	}
}

// comment marks a rule with its place and with all that the table was made from, so that a table of another
// version, or one that somebody changed, is known.
func (r *ruleset) comment(fingerprint string, i int) string {
	return fmt.Sprintf("remora %s %d", fingerprint, i)
}
