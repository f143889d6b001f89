package cluster

import (
	"cmp"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/state"
)

const (
	allPairs   = 64 // up to so many members each keeps a link to each
	tendEvery  = time.Second
	settle     = 200 * time.Millisecond // many members may change at once
	rootEvery  = 5 * time.Second        // a digest is compared with a neighbour
	linksEvery = 5 * time.Second        // this host's links may be told anew
	linksTold  = 12                     // at most
	linksLeast = 3                      // where fewer of those that are kept are up, others are told as well
	lasting    = time.Minute            // a link that was made for a message has ended by then
)

// event takes what the network says of links.
func (c *Cluster) event(e Event) {
	if e.Up {
		c.linkUp(e.Peer)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.up[e.Host]; ok && !p.Since.Equal(e.Since) {
		return // there is another one by now
	}
	delete(c.up, e.Host)
	c.wake(e.Host)
	c.changed()
	c.foundLater() // it may have been the one that was to do it
	if g := c.gossip; g != nil && !c.closed {
		c.running.Go(func() { g.doubt(e.Host) })
	}
}

// linkUp notes a link, and does with its other end what there is to do with a new neighbour.
func (c *Cluster) linkUp(p Peer) {
	if p.Host == c.self {
		return
	}
	c.mu.Lock()
	old, was := c.up[p.Host]
	c.up[p.Host] = p
	c.wake(p.Host)
	if was && old.Cluster == p.Cluster && old.Since.Equal(p.Since) {
		c.mu.Unlock()
		return
	}
	c.changed()
	if c.gossip != nil {
		c.gossip.heard(p.Host)
	}
	own := c.state.Cluster
	if p.Cluster == own {
		c.foundLater()
	}
	c.mu.Unlock()
	if p.Cluster != (record.Cluster{}) && p.Cluster != own {
		c.spawn(func() { c.follow(p) })
		return
	}
	c.meet(p)
}

// wake has all who keep a link to a host look again. Callers hold mu.
func (c *Cluster) wake(h record.Host) {
	for _, k := range c.targets {
		if k.Host == h {
			k.poke()
		}
	}
	if k := c.near[h]; k != nil {
		k.poke()
	}
}

// meet makes this host and a neighbour in the same cluster know each other as members.
func (c *Cluster) meet(p Peer) {
	c.mu.Lock()
	g, same := c.gossip, p.Cluster == c.state.Cluster
	c.mu.Unlock()
	if g != nil && same && p.Cluster != (record.Cluster{}) {
		c.spawn(func() { g.meet(p.Host) })
	}
}

// tend keeps what follows from the members: the neighbours, what this host tells of its links, the comparing of digests.
func (c *Cluster) tend() {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	var g *gossip
	var changed <-chan struct{}
	var settled <-chan time.Time
	stop := func() {}
	defer func() { stop() }()
	told, compared, asked := time.Now(), time.Now().Add(-rand.N(rootEvery)), time.Time{}
	for {
		select {
		case <-c.life.Done():
			return
		case <-tick.C:
		case <-changed:
			if settled == nil {
				settled = time.After(settle)
			}
			continue
		case <-settled:
			settled = nil
			if g == nil {
				continue
			}
			c.learnFounded(g)
			c.neighbours(g)
			c.net.Recheck()
			c.mu.Lock()
			c.changed()
			c.mu.Unlock()
			continue
		}
		c.mu.Lock()
		now := c.gossip
		c.mu.Unlock()
		if now != g {
			stop()
			g, changed, stop = now, nil, func() {}
			if g != nil {
				changed, stop = g.store.Watch(record.KindMember, record.KindRemoval)
				c.learnFounded(g)
				c.neighbours(g)
			}
		}
		if g == nil {
			continue
		}
		if time.Since(told) >= linksEvery {
			told = time.Now()
			c.tellLinks(g)
		}
		if time.Since(compared) >= rootEvery {
			compared = time.Now()
			g.compare()
		}
		if time.Since(asked) >= clockEvery {
			asked = time.Now()
			g.askClocks()
		}
	}
}

// learnFounded takes over from others when the cluster was founded.
func (c *Cluster) learnFounded(g *gossip) {
	var founded time.Time
	for _, r := range g.store.Records(record.KindMember) {
		var m record.Member
		if decode(r, &m) && !m.Founded.IsZero() && (founded.IsZero() || m.Founded.Before(founded)) {
			founded = m.Founded
		}
	}
	if founded.IsZero() {
		return
	}
	c.entering.Lock()
	defer c.entering.Unlock()
	c.mu.Lock()
	next := c.state
	if c.store != g.store || !next.Founded.IsZero() {
		c.mu.Unlock()
		return
	}
	next.Founded = founded
	c.mu.Unlock()
	if err := state.Write(c.cfg.Root, stateName, stateVersion, next); err != nil {
		c.log.Warn("cannot remember when the cluster was founded", "err", err)
		return
	}
	c.mu.Lock()
	c.state = next
	c.mu.Unlock()
	if err := c.say(g.store); err != nil {
		c.log.Warn("cannot tell when the cluster was founded", "err", err)
	}
}

// neighbours chooses whom to keep links to: all members, or in a large cluster those at distances of 1, 2, 4 … in the circle
// of all hosts, so that each has about twice log2 of their number and any two are a few links apart.
func (c *Cluster) neighbours(g *gossip) {
	members := g.store.Records(record.KindMember)
	hosts := make([]record.Host, 0, len(members))
	for _, r := range members {
		hosts = append(hosts, r.Writer)
	}
	slices.SortFunc(hosts, record.Host.Compare)
	want := map[record.Host]bool{}
	if len(hosts) <= allPairs {
		for _, h := range hosts {
			want[h] = true
		}
	} else {
		own, _ := slices.BinarySearchFunc(hosts, c.self, record.Host.Compare)
		for d := 1; d < len(hosts); d *= 2 {
			want[hosts[(own+d)%len(hosts)]] = true
		}
	}
	delete(want, c.self)
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, k := range c.near {
		if !want[h] {
			k.end()
			delete(c.near, h)
		}
	}
	for h := range want {
		if c.near[h] == nil && !c.closed {
			c.near[h] = c.keep(Target{Host: h})
		}
	}
}

// tellLinks writes what this host sees of its neighbours, if that is not much what it said before. Each time costs every host
// of the cluster a record, so what comes and goes is left out: a link that this host does not keep may be there for one message.
func (c *Cluster) tellLinks(g *gossip) {
	var before record.Links
	r, said := g.store.Get(record.Key{Writer: c.self, Kind: record.KindLinks})
	said = said && decode(r, &before)
	told := map[record.Host]bool{}
	for _, l := range before.Links {
		told[l.Host] = true
	}
	c.mu.Lock()
	kept := maps.Clone(c.near)
	c.mu.Unlock()
	rank := func(p Peer) int {
		switch {
		case kept[p.Host] != nil:
			return 0
		case told[p.Host]:
			return 1
		case time.Since(p.Since) > lasting:
			return 2
		}
		return 3
	}
	peers := slices.DeleteFunc(c.net.Peers(), func(p Peer) bool { return !p.Via.IsZero() || rank(p) == 3 })
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Host.Compare(b.Host)) })
	up := 0
	for _, p := range peers {
		if rank(p) == 0 {
			up++
		}
	}
	peers = peers[:min(len(peers), linksTold, max(up, linksLeast))]
	slices.SortFunc(peers, func(a, b Peer) int { return a.Host.Compare(b.Host) })
	var now record.Links
	for _, p := range peers {
		l := record.Link{Host: p.Host, RTT: p.RTT.Round(10 * time.Microsecond)}
		if c.cfg.Path != nil {
			c.cfg.Path(&l)
		}
		now.Links = append(now.Links, l)
	}
	if said && slices.EqualFunc(now.Links, before.Links, alike) {
		return
	}
	if err := g.store.Put(record.KindLinks, "", now); err != nil {
		c.log.Warn("cannot tell this host's links", "err", err)
	}
}

// alike reports whether two views of a link differ by no more than the time of a message may from one minute to the next.
func alike(a, b record.Link) bool {
	near := a.RTT <= 2*b.RTT+time.Millisecond && b.RTT <= 2*a.RTT+time.Millisecond
	a.RTT, b.RTT = 0, 0
	return near && a == b
}

func decode(r record.Record, v any) bool { return json.Unmarshal(r.Body, v) == nil }
