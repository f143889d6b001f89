package address

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// grant is a record.Grant with who wrote it.
type grant struct {
	record.Grant
	writer record.Host
}

// link is one step in the history of a range: who gave it to whom. The first has no before.
type link struct {
	to, from record.Host
	serial   uint64
	life     uint64
	before   *link
}

// held is a range and how it came to its owner.
type held struct {
	prefix netip.Prefix
	*link
}

// owners returns who owns what of prefixes, all of which was first's, and how many grants by hosts that did not
// own what they gave there are. It depends on the set of grants alone, not on their order. A grant that is not
// known yet can only hide what its receiver owns: nobody ever takes for its own what is another's, because
// all that takes a range from a host was written, or is agreed to, by that host itself.
func owners(prefixes []netip.Prefix, first *link, grants []grant) (all []held, conflicts int) {
	grants = slices.Clone(grants)
	slices.SortFunc(grants, byHistory)
	for _, p := range prefixes {
		top := &node{held: held{p.Masked(), first}}
		for _, g := range grants {
			if g.Prefix.Addr().Is6() == p.Addr().Is6() && p.Overlaps(g.Prefix) && !top.give(g) {
				conflicts++
			}
		}
		all = top.leaves(all)
	}
	return all, conflicts
}

// byHistory orders the grants of a space. A takeover comes before what the removed host gave at the same time: it is
// written when everybody alive has told what they know of that, so what appears later is of hosts that are gone too.
func byHistory(a, b grant) int {
	return cmp.Or(
		cmp.Compare(a.Serial, b.Serial),
		-cmp.Compare(a.Rank, b.Rank),
		a.writer.Compare(b.writer),
		byAddress(a.Prefix, b.Prefix),
		bytes.Compare(a.To[:], b.To[:]),
	)
}

// node is a range: a leaf that somebody owns, or one that is in pieces.
type node struct {
	held
	low, high *node
}

// give carries out g on what of n it is about, and reports whether it could on all of that.
func (n *node) give(g grant) bool {
	if n.low == nil {
		if !covers(g.Prefix, n.prefix) {
			low, high := halves(n.prefix)
			n.low, n.high = &node{held: held{low, n.link}}, &node{held: held{high, n.link}}
		} else {
			if n.to != g.from() || n.serial >= g.Serial {
				return false
			}
			n.link = &link{to: g.To, from: n.to, serial: g.Serial, life: g.Life, before: n.link}
			return true
		}
	}
	ok := true
	for _, half := range []*node{n.low, n.high} {
		if half.prefix.Overlaps(g.Prefix) {
			ok = half.give(g) && ok
		}
	}
	return ok
}

func (n *node) leaves(all []held) []held {
	if n.low == nil {
		return append(all, n.held)
	}
	return n.high.leaves(n.low.leaves(all))
}

// from is the host whose the range was: the writer, or a removed host from which it takes.
func (g grant) from() record.Host {
	if g.From.IsZero() {
		return g.writer
	}
	return g.From
}

func prefixesOf(list []held) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, h := range list {
		out[i] = h.prefix
	}
	return out
}
