package cluster

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// verdict is after how long a silent link is closed, as package link does it; connectLimit how long a connection may take; idle when
// one that was made for an errand is closed.
const (
	connectLimit = 2 * time.Second
	verdict      = 5 * time.Second
	idle         = 30 * time.Second
)

// memnet carries what hosts of one process send each other, with latency and loss, and can be cut.
type memnet struct {
	latency time.Duration
	loss    float64

	bytes, packets, errands atomic.Int64

	mu    sync.RWMutex
	hosts map[string]*memhost
	cut   func(a, b *memhost) bool // nil is whole
}

// memhost is a host on it. It is the Network of its cluster.
type memhost struct {
	net     *memnet
	address string
	dumb    bool // behind NAT: it can only dial
	c       *Cluster
	dialed  func(Peer) // is called before Dial returns

	packets chan memPacket
	streams chan memStream
	wake    chan struct{}

	mu     sync.Mutex
	links  map[record.Host]*memlink
	events []Event
	gone   bool
}

type memPacket struct {
	from record.Host
	b    []byte
}

type memStream struct {
	from record.Host
	conn net.Conn
}

type memlink struct {
	a, b   *memhost
	since  time.Time
	ca, cb record.Cluster
	closed chan struct{}
	once   sync.Once
	used   atomic.Int64
}

func newMemnet() *memnet { return &memnet{latency: 2 * time.Millisecond, hosts: map[string]*memhost{}} }

// add makes a host with a cluster in dir.
func (n *memnet) add(t testing.TB, dir, name string, change func(*Config)) *memhost {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	i := len(n.hosts) + 1
	for n.hosts[fmt.Sprintf("10.0.%d.%d:6783", i>>8, i&255)] != nil {
		i++
	}
	h := &memhost{
		net: n, address: fmt.Sprintf("10.0.%d.%d:6783", i>>8, i&255), links: map[record.Host]*memlink{},
		packets: make(chan memPacket, 512), streams: make(chan memStream, 64), wake: make(chan struct{}, 1),
	}
	n.hosts[h.address] = h
	n.mu.Unlock()
	cfg := Config{Root: root, Member: record.Member{Nickname: name, Control: []netip.AddrPort{netip.MustParseAddrPort(h.address)}}}
	if change != nil {
		change(&cfg)
	}
	if h.dumb = cfg.Member.Control == nil; h.dumb {
		cfg.Member.Control = nil
	}
	if h.c, err = Open(context.WithoutCancel(t.Context()), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.stop()
		_ = root.Close()
		time.Sleep(2 * time.Second) // memberlist's goroutines end when what they wait for has timed out
	})
	if err := h.c.Start(h); err != nil {
		t.Fatal(err)
	}
	return h
}

// stop ends a host, in good order.
func (h *memhost) stop() {
	h.c.Close()
	h.vanish()
}

// end stops all hosts at once, without their telling each other, which many of them would do for long.
func (n *memnet) end(hosts []*memhost) {
	number := map[*memhost]int{}
	for i, h := range hosts {
		number[h] = i
	}
	n.split(func(h *memhost) int { return number[h] })
	var wg sync.WaitGroup
	for _, h := range hosts {
		wg.Go(h.stop)
	}
	wg.Wait()
}

// vanish closes all links of a host.
func (h *memhost) vanish() {
	h.net.mu.Lock()
	if h.net.hosts[h.address] == h {
		delete(h.net.hosts, h.address)
	}
	h.net.mu.Unlock()
	h.mu.Lock()
	h.gone = true
	links := make([]*memlink, 0, len(h.links))
	for _, l := range h.links {
		links = append(links, l)
	}
	h.mu.Unlock()
	for _, l := range links {
		l.close("gone")
	}
}

// split cuts the net between hosts for which side says something else; nil heals it.
func (n *memnet) split(side func(*memhost) int) {
	n.mu.Lock()
	if side == nil {
		n.cut = nil
	} else {
		n.cut = func(a, b *memhost) bool { return side(a) != side(b) }
	}
	cut := n.cut
	hosts := make([]*memhost, 0, len(n.hosts))
	for _, h := range n.hosts {
		hosts = append(hosts, h)
	}
	n.mu.Unlock()
	if cut == nil {
		return
	}
	for _, h := range hosts {
		h.mu.Lock()
		for _, l := range h.links {
			if l.a == h && cut(l.a, l.b) {
				time.AfterFunc(verdict, func() {
					if n.broken(l.a, l.b) {
						l.close("silent")
					}
				})
			}
		}
		h.mu.Unlock()
	}
}

