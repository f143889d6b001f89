package plan

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Gather reads members, links and networks out of records. One that cannot be read, or makes no sense, is left
// out and counted: it stops nothing.
func (in *Input) Gather(records func(kind string) []record.Record) (bad int) {
	in.Members, in.Links = map[record.Host]record.Member{}, map[record.Host]record.Links{}
	for _, r := range records(record.KindMember) {
		var m record.Member
		if json.Unmarshal(r.Body, &m) != nil {
			bad++
			continue
		}
		in.Members[r.Writer] = m
	}
	for _, r := range records(record.KindLinks) {
		var l record.Links
		if json.Unmarshal(r.Body, &l) != nil {
			bad++
			continue
		}
		in.Links[r.Writer] = l
	}
	type made struct {
		record.Network
		by record.Host
	}
	first := map[string]made{}
	for _, r := range slices.Concat(records(record.KindNetwork), records(record.KindSwarm)) {
		var n record.Network
		if json.Unmarshal(r.Body, &n) != nil || !sound(n) {
			bad++
			continue
		}
		name := r.Kind + " " + r.Name // of a network and of a Swarm's ID
		old, ok := first[name]
		if !ok || cmp.Or(n.Created.Compare(old.Created), r.Writer.Compare(old.by)) < 0 {
			first[name] = made{n, r.Writer}
		}
	}
	in.Networks = nil
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(first)) {
		if n := first[name].Network; !seen[n.ID] { // one that is given another name has two for a moment
			seen[n.ID] = true
			in.Networks = append(in.Networks, n)
		}
	}
	return bad
}

// sound reports whether a network can be built: its ID becomes part of names.
func sound(n record.Network) bool {
	if len(n.ID) != 16 || len(n.Subnets) == 0 {
		return false
	}
	for i := range len(n.ID) {
		if c := n.ID[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return !slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return !p.IsValid() || p != p.Masked() || p.Bits() == 0 })
}
