package cluster

import (
	"encoding/binary"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What memberlist asks and tells: [memberlist.Delegate], [memberlist.EventDelegate] and [memberlist.AliveDelegate].

// NodeMeta returns nothing: what a host says of itself is a record.
func (g *gossip) NodeMeta(int) []byte { return nil }

// NotifyMsg takes a record that was spread.
func (g *gossip) NotifyMsg(b []byte) {
	r, rest, err := record.Decode(b)
	if err != nil || len(rest) > 0 {
		g.c.log.Debug("a message is no record", "err", err)
		return
	}
	g.store.Merge([]record.Record{r})
}

// GetBroadcasts returns records to spread.
func (g *gossip) GetBroadcasts(overhead, limit int) [][]byte {
	return g.queue.GetBroadcasts(overhead, limit)
}

// LocalState returns who this host is, and the root of the digest of what it holds.
func (g *gossip) LocalState(bool) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), g.c.self[:]...), g.store.Root())
}

// MergeRemoteState compares.
func (g *gossip) MergeRemoteState(b []byte, _ bool) {
	if len(b) == len(record.Host{})+8 {
		g.root(record.Host(b[:32]), binary.BigEndian.Uint64(b[32:]))
	}
}

// NotifyJoin notes that a host is reachable.
func (g *gossip) NotifyJoin(n *memberlist.Node) {
	h, err := nodeHost(n)
	if err != nil {
		return
	}
	g.mu.Lock()
	g.alive[h] = time.Now()
	delete(g.lost, h)
	g.mu.Unlock()
	g.c.reached(h)
}

// NotifyLeave notes that a host is not reachable any more.
func (g *gossip) NotifyLeave(n *memberlist.Node) {
	h, err := nodeHost(n)
	if err != nil {
		return
	}
	g.mu.Lock()
	delete(g.alive, h)
	delete(g.doubted, h)
	g.lost[h] = time.Now()
	g.mu.Unlock()
	g.c.reached(h)
}

// NotifyUpdate is of no interest: hosts have no metadata there.
func (g *gossip) NotifyUpdate(*memberlist.Node) {}

// NotifyAlive refuses hosts that were removed, and what is none.
func (g *gossip) NotifyAlive(n *memberlist.Node) error {
	h, err := nodeHost(n)
	if err != nil {
		return err
	}
	if h != g.c.self && g.c.Standing(h) == Removed {
		return errdefs.Errorf(errdefs.ErrDenied, "host %s was removed", h.Short())
	}
	return nil
}

// nodeHost returns who a node is. One whose address is not that of its name is none.
func nodeHost(n *memberlist.Node) (h record.Host, err error) {
	if err := h.UnmarshalText([]byte(n.Name)); err != nil {
		return h, err
	}
	if !n.Addr.Equal(hostIP(h)) {
		return h, errdefs.Errorf(errdefs.ErrInvalid, "host %s: an address that is not its own", h.Short())
	}
	return h, nil
}

// reached has who keeps a link to a host look again: it may be there, or gone.
func (c *Cluster) reached(h record.Host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake(h)
	c.changed()
}
