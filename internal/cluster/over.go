package cluster

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/remora-plugins/remora/internal/cluster/link"
	"github.com/remora-plugins/remora/internal/cluster/record"
)

// LinkConfig returns what package link needs of this cluster. Password, Listener and Dial are the caller's.
func (c *Cluster) LinkConfig() link.Config {
	return link.Config{
		Key: c.key,
		Cluster: func() link.Summary {
			o := c.Summary()
			return link.Summary{Cluster: o.Cluster, Hosts: o.Hosts, Founded: o.Founded, Spare: o.Spare}
		},
		Yields: func(o link.Summary) bool {
			return c.Yields(Summary{Cluster: o.Cluster, Hosts: o.Hosts, Founded: o.Founded, Spare: o.Spare})
		},
		Standing: func(h record.Host) link.Standing {
			switch c.Standing(h) {
			case Member:
				return link.Member
			case Removed:
				return link.Removed
			}
			return link.Unknown
		},
		Addresses: c.Addresses,
		Relays:    c.Relays,
		Log:       c.log,
	}
}

// Over makes a Network of links. They are closed by who opened them, after the cluster.
func Over(l *link.Links) Network { return overLinks{l} }

type overLinks struct{ l *link.Links }

func (o overLinks) Dial(ctx context.Context, address string) (Peer, error) {
	p, err := o.l.Dial(ctx, address)
	if err == nil {
		return peerOf(p), nil
	}
	if r, ok := errors.AsType[*link.RefusedError](err); ok {
		switch {
		case r.Reason == link.OtherCluster:
			o := r.Other
			err = &OtherError{Summary{Cluster: o.Cluster, Host: r.Host, Hosts: o.Hosts, Founded: o.Founded, Spare: o.Spare}, address}
		case r.Wait > 0:
			err = &LaterError{Wait: r.Wait, Err: err}
		}
	}
	return Peer{}, err
}

func (o overLinks) Send(to record.Host, b []byte) error { return o.l.Send(to, b) }

func (o overLinks) Open(ctx context.Context, to record.Host) (net.Conn, error) {
	s, err := o.l.OpenStream(ctx, to)
	if err != nil {
		return nil, err // a nil *Stream in a net.Conn would be something
	}
	return s, nil
}

func (o overLinks) Peers() []Peer {
	found := o.l.Peers()
	peers := make([]Peer, len(found))
	for i, p := range found {
		peers[i] = peerOf(p)
	}
	return peers
}

func (o overLinks) Disconnect(h record.Host) { o.l.Disconnect(h) }
func (o overLinks) Recheck()                 { o.l.Recheck() }

func (o overLinks) Receive(ctx context.Context, packet func(record.Host, []byte), stream func(record.Host, net.Conn), event func(Event)) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		for e := range o.l.Events(ctx) {
			event(Event{Peer: peerOf(e.Peer), Up: e.Up, Err: e.Err})
		}
	})
	running.Go(func() {
		for {
			select {
			case p := <-o.l.Packets():
				packet(p.Host, p.Body)
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		select {
		case s := <-o.l.Streams():
			running.Go(func() { stream(s.Host(), s) })
		case <-ctx.Done():
			return
		}
	}
}

func peerOf(p link.Peer) Peer {
	return Peer{Host: p.Host, Cluster: p.Cluster, Address: p.Address, Via: p.Via, Dialed: p.Dialed, RTT: p.RTT, Since: p.Since}
}
