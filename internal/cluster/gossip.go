package cluster

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The first byte of a message, and of a stream.
const (
	toMemberlist byte = iota
	toRoot            // the root of the sender's digest
	toAsk             // is the host there?
	toTell            // it is
	toRecord          // how often it may be passed on, one byte, and a record
	toSync            // a stream on which two hosts bring each other what they lack
	toQuestion        // a stream with a question, and its answer
	toClock           // what time is it? with eight bytes that come back
	toTime            // they, and the time in milliseconds
)

const (
	maxQueue   = 4096     // broadcasts that wait
	packetSize = 32 << 10 // of memberlist's messages: any record fits
	backlog    = 1024     // messages that memberlist has not taken yet

	// retransmit is how often each host says what is new, times the decimal logarithm of their number. All n hosts do, to hosts drawn by
	// lot, so that a host hears nothing with a chance of 1 in e to that power, and waits for the next comparison: of 80 hosts at
	// twice 4 one did for each hundredth name, at twice 6 for none in 1,500.
	retransmit = 6
)

// gossip is the exchange with the other members of one cluster. It is what memberlist sees of this host.
type gossip struct {
	c       *Cluster
	net     Network
	store   *store.Store
	list    *memberlist.Memberlist
	queue   *memberlist.TransmitLimitedQueue
	packets chan *memberlist.Packet
	streams chan net.Conn
	began   time.Time
	done    chan struct{}
	once    sync.Once

	mu      sync.Mutex
	hosts   map[string]record.Host // by the address that memberlist sees
	alive   map[record.Host]time.Time
	lost    map[record.Host]time.Time
	doubted map[record.Host]time.Time // since the link broke, and nothing was heard
	meeting map[record.Host]bool
	syncing map[record.Host]bool
	clocks  map[record.Host]clock
}

func newGossip(c *Cluster, s *store.Store) (*gossip, error) {
	g := &gossip{
		c: c, net: c.net, store: s, packets: make(chan *memberlist.Packet, backlog), streams: make(chan net.Conn, 16), done: make(chan struct{}),
		hosts: map[string]record.Host{}, alive: map[record.Host]time.Time{}, lost: map[record.Host]time.Time{}, doubted: map[record.Host]time.Time{},
		meeting: map[record.Host]bool{}, syncing: map[record.Host]bool{}, clocks: map[record.Host]clock{}, began: time.Now(),
	}
	g.queue = &memberlist.TransmitLimitedQueue{NumNodes: g.size, RetransmitMult: retransmit}
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = c.self.String()
	cfg.Transport, cfg.Delegate, cfg.Events, cfg.Alive = g, g, g, g
	cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = hostIP(c.self).String(), port, port
	cfg.RequireNodeNames = true
	cfg.EnableCompression = false // the links' bytes are few, and encrypted
	cfg.DisableTcpPings = true    // they would travel on the same link
	cfg.UDPBufferSize = packetSize
	// A host that is lost in silence is found out in 3 s of a few, and in 6 s of a thousand.
	cfg.GossipInterval = 100 * time.Millisecond
	cfg.ProbeInterval, cfg.ProbeTimeout = 600*time.Millisecond, 300*time.Millisecond
	cfg.SuspicionMult, cfg.SuspicionMaxTimeoutMult, cfg.AwarenessMaxMultiplier = 3, 2, 2
	cfg.Logger = slog.NewLogLogger(quiet{c.log.Handler()}, slog.LevelDebug)
	list, err := memberlist.Create(cfg)
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "cluster: %w", err)
	}
	g.mu.Lock()
	g.list = list
	g.mu.Unlock()
	return g, nil
}

// quiet keeps memberlist's talk, which names addresses that nobody knows, to who wants to see all.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

// hostIP is the address of a host as memberlist sees it: it never changes, whatever the host's real ones do.
func hostIP(h record.Host) net.IP { return append(net.IP{0xfd}, h[:15]...) }

func hostAddr(h record.Host) string { return net.JoinHostPort(hostIP(h).String(), strconv.Itoa(port)) }

func (g *gossip) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(1, len(g.alive))
}

// isAlive reports whether memberlist takes a host for alive.
func (g *gossip) isAlive(h record.Host) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.alive[h]
	return ok
}

