package address

import (
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// lookAtOverlaps has of two networks with the same addresses of the cluster's range the earlier be gone. Who cuts a subnet owns it
// and leaves alone what it knows of. So the earlier one was deleted, or nobody alive knew it when the host that made it was
// removed: it comes to light when that host is back, and the addresses are another network's by then.
func (v *view) lookAtOverlaps() {
	type part struct {
		prefix netip.Prefix
		id     string
	}
	var parts []part
	for id, s := range v.spaces {
		for _, p := range s.Prefixes {
			if id != clusterRange {
				parts = append(parts, part{p, id})
			}
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return byAddress(a.prefix, b.prefix) }) // who contains before who is contained
	gone := map[string]bool{}
	for i, a := range parts {
		for _, b := range parts[i+1:] {
			if !a.prefix.Overlaps(b.prefix) {
				break
			}
			switch x, y := v.spaces[a.id], v.spaces[b.id]; {
			case a.id == b.id:
			case v.earlier(x, y, b.prefix):
				gone[a.id] = true
			case v.earlier(y, x, b.prefix):
				gone[b.id] = true
			}
		}
	}
	for id := range gone {
		v.buried[id] = v.spaces[id]
		delete(v.spaces, id)
	}
}

// earlier reports whether who made a owned p before who made b did. It is false where p is not of the cluster's range,
// and where a grant is missing.
func (v *view) earlier(a, b Space, p netip.Prefix) bool {
	for _, h := range v.owners(clusterRange) {
		if !h.prefix.Overlaps(p) {
			continue
		}
		x, y := h.when(a.Creator, a.life), h.when(b.Creator, b.life)
		switch {
		case x == nil || y == nil:
		case x == y:
			return a.network.Created.Before(b.network.Created)
		default:
			return x.serial < y.serial
		}
	}
	return false
}

// when returns the step of a history, of which l is the last, by which a host owned the range in that life of its.
func (l *link) when(host record.Host, life uint64) *link {
	for ; l != nil; l = l.before {
		if l.to == host && l.life <= life {
			return l
		}
	}
	return nil
}
