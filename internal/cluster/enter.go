package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// foundAfter is how long hosts that know only hosts in no cluster wait for one that is.
const foundAfter = 3 * time.Second

// Found founds a cluster of this host alone. It does nothing if the host is in a cluster already.
func (c *Cluster) Found() error {
	c.entering.Lock()
	defer c.entering.Unlock()
	return c.found()
}

func (c *Cluster) found() error {
	if c.ID() != (record.Cluster{}) {
		return nil
	}
	if c.life.Err() != nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "cluster: %w", context.Canceled)
	}
	var id record.Cluster
	_, _ = rand.Read(id[:]) // it never fails
	return c.enter(id, time.Now().UTC().Truncate(time.Second))
}

// Join makes this host a part of the cluster that the hosts at the addresses are in. It waits for that until ctx
// ends, and goes on trying after it. It never founds a cluster, unless all of those wait as well: then the host with the lowest
// key does, after some seconds.
func (c *Cluster) Join(ctx context.Context, addresses []string) error {
	changed, stop := c.Watch()
	defer stop()
	c.mu.Lock()
	c.state.Join = true
	c.mu.Unlock()
	if err := c.Connect(addresses, false); err != nil { //nolint:contextcheck // the trying goes on after ctx
		return err
	}
	for c.ID() == (record.Cluster{}) {
		select {
		case <-changed:
		case <-ctx.Done():
			return errdefs.Errorf(errdefs.ErrUnavailable, "join: no host of a cluster answers yet: %s", c.whyNot())
		case <-c.life.Done():
			return errdefs.Errorf(errdefs.ErrUnavailable, "join: %w", context.Canceled)
		}
	}
	return nil
}

// enter makes this host a member of a cluster, durably. founded is when it was, if this host has just done so. Callers hold entering.
func (c *Cluster) enter(id record.Cluster, founded time.Time) error {
	c.mu.Lock()
	next := c.state
	next.Cluster, next.Founded, next.Founder = id, founded, !founded.IsZero()
	c.mu.Unlock()
	if err := c.cfg.Root.RemoveAll(recordsDir); err != nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "cluster: %w", err)
	}
	if err := state.Write(c.cfg.Root, stateName, stateVersion, next); err != nil {
		return errdefs.As(errdefs.ErrUnavailable, err)
	}
	c.mu.Lock()
	c.state = next
	c.mu.Unlock()
	if err := c.openStore(); err != nil {
		return err
	}
	c.log.Info("in a cluster", "cluster", id.String())
	c.mu.Lock()
	s, running := c.store, c.net != nil
	c.changed()
	c.mu.Unlock()
	if !running {
		return nil
	}
	return c.begin(s)
}

func (c *Cluster) openStore() error {
	if err := c.cfg.Root.Mkdir(recordsDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return state.Classify(err)
	}
	dir, err := c.cfg.Root.OpenRoot(recordsDir)
	if err != nil {
		return state.Classify(err)
	}
	s, err := store.Open(dir, c.ID(), c.key, store.Options{Limits: c.cfg.Limits, Log: c.log, Spread: c.spread, Now: c.cfg.Now})
	if err != nil {
		_ = dir.Close()
		return err
	}
	c.mu.Lock()
	c.store = s
	c.mu.Unlock()
	if err := c.say(s); err != nil {
		return err
	}
	if c.cfg.Entered != nil {
		c.cfg.Entered(s)
	}
	return nil
}

// begin begins to talk to the other members. Callers hold entering.
func (c *Cluster) begin(s *store.Store) error {
	g, err := newGossip(c, s)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.gossip = g
	peers := make([]Peer, 0, len(c.up))
	for _, p := range c.up {
		peers = append(peers, p)
	}
	c.mu.Unlock()
	for _, p := range peers {
		c.meet(p)
	}
	return nil
}

// give gives the cluster up, for another. Callers hold entering.
func (c *Cluster) give() error {
	if c.cfg.Left != nil {
		if err := c.cfg.Left(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	g, s, next := c.gossip, c.store, c.state
	c.gossip, c.store = nil, nil
	next.Cluster, next.Founded, next.Founder = record.Cluster{}, time.Time{}, false
	c.state = next
	c.mu.Unlock()
	if g != nil {
		g.close()
	}
	s.Close()
	if err := state.Write(c.cfg.Root, stateName, stateVersion, next); err != nil {
		return err
	}
	return c.cfg.Root.RemoveAll(recordsDir)
}

// adopt enters the cluster of a host that was met, if this host is in none.
func (c *Cluster) adopt(id record.Cluster) {
	c.entering.Lock()
	defer c.entering.Unlock()
	if c.ID() != (record.Cluster{}) || c.life.Err() != nil {
		return
	}
	if err := c.enter(id, time.Time{}); err != nil {
		c.log.Error("cannot enter the cluster", "cluster", id.String(), "err", err)
		return
	}
	c.redial()
}

// redial closes the links to hosts that were in no cluster when they were made, so that both sides look again.
func (c *Cluster) redial() {
	c.mu.Lock()
	var hosts []record.Host
	for h, p := range c.up {
		if p.Cluster == (record.Cluster{}) {
			hosts = append(hosts, h)
		}
	}
	n := c.net
	c.mu.Unlock()
	for _, h := range hosts {
		n.Disconnect(h)
	}
}

// foundLater has this host look in a moment whether it is to found a cluster for all that wait for one. Callers hold mu.
func (c *Cluster) foundLater() {
	if c.state.Join && c.state.Cluster == (record.Cluster{}) && c.lone == nil && len(c.up) > 0 && !c.closed {
		c.lone = time.AfterFunc(foundAfter, func() { c.spawn(c.foundForAll) })
	}
}

// foundForAll founds a cluster if only hosts that are in none are known, and this one's key is the lowest.
func (c *Cluster) foundForAll() {
	c.entering.Lock()
	defer c.entering.Unlock()
	c.mu.Lock()
	c.lone = nil
	lowest := c.state.Join && c.state.Cluster == (record.Cluster{}) && len(c.up) > 0
	for h := range c.up {
		lowest = lowest && c.self.Compare(h) < 0
	}
	c.mu.Unlock()
	if !lowest || c.life.Err() != nil {
		return
	}
	if err := c.found(); err != nil {
		c.log.Error("cannot found a cluster", "err", err)
		return
	}
	c.redial()
}

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
