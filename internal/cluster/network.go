package cluster

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Network is what a cluster needs of the links between hosts. Package link has it; [Over] makes it of that.
type Network interface {
	// Dial makes a link to whoever answers at an address, a host and a port.
	Dial(ctx context.Context, address string) (Peer, error)
	// Send sends a message to a host, directly, by a new link, or through another host. It never waits; the message
	// may be lost. It keeps b.
	Send(to record.Host, b []byte) error
	// Open opens a stream to a host, in the same ways.
	Open(ctx context.Context, to record.Host) (net.Conn, error)
	// Peers are the hosts to which there is a link.
	Peers() []Peer
	// Disconnect closes the links to a host, Recheck those to hosts that have become [Removed].
	Disconnect(record.Host)
	Recheck()
	// Receive hands to the functions what comes, until ctx ends: messages and events each from one
	// goroutine, which packet and event must not keep; streams each from its own.
	Receive(ctx context.Context, packet func(record.Host, []byte), stream func(record.Host, net.Conn), event func(Event))
}

// Peer is a host to which there is a link.
type Peer struct {
	Host    record.Host
	Cluster record.Cluster // that it was in when the link was made; zero if in none
	Address netip.AddrPort // the other end; zero if Via is not
	Via     record.Host    // the host between, if there is one
	Dialed  bool           // by this host
	RTT     time.Duration  // 0 if not measured yet
	Since   time.Time
}

// Event says that there is a link to a host that was not there before, or that there is none any more.
type Event struct {
	Peer
	Up  bool
	Err error // why it is down
}

// LaterError says that another attempt is of no use before Wait has passed.
type LaterError struct {
	Wait time.Duration
	Err  error
}

func (e *LaterError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *LaterError) Unwrap() error { return e.Err }

// Standing is what a host is to this cluster.
type Standing int

const (
	Unknown Standing = iota // has to prove that it knows the password
	Member
	Removed // is refused
)

// Standing says what a host is to the cluster that this host is in.
func (c *Cluster) Standing(h record.Host) Standing {
	s := c.Store()
	if s == nil {
		return Unknown
	}
	seen, removed := s.Seen(h), s.RemovedUpTo(h)
	switch {
	case removed > 0 && seen <= removed:
		return Removed
	case seen > 0:
		return Member
	}
	return Unknown
}

// ID is the cluster that this host is in; zero while it is in none.
func (c *Cluster) ID() record.Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Cluster
}

// Addresses are where a host says that it can be dialled.
func (c *Cluster) Addresses(h record.Host) []netip.AddrPort {
	return c.member(h).Control
}

// Relays are the hosts that a host has links to, as it says.
func (c *Cluster) Relays(h record.Host) (hosts []record.Host) {
	s := c.Store()
	if s == nil {
		return nil
	}
	if r, ok := s.Get(record.Key{Writer: h, Kind: record.KindLinks}); ok {
		var links record.Links
		if decode(r, &links) {
			for _, l := range links.Links {
				hosts = append(hosts, l.Host)
			}
		}
	}
	return hosts
}
