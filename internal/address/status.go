package address

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Owned is a range and its owner: where addresses of it are routed to.
type Owned struct {
	Prefix netip.Prefix `json:"prefix"`
	Owner  record.Host  `json:"owner"`
}

// Takeover is a removed host of which not everybody has told yet what they know of its addresses.
type Takeover struct {
	Removed string   `json:"removed"`
	By      string   `json:"by"`
	Waits   []string `json:"waits"` // for these hosts; one that is gone for good can be removed too
}

// SpaceStatus is how things are with a network's addresses, or with the cluster's range.
type SpaceStatus struct {
	ID        string         `json:"id"`
	Network   string         `json:"network"`
	Subnets   []netip.Prefix `json:"subnets"`
	Owned     []Owned        `json:"owned"`
	Out       int            `json:"out"`       // addresses, on this host
	Resting   int            `json:"resting"`   // freed less than 5 minutes ago
	Conflicts int            `json:"conflicts"` // grants of what their writer did not own
	// Hidden says that another network of this name counts, because it was created earlier while hosts were
	// apart.
	Hidden bool `json:"hidden,omitempty"`
}

// Status is how things are.
type Status struct {
	Spaces    []SpaceStatus `json:"spaces"`
	Takeovers []Takeover    `json:"takeovers"`
}

// Networks returns the networks that count, by name.
func (a *Allocator) Networks() []Space {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.look()
	var out []Space
	for _, s := range v.spaces {
		if s.ID == clusterRange {
			continue
		}
		if best, _ := v.named(s.Name); best.ID == s.ID {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(x, y Space) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// Record returns the network as its creator describes it.
func (s Space) Record() record.Network { return s.network }

// Find returns the network to which a subnet belongs.
func (a *Allocator) Find(subnet netip.Prefix) (Space, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.look().subnets()[subnet]
	return s, ok
}

// Owned returns who owns what of a network, in order.
func (a *Allocator) Owned(space string) []Owned {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.look().summary(space)
}

// LastLife is the latest incarnation of a host to which anything was given. A removal has to be of that at least: who
// gave may have seen more of the host than all that are left.
func (a *Allocator) LastLife(h record.Host) (life uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, grants := range a.look().grants {
		for _, g := range grants {
			if g.To == h {
				life = max(life, g.Life)
			}
		}
	}
	return life
}

// summary joins what lies side by side and has one owner.
func (v *view) summary(space string) []Owned {
	by := map[record.Host][]netip.Prefix{}
	for _, h := range v.owners(space) {
		by[h.to] = append(by[h.to], h.prefix)
	}
	var out []Owned
	for owner, list := range by {
		for _, p := range merged(list) {
			out = append(out, Owned{p, owner})
		}
	}
	slices.SortFunc(out, func(x, y Owned) int { return byAddress(x.Prefix, y.Prefix) })
	return out
}

// Status returns how things are.
func (a *Allocator) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.look()
	var st Status
	for id, s := range v.spaces {
		one := SpaceStatus{ID: id, Network: s.Name, Subnets: s.Prefixes, Owned: v.summary(id), Conflicts: v.wrong[id]}
		if best, _ := v.named(s.Name); id != clusterRange && best.ID != id {
			one.Hidden = true
		}
		for _, p := range s.Prefixes {
			out, resting := a.count(id, p)
			one.Out, one.Resting = one.Out+out, one.Resting+resting
		}
		st.Spaces = append(st.Spaces, one)
	}
	slices.SortFunc(st.Spaces, func(x, y SpaceStatus) int { return strings.Compare(x.Network+x.ID, y.Network+y.ID) })
	for victim, r := range v.removals {
		if v.done(r) {
			continue
		}
		t := Takeover{Removed: v.nickname(victim), By: v.nickname(r.by)}
		for _, h := range v.undecided(r, v.settled[victim][v.self]) {
			t.Waits = append(t.Waits, v.nickname(h))
		}
		slices.Sort(t.Waits)
		st.Takeovers = append(st.Takeovers, t)
	}
	slices.SortFunc(st.Takeovers, func(x, y Takeover) int { return strings.Compare(x.Removed, y.Removed) })
	return st
}

// Address is one that is out on this host.
type Address struct {
	Network string     `json:"network"` // its ID
	Address netip.Addr `json:"address"`
	Key     string     `json:"key"`
	Since   time.Time  `json:"since"`
}

// Addresses returns all that are out on this host, in order.
func (a *Allocator) Addresses() []Address {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Address, 0, len(a.used))
	for at, u := range a.used {
		out = append(out, Address{at.space, at.address, u.key, u.since})
	}
	slices.SortFunc(out, func(x, y Address) int { return x.Address.Compare(y.Address) })
	return out
}

// betweenLooks is how far the two looks are apart, after which an address that nobody has is freed.
const betweenLooks = 30 * time.Second

// Reconcile frees the addresses that leaked: inUse are all that the engine has of this host's networks, gateways
// too, listed after asked; auxiliary ones need not be there. One that it does not have at two looks, which are half a minute apart,
// is freed; kept says of which keys the engine does not know. It returns what it freed.
func (a *Allocator) Reconcile(_ context.Context, asked time.Time, inUse []netip.Addr, kept func(key string) bool) ([]netip.Addr, error) {
	in := map[netip.Addr]bool{}
	for _, at := range inUse {
		in[at] = true
	}
	a.mu.Lock()
	var leaks []netip.Addr
	var lines strings.Builder
	for at, u := range a.used {
		switch {
		case in[at.address] || u.key == AuxKey || !u.since.Before(asked) || kept != nil && kept(u.key):
			u.suspected = time.Time{}
		case u.suspected.IsZero():
			u.suspected = asked
		case asked.Sub(u.suspected) >= betweenLooks:
			lines.WriteString(freeLine(a.free(at)))
			leaks = append(leaks, at.address)
			continue
		}
		a.used[at] = u
	}
	last := a.ledger.enter([]byte(lines.String()))
	a.mu.Unlock()
	slices.SortFunc(leaks, netip.Addr.Compare)
	return leaks, last()
}
