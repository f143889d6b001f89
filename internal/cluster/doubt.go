package cluster

import (
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// grace is how long a host whose link broke has to answer in another way before it counts as lost. Others find
// that out as well, and memberlist then tells; but a host that is cut off alone has nobody to hear it from.
const grace = 500 * time.Millisecond

// doubt asks a host whose link broke, or that cannot be dialled, whether it can be reached in another way.
func (g *gossip) doubt(h record.Host) {
	g.mu.Lock()
	_, alive := g.alive[h]
	_, already := g.doubted[h]
	if alive && !already {
		g.doubted[h] = time.Now()
	}
	g.mu.Unlock()
	if !alive || already {
		return
	}
	for range 2 {
		_ = g.net.Send(h, []byte{toAsk})
		select {
		case <-time.After(grace / 2):
		case <-g.done:
			return
		}
	}
	g.c.mu.Lock()
	g.c.changed()
	g.c.mu.Unlock()
	// A way through another host may take longer to find.
	for _, wait := range []time.Duration{time.Second, 2 * time.Second} {
		select {
		case <-time.After(wait):
		case <-g.done:
			return
		}
		if !g.isDoubted(h) {
			return
		}
		_ = g.net.Send(h, []byte{toAsk})
	}
}

// heard notes that something came from a host, and returns whether that was in doubt.
func (g *gossip) heard(h record.Host) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, was := g.doubted[h]
	delete(g.doubted, h)
	return was
}

func (g *gossip) isDoubted(h record.Host) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.doubted[h]
	return ok
}

// reachable reports whether a host without a link to this one can be talked to, and since when.
func (g *gossip) reachable(h record.Host) (bool, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.alive[h]
	if since, doubted := g.doubted[h]; doubted && time.Since(since) >= grace {
		return false, since
	}
	if !ok {
		return false, g.lost[h]
	}
	return true, at
}
