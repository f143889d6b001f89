package network

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A network that is removed and made anew has the same addresses and another ID. A host that is lost meanwhile goes on telling
// of the former one until it is back and Swarm has it end its tasks.

// current leaves out networks of Swarm of which others tell alone, where this host has another with addresses of theirs: Swarm
// has given these addresses to the one that is here.
func current(all []record.Record, self record.Host) []record.Record {
	var own []record.Swarm
	decoded(all, func(r record.Record, s record.Swarm) {
		if r.Writer == self {
			own = append(own, s)
		}
	})
	if len(own) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(r record.Record) bool {
		var s record.Swarm
		if r.Writer == self || json.Unmarshal(r.Body, &s) != nil {
			return false
		}
		return slices.ContainsFunc(own, func(o record.Swarm) bool {
			return o.ID != s.ID && slices.ContainsFunc(o.Subnets, func(q netip.Prefix) bool {
				_, ok := overlapping(s.Subnets, q)
				return ok
			})
		})
	})
}

// overlapping is the first of the subnets that has addresses of q.
func overlapping(subnets []netip.Prefix, q netip.Prefix) (p netip.Prefix, ok bool) {
	for _, p := range subnets {
		if p.Overlaps(q) {
			return p, true
		}
	}
	return p, false
}

// taken returns the subnets of the other networks of Swarm by who has them. A host that is lost does not count: if it was lost
// for Swarm as well its networks may be gone, and if it is back it is told so.
func taken(all []record.Record, id string, reachable func(record.Host) bool) map[netip.Prefix]record.Host {
	by := map[netip.Prefix]record.Host{}
	decoded(all, func(r record.Record, s record.Swarm) {
		if s.ID == id || !reachable(r.Writer) {
			return
		}
		for _, p := range s.Subnets {
			by[p] = r.Writer
		}
	})
	return by
}

// overlaps says why this host cannot have a network of Swarm.
func (in *inside) overlaps(s record.Swarm) error {
	for _, o := range in.alloc.Networks() {
		for _, q := range o.Prefixes {
			if p, ok := overlapping(s.Subnets, q); ok {
				return errdefs.Errorf(errdefs.ErrInUse, "subnet %s: overlaps %s of network %q; make this one with another --subnet", p, q, o.Name)
			}
		}
	}
	for q, h := range taken(in.records.Records(record.KindSwarm), s.ID, hosts{in.u}.Reachable) {
		if p, ok := overlapping(s.Subnets, q); ok {
			return errdefs.Errorf(errdefs.ErrInUse, "subnet %s: overlaps %s, which host %q has for another network of a Swarm; "+
				"if it does not end that soon, make this one with another --subnet", p, q, in.nickname(h))
		}
	}
	routes, err := kernel.Foreign()
	if err != nil {
		return err
	}
	for _, q := range routes {
		if p, ok := overlapping(s.Subnets, q); ok && q.Bits() > 0 {
			return errdefs.Errorf(errdefs.ErrInUse, "subnet %s: this host has a route to %s; make the network with another --subnet", p, q)
		}
	}
	return nil
}

// nickname is what a host calls itself.
func (in *inside) nickname(h record.Host) string {
	var name string
	decoded(in.records.Records(record.KindMember), func(r record.Record, m record.Member) {
		if r.Writer == h {
			name = m.Nickname
		}
	})
	return cmp.Or(name, h.Short())
}