// meet exchanges with a neighbour who the members are. Where each took the other for lost, it takes more than once.
func (g *gossip) meet(h record.Host) {
	g.sendRoot(h)
	g.mu.Lock()
	busy := g.meeting[h]
	g.meeting[h] = true
	g.mu.Unlock()
	if busy {
		return
	}
	defer func() {
		g.mu.Lock()
		delete(g.meeting, h)
		g.mu.Unlock()
	}()
	for try := range 6 {
		if g.isAlive(h) {
			return
		}
		if _, err := g.list.Join([]string{h.String() + "/" + hostAddr(h)}); err != nil {
			g.c.log.Debug("no exchange with a neighbour", "host", h.Short(), "err", err)
		}
		select {
		case <-time.After(50 * time.Millisecond << try):
		case <-g.done:
			return
		}
	}
}

func (g *gossip) leave() {
	if err := g.list.Leave(500 * time.Millisecond); err != nil {
		g.c.log.Debug("could not say that this host goes", "err", err)
	}
}

func (g *gossip) close() {
	g.once.Do(func() {
		close(g.done)
		_ = g.list.Shutdown()
	})
}

// What follows is memberlist's transport.

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return hostIP(g.c.self), port, nil
}

func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (g *gossip) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	h, err := g.host(a)
	if err != nil {
		return time.Time{}, err
	}
	m := make([]byte, 0, 1+len(b))
	// A message that cannot be sent is one that was lost: that is what memberlist is made for.
	_ = g.net.Send(h, append(append(m, toMemberlist), b...))
	return time.Now(), nil
}

func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossip) StreamCh() <-chan net.Conn           { return g.streams }
func (g *gossip) Shutdown() error                     { return nil }

func (g *gossip) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, d)
}

func (g *gossip) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	h, err := g.host(a)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(g.c.life, d)
	defer cancel()
	return g.open(ctx, h, toMemberlist, time.Now().Add(d))
}

func (g *gossip) open(ctx context.Context, h record.Host, what byte, until time.Time) (net.Conn, error) {
	conn, err := g.net.Open(ctx, h)
	if err != nil {
		return nil, err
	}
	err = conn.SetDeadline(until)
	if err == nil {
		_, err = conn.Write([]byte{what})
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// host returns who has an address that memberlist uses.
func (g *gossip) host(a memberlist.Address) (h record.Host, err error) {
	if a.Name != "" {
		if err = h.UnmarshalText([]byte(a.Name)); err == nil {
			g.note(h)
		}
		return h, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	h, ok := g.hosts[a.Addr]
	if !ok {
		return h, errdefs.Errorf(errdefs.ErrNotFound, "%s: no host has that address", a.Addr)
	}
	return h, nil
}

func (g *gossip) note(h record.Host) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.hosts) < 2*4096 {
		g.hosts[hostAddr(h)] = h
	}
}

// packet takes a message of another host.
func (c *Cluster) packet(from record.Host, b []byte) {
	c.mu.Lock()
	g := c.gossip
	c.mu.Unlock()
	if g == nil || len(b) == 0 {
		return
	}
	if g.heard(from) {
		c.mu.Lock()
		c.changed()
		c.mu.Unlock()
	}
	switch b[0] {
	case toRecord:
		g.pushed(from, b)
	case toAsk:
		_ = g.net.Send(from, []byte{toTell})
	case toClock:
		g.tellClock(from, b)
	case toTime:
		g.learnClock(from, b)
	case toMemberlist:
		g.note(from)
		p := &memberlist.Packet{Buf: append([]byte(nil), b[1:]...), From: &net.UDPAddr{IP: hostIP(from), Port: port}, Timestamp: time.Now()}
		select {
		case g.packets <- p:
		default:
		}
	case toRoot:
		if len(b) == 9 {
			g.root(from, binary.BigEndian.Uint64(b[1:]))
		}
	}
}

// stream takes a stream of another host.
func (c *Cluster) stream(from record.Host, conn net.Conn) {
	c.mu.Lock()
	g := c.gossip
	c.mu.Unlock()
	var what [1]byte
	if g != nil && conn.SetDeadline(time.Now().Add(syncLimit)) == nil {
		if _, err := io.ReadFull(conn, what[:]); err == nil {
			switch what[0] {
			case toMemberlist:
				select {
				case g.streams <- conn:
					return
				case <-g.done:
				}
			case toQuestion:
				if err := c.asked(from, conn); err != nil {
					c.log.Debug("cannot answer a host", "host", from.Short(), "err", err)
				}
			case toSync:
				if err := g.answer(conn); err != nil {
					c.log.Debug("cannot bring a host what it lacks", "host", from.Short(), "err", err)
				}
			}
		}
	}
	_ = conn.Close()
}
