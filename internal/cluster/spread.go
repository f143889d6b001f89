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
			g.push(record.Host{}, append([]byte{toRecord, pushes}, r.Append(nil)...))
		}
		g.queue.QueueBroadcast(&broadcast{key: r.Key, b: r.Append(nil)})
	}
	if g.queue.NumQueued() > maxQueue {
		g.queue.Prune(maxQueue / 2)
	}
}

// pushes is how often a record that a host has just written is passed on from neighbour to neighbour, so that it is at most hosts
// before memberlist's next round. Memberlist spreads it too: what is pushed may be lost.
const pushes = 2

// push sends a message to all neighbours but one.
func (g *gossip) push(but record.Host, b []byte) {
	for _, p := range g.net.Peers() {
		if p.Host != but && p.Via.IsZero() {
			_ = g.net.Send(p.Host, bytes.Clone(b))
		}
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
	if news, _ := g.store.Merge([]record.Record{r}); news > 0 && b[1] > 0 && b[1] <= pushes {
		b = bytes.Clone(b)
		b[1]--
		g.push(from, b)
	}
}
