package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
)

// Status is what a person is told of the cluster as a whole.
type Status struct {
	Cluster   record.Cluster // zero while this host is in none
	Host      record.Host
	Founded   time.Time
	Members   int
	Reachable int // of them, this host too
	Links     []Peer
	Targets   []Target
	Removed   []RemovedHost
	Store     store.Status
	// Wrong are the things that somebody ought to look at, a line each.
	Wrong []string
}

// Status returns it.
func (c *Cluster) Status() Status {
	sum := c.Summary()
	st := Status{Cluster: sum.Cluster, Host: c.self, Founded: sum.Founded, Targets: c.Targets(), Removed: c.Removals()}
	c.mu.Lock()
	for _, p := range c.up {
		st.Links = append(st.Links, p)
	}
	var others []OtherError
	for _, o := range c.others {
		others = append(others, o)
	}
	s, g, waits := c.store, c.gossip, c.state.Join
	c.mu.Unlock()
	slices.SortFunc(st.Links, func(a, b Peer) int { return a.Host.Compare(b.Host) })
	if s == nil {
		if waits {
			st.Wrong = append(st.Wrong, "in no cluster yet: "+c.whyNot())
		}
		return st
	}
	names := map[string][]string{}
	for _, m := range c.Members() {
		st.Members++
		if m.Reachable {
			st.Reachable++
		} else {
			st.Wrong = append(st.Wrong, fmt.Sprintf("host %s (%s) cannot be reached", m.Nickname, m.Host.Short()))
		}
		if st.Founded.IsZero() || !m.Founded.IsZero() && m.Founded.Before(st.Founded) {
			st.Founded = m.Founded
		}
		names[m.Nickname] = append(names[m.Nickname], m.Host.Short())
	}
	for name, hosts := range names {
		if len(hosts) > 1 {
			st.Wrong = append(st.Wrong, fmt.Sprintf("%d hosts are called %s: %v", len(hosts), name, hosts))
		}
	}
	for _, o := range others {
		if slices.ContainsFunc(s.Records(record.KindMember), func(r record.Record) bool { return r.Writer == o.Host }) {
			continue // it has come over since
		}
		st.Wrong = append(st.Wrong, fmt.Sprintf("%s: host %s is in another cluster, %s", o.Address, o.Host.Short(), o.describe(time.Now())))
	}
	if g != nil {
		st.Wrong = append(st.Wrong, g.clocksWrong(func(h record.Host) string {
			if m := c.member(h); m.Nickname != "" {
				return m.Nickname
			}
			return h.Short()
		})...)
	}
	st.Store = s.Status()
	st.Wrong = append(st.Wrong, wrong(st.Store)...)
	slices.Sort(st.Wrong)
	return st
}

func wrong(s store.Status) (lines []string) {
	lines = append(lines, s.Damage...)
	if s.Twin.Records > 0 {
		lines = append(lines, fmt.Sprintf("another has written with this host's key, last at %s: its state was set back to a copy, or runs on two hosts; if so, reset one of them",
			s.Twin.Last.UTC().Format(time.RFC3339)))
	}
	if s.Removed > 0 {
		lines = append(lines, "this host was removed from the cluster: reset it, then let it join again")
	}
	if s.Refused > 0 {
		lines = append(lines, fmt.Sprintf("%d records of other hosts were refused, the last one: %s", s.Refused, s.LastRefused))
	}
	return lines
}
