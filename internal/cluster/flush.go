package cluster

import (
	"context"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Leave makes sure that others know all that this host has said, and then that it is no member any more. Where none
// is reached it is ErrUnavailable, and nothing has happened. Close it next, and remove its state.
func (c *Cluster) Leave(ctx context.Context) error {
	c.mu.Lock()
	g, s := c.gossip, c.store
	c.mu.Unlock()
	if g == nil {
		return nil
	}
	if err := c.flush(ctx, g); err != nil {
		return err
	}
	for _, kind := range []string{record.KindName, record.KindLinks, record.KindMember} {
		for _, r := range s.Records(kind) {
			if r.Writer != c.self {
				continue
			}
			if err := s.Delete(kind, r.Name); err != nil {
				return err
			}
		}
	}
	return c.flush(ctx, g)
}

// Alone reports whether this host is the only member that is left.
func (c *Cluster) Alone() bool { return len(c.Members()) <= 1 }

// flush brings what this host has to one neighbour.
func (c *Cluster) flush(ctx context.Context, g *gossip) error {
	err := errdefs.Errorf(errdefs.ErrUnavailable, "no peer is reachable")
	for _, p := range g.net.Peers() {
		if ctx.Err() != nil {
			break
		}
		var serr error
		if _, serr = g.sync(p.Host); serr == nil { //nolint:contextcheck // a sync has a limit of its own
			return nil
		}
		err = errdefs.Errorf(errdefs.ErrUnavailable, "host %s: %w", p.Host.Short(), serr)
	}
	return err
}