func (n *memnet) broken(a, b *memhost) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.cut != nil && n.cut(a, b)
}

func (n *memnet) lookup(address string) *memhost {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.hosts[address]
}

func (l *memlink) close(why string) {
	l.once.Do(func() {
		close(l.closed)
		for _, h := range []*memhost{l.a, l.b} {
			o := l.other(h)
			h.mu.Lock()
			if h.links[o.c.self] == l {
				delete(h.links, o.c.self)
			}
			h.tell(Event{Peer: l.peer(h), Err: fmt.Errorf("%s", why)})
			h.mu.Unlock()
		}
	})
}

// tell hands on an event. Callers hold mu.
func (h *memhost) tell(e Event) {
	h.events = append(h.events, e)
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (l *memlink) other(h *memhost) *memhost {
	if h == l.a {
		return l.b
	}
	return l.a
}

// peer is the link as h sees it.
func (l *memlink) peer(h *memhost) Peer {
	o, cluster := l.b, l.cb
	if h == l.b {
		o, cluster = l.a, l.ca
	}
	return Peer{Host: o.c.self, Cluster: cluster, Address: netip.MustParseAddrPort(o.address), Dialed: h == l.a, RTT: 2 * h.net.latency, Since: l.since}
}

func (h *memhost) Dial(ctx context.Context, address string) (Peer, error) {
	o := h.net.lookup(address)
	if o == nil || o.dumb {
		time.Sleep(h.net.latency)
		return Peer{}, errdefs.Errorf(errdefs.ErrUnavailable, "%s: connection refused", address)
	}
	if h.net.broken(h, o) {
		ctx, cancel := context.WithTimeout(ctx, connectLimit)
		defer cancel()
		<-ctx.Done()
		return Peer{}, errdefs.Errorf(errdefs.ErrUnavailable, "%s: %w", address, ctx.Err())
	}
	time.Sleep(6 * h.net.latency)
	p, err := h.link(o)
	if h.dialed != nil && err == nil {
		h.dialed(p)
	}
	return p, err
}

func (h *memhost) link(o *memhost) (Peer, error) {
	if h == o {
		return Peer{Host: h.c.self}, nil
	}
	var none record.Cluster
	l := &memlink{a: h, b: o, since: time.Now(), ca: h.c.ID(), cb: o.c.ID(), closed: make(chan struct{})}
	switch {
	case l.ca != none && l.cb != none && l.ca != l.cb:
		if !o.c.Yields(h.c.Summary()) {
			return Peer{}, &OtherError{o.c.Summary(), o.address}
		}
		l.cb = none
	}
	switch {
	case h.c.Standing(o.c.self) == Removed, o.c.Standing(h.c.self) == Removed:
		return Peer{}, errdefs.Errorf(errdefs.ErrDenied, "%s: a host was removed", o.address)
	}
	first, second := h, o
	if h.c.self.Compare(o.c.self) > 0 {
		first, second = o, h
	}
	first.mu.Lock()
	second.mu.Lock()
	defer first.mu.Unlock()
	defer second.mu.Unlock()
	if old := h.links[o.c.self]; old != nil {
		return old.peer(h), nil
	}
	if h.gone || o.gone || h.net.broken(h, o) {
		return Peer{}, errdefs.Errorf(errdefs.ErrUnavailable, "%s: connection reset", o.address)
	}
	h.links[o.c.self], o.links[h.c.self] = l, l
	h.tell(Event{Peer: l.peer(h), Up: true})
	o.tell(Event{Peer: l.peer(o), Up: true})
	return l.peer(h), nil
}

// way returns the host to which there is a link now, made on the spot if need be, and what that costs.
func (h *memhost) way(to record.Host) (o *memhost, l *memlink, hops time.Duration) {
	h.mu.Lock()
	l = h.links[to]
	h.mu.Unlock()
	if l != nil {
		return l.other(h), l, 1
	}
	for _, a := range h.c.Addresses(to) {
		if o := h.net.lookup(a.String()); o != nil && !o.dumb && !h.net.broken(h, o) {
			if _, err := h.link(o); err != nil {
				return nil, nil, 0
			}
			h.net.errands.Add(1)
			h.mu.Lock()
			l = h.links[to]
			h.mu.Unlock()
			if l != nil {
				l.errand()
				return o, l, 6
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, between := range h.links {
		m := between.other(h)
		if h.net.broken(h, m) || !m.mu.TryLock() {
			continue
		}
		onward := m.links[to]
		m.mu.Unlock()
		if onward != nil && !h.net.broken(m, onward.other(m)) {
			return onward.other(m), onward, 2
		}
	}
	return nil, nil, 0
}

// errand closes the link when it has not been used for a while.
func (l *memlink) errand() {
	l.used.Store(time.Now().UnixNano())
	var look func()
	look = func() {
		if left := idle - time.Since(time.Unix(0, l.used.Load())); left > 0 {
			time.AfterFunc(left, look)
			return
		}
		l.close("idle")
	}
	time.AfterFunc(idle, look)
}

func (h *memhost) Send(to record.Host, b []byte) error {
	o, l, hops := h.way(to)
	if o == nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "host %s: no way", to.Short())
	}
	l.used.Store(time.Now().UnixNano())
	h.net.bytes.Add(int64(len(b)))
	h.net.packets.Add(1)
	if h.net.broken(h, o) && hops < 2 || h.net.loss > 0 && rand.Float64() < h.net.loss {
		return nil
	}
	p := memPacket{h.c.self, b}
	time.AfterFunc(hops*h.net.latency, func() {
		select {
		case o.packets <- p:
		default:
		}
	})
	return nil
}

func (h *memhost) Open(_ context.Context, to record.Host) (net.Conn, error) {
	o, l, _ := h.way(to)
	if o == nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: no way", to.Short())
	}
	a, b := net.Pipe()
	ca, cb := &memConn{Conn: a, from: h, to: o, link: l, done: make(chan struct{})}, &memConn{Conn: b, from: o, to: h, link: l, done: make(chan struct{})}
	select {
	case o.streams <- memStream{h.c.self, cb}:
	default:
		_, _ = ca.Close(), cb.Close()
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: busy", to.Short())
	}
	go func() {
		select {
		case <-l.closed:
		case <-ca.done:
			select { // what was written is read first
			case <-cb.done:
			case <-l.closed:
			}
		}
		_, _ = ca.Close(), cb.Close()
	}()
	return ca, nil
}

func (c *memConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// memConn is one end of a stream. Over a cut nothing comes through.
type memConn struct {
	net.Conn
	from, to *memhost
	link     *memlink
	done     chan struct{}
	once     sync.Once
}

func (c *memConn) Write(b []byte) (int, error) {
	c.from.net.bytes.Add(int64(len(b)))
	time.Sleep(c.from.net.latency)
	if c.link.a == c.from || c.link.b == c.from {
		for c.from.net.broken(c.from, c.to) {
			select {
			case <-c.link.closed:
				return 0, io.ErrClosedPipe
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return c.Conn.Write(b)
}

func (h *memhost) Peers() []Peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	peers := make([]Peer, 0, len(h.links))
	for _, l := range h.links {
		peers = append(peers, l.peer(h))
	}
	return peers
}

func (h *memhost) Disconnect(o record.Host) {
	h.mu.Lock()
	l := h.links[o]
	h.mu.Unlock()
	if l != nil {
		l.close("disconnected")
	}
}

func (h *memhost) Recheck() {
	for _, p := range h.Peers() {
		if h.c.Standing(p.Host) == Removed {
			h.Disconnect(p.Host)
		}
	}
}

func (h *memhost) Receive(ctx context.Context, packet func(record.Host, []byte), stream func(record.Host, net.Conn), event func(Event)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case p := <-h.packets:
				packet(p.from, p.b)
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
			h.mu.Lock()
			events := h.events
			h.events = nil
			h.mu.Unlock()
			for _, e := range events {
				event(e)
			}
		case s := <-h.streams:
			wg.Go(func() { stream(s.from, s.conn) })
		}
	}
}
