package cluster

import (
	"bytes"

	"github.com/hashicorp/memberlist"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// broadcast is a record that waits to be spread. A newer one about the same thing takes its place.
type broadcast struct {
	key record.Key
	b   []byte
}

func (b *broadcast) Name() string {
	return string(b.key.Writer[:]) + b.key.Kind + " " + b.key.Name
}

func (b *broadcast) Invalidates(o memberlist.Broadcast) bool {
	other, ok := o.(*broadcast)
	return ok && other.key == b.key
}

func (b *broadcast) Message() []byte { return b.b }
func (b *broadcast) Finished()       {}

// few is how many records of one message are spread on. More than that come when a host joins or a cut heals; they
// travel by digests.
const few = 64

// spread spreads records that are new here.
func (c *Cluster) spread(records []record.Record) {
	c.mu.Lock()
	g := c.gossip
	c.mu.Unlock()
	if g == nil || len(records) > few {
		return
	}
	for _, r := range records {
		if r.Writer == c.self {
			g.push(r)
		}
		g.queue.QueueBroadcast(&broadcast{key: r.Key, b: r.Append(nil)})
	}
	if g.queue.NumQueued() > maxQueue {
		g.queue.Prune(maxQueue / 2)
	}
}

// push sends a record that this host has just written to its neighbours at once: in a cluster of which all are neighbours they
// have it before memberlist's next round. In a larger one each of them passes it on, once. Memberlist spreads it too: what is
// pushed may be lost.
func (g *gossip) push(r record.Record) {
	again := byte(0)
	if g.many() {
		again = 1
	}
	g.pass(record.Host{}, append([]byte{toRecord, again}, r.Append(nil)...))
}

// pass sends a message to all neighbours but one.
func (g *gossip) pass(but record.Host, b []byte) {
	many := g.many()
	g.c.mu.Lock()
	hosts := make([]record.Host, 0, len(g.c.up))
	for h := range g.c.up {
		if h != but && (!many || g.c.near[h] != nil) {
			hosts = append(hosts, h)
		}
	}
	g.c.mu.Unlock()
	for _, h := range hosts {
		_ = g.net.Send(h, bytes.Clone(b))
	}
}

// pushed takes a record that a neighbour pushed.
func (g *gossip) pushed(from record.Host, b []byte) {
	if len(b) < 2 {
		return
	}
	r, rest, err := record.Decode(b[2:])
	if err != nil || len(rest) > 0 {
		g.c.log.Debug("a message is no record", "err", err)
		return
	}
	if news, _ := g.store.Merge([]record.Record{r}); news > 0 && b[1] == 1 {
		b = bytes.Clone(b)
		b[1] = 0
		g.pass(from, b)
	}
}

// many reports whether there are more members than a host keeps links to.
func (g *gossip) many() bool { return g.size() > allPairs }
