package cluster

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// MemberInfo is a member of the cluster, as this host sees it.
type MemberInfo struct {
	Host record.Host
	record.Member
	Self bool
	// Reachable says that this host, or another one that it hears of, can talk to it; Since is when that became so, zero if
	// it was never otherwise in this run.
	Reachable bool
	Since     time.Time
	Links     []record.Link // as it tells
}

// RemovedHost is a host that was removed.
type RemovedHost struct {
	Host     record.Host
	Nickname string
	// By is the host that removed it, of several the one that has what it owned: the lowest.
	By          record.Host
	Incarnation uint64
	When        time.Time
}

// Members returns the members, this host too, by nickname.
func (c *Cluster) Members() []MemberInfo {
	c.mu.Lock()
	s, g := c.store, c.gossip
	up := map[record.Host]time.Time{}
	for h, p := range c.up {
		up[h] = p.Since
	}
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	links := map[record.Host][]record.Link{}
	for _, r := range s.Records(record.KindLinks) {
		var l record.Links
		if decode(r, &l) {
			links[r.Writer] = l.Links
		}
	}
	var members []MemberInfo
	for _, r := range s.Records(record.KindMember) {
		m := MemberInfo{Host: r.Writer, Self: r.Writer == c.self, Links: links[r.Writer]}
		if !decode(r, &m.Member) {
			m.Nickname = r.Writer.Short()
		}
		since, linked := up[r.Writer]
		m.Reachable, m.Since = m.Self || linked, since
		if g != nil && !m.Reachable {
			m.Reachable, m.Since = g.reachable(m.Host)
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b MemberInfo) int {
		return cmp.Or(cmp.Compare(a.Nickname, b.Nickname), a.Host.Compare(b.Host))
	})
	return members
}

// Reachable reports whether a member can be talked to.
func (c *Cluster) Reachable(h record.Host) bool {
	c.mu.Lock()
	_, linked := c.up[h]
	g := c.gossip
	c.mu.Unlock()
	if h == c.self || linked || g == nil {
		return h == c.self || linked
	}
	ok, _ := g.reachable(h)
	return ok
}

// member returns what a host says of itself.
func (c *Cluster) member(h record.Host) (m record.Member) {
	s := c.Store()
	if s == nil {
		return m
	}
	if r, ok := s.Get(record.Key{Writer: h, Kind: record.KindMember}); ok && !decode(r, &m) {
		return record.Member{}
	}
	return m
}

// Find returns the member with a nickname, a Host, or the beginning of one.
func (c *Cluster) Find(name string) (MemberInfo, error) {
	var found []MemberInfo
	for _, m := range c.Members() {
		if m.Host.String() == strings.ToLower(name) {
			return m, nil
		}
		if m.Nickname == name || len(name) >= 4 && strings.HasPrefix(m.Host.String(), strings.ToLower(name)) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return MemberInfo{}, errdefs.Errorf(errdefs.ErrNotFound, "host %q: no member of the cluster", name)
	case 1:
		return found[0], nil
	}
	var hosts []string
	for _, m := range found {
		hosts = append(hosts, m.Host.Short())
	}
	return MemberInfo{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "host %q: %d members are called so", name, len(found)),
		"give the first letters of its identity: one of "+strings.Join(hosts, ", "))
}

// lastLife is the latest incarnation of a host to which anything was given: who gave may have seen more of it than all that
// are left.
func lastLife(s *store.Store, h record.Host) (life uint64) {
	for _, r := range append(s.Records(record.KindGrant), s.Bequeathed(record.KindGrant)...) {
		var g record.Grant
		if json.Unmarshal(r.Body, &g) == nil && g.To == h {
			life = max(life, g.Life)
		}
	}
	return life
}

// Remove removes a host from the cluster for good: nobody talks to it any more, what it said is forgotten, and
// what it owned is that of who removed it. Where several hosts remove it at once, one of them has that, the same for all. Once a
// host is removed, doing it again does nothing.
func (c *Cluster) Remove(h record.Host) error {
	s := c.Store()
	switch {
	case s == nil:
		return errdefs.Errorf(errdefs.ErrUnavailable, "remove host %s: this host is in no cluster", h.Short())
	case h == c.self:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "remove host %s: it is this host", h.Short()), "to take this host out of the cluster, reset it")
	}
	seen, removed := max(s.Seen(h), lastLife(s, h)), s.RemovedUpTo(h)
	if removed > 0 && seen <= removed {
		return nil
	}
	if seen == 0 {
		return errdefs.Errorf(errdefs.ErrNotFound, "remove host %s: no member of the cluster", h.Short())
	}
	m := c.member(h)
	if err := s.Put(record.KindRemoval, h.String(), record.Removal{Incarnation: seen, Nickname: m.Nickname}); err != nil {
		return err
	}
	c.mu.Lock()
	n := c.net
	c.mu.Unlock()
	if n != nil {
		n.Disconnect(h)
	}
	return nil
}

// Removals returns the hosts that were removed, one line each.
func (c *Cluster) Removals() []RemovedHost {
	s := c.Store()
	if s == nil {
		return nil
	}
	return removals(s)
}

func removals(s *store.Store) []RemovedHost {
	last := map[record.Host]RemovedHost{}
	for _, r := range s.Records(record.KindRemoval) {
		var body record.Removal
		var h record.Host
		if !decode(r, &body) || h.UnmarshalText([]byte(r.Name)) != nil {
			continue
		}
		now := RemovedHost{Host: h, Nickname: body.Nickname, By: r.Writer, Incarnation: body.Incarnation, When: r.Written}
		// Those of an older incarnation were about an earlier stay.
		before, ok := last[h]
		if !ok || now.Incarnation > before.Incarnation || now.Incarnation == before.Incarnation && now.By.Compare(before.By) < 0 {
			last[h] = now
		}
	}
	list := make([]RemovedHost, 0, len(last))
	for _, r := range last {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b RemovedHost) int {
		return cmp.Or(cmp.Compare(a.Nickname, b.Nickname), a.Host.Compare(b.Host))
	})
	return list
}
