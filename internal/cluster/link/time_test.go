package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network of net.Pipe, for tests whose time is not the clock's.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	delay     func() time.Duration // of each write
	lost      atomic.Bool          // nothing that is written arrives any more
	ends      []*pipeEnd
}

type pipeListener struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(l.address))
}

// pipeEnd is one end of a connection. What is written into it while it is lost vanishes.
type pipeEnd struct {
	net.Conn
	n    *pipes
	lost atomic.Bool
	deaf atomic.Bool // reads nothing
}

func (e *pipeEnd) Read(b []byte) (int, error) {
	for e.deaf.Load() {
		time.Sleep(100 * time.Millisecond)
	}
	return e.Conn.Read(b)
}

func (e *pipeEnd) Write(b []byte) (int, error) {
	if e.n.delay != nil {
		time.Sleep(e.n.delay())
	}
	if e.lost.Load() || e.n.lost.Load() {
		return len(b), nil
	}
	return e.Conn.Write(b)
}

// Close of an end that is lost is not seen by the other one.
func (e *pipeEnd) Close() error {
	e.deaf.Store(false)
	if e.lost.Load() || e.n.lost.Load() {
		return e.SetDeadline(time.Unix(1, 0))
	}
	return e.Conn.Close()
}

func newPipes() *pipes { return &pipes{listeners: map[string]*pipeListener{}} }

func (n *pipes) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[address]
	if l == nil {
		return nil, fmt.Errorf("nobody listens on %s", address)
	}
	a, b := net.Pipe()
	x, y := &pipeEnd{Conn: a, n: n}, &pipeEnd{Conn: b, n: n}
	n.ends = append(n.ends, x, y)
	select {
	case l.conns <- y:
		return x, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *pipes) host(t *testing.T, seed byte, options ...option) *testHost {
	l := &pipeListener{address: fmt.Sprintf("10.0.0.%d:6783", seed), conns: make(chan net.Conn, 100), closed: make(chan struct{})}
	n.mu.Lock()
	n.listeners[l.address] = l
	n.mu.Unlock()
	return newHostOn(t, seed, l, append(options, func(_ *testHost, cfg *Config) { cfg.Dial = n.dial })...)
}

func (h *testHost) watch(t testing.TB) <-chan Event {
	events := make(chan Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range h.Events(ctx) {
			events <- e
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return events
}

func (h *testHost) links() int {
	h.Links.mu.Lock()
	defer h.Links.mu.Unlock()
	return h.count
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPipes()
		a, b := n.host(t, 1), n.host(t, 2)
		ea, eb := a.watch(t), b.watch(t)
		a.mustDial(t, b)
		<-ea
		<-eb
		time.Sleep(time.Hour) // pings keep it
		if !a.linked(b) || !b.linked(a) {
			t.Fatal("a link without messages was closed")
		}
		n.lost.Store(true)
		start := time.Now()
		for range 2 {
			var e Event
			select {
			case e = <-ea:
			case e = <-eb:
			}
			if e.Up || reasonOf(e.Err) != Silent {
				t.Errorf("%+v", e)
			}
			if took := time.Since(start); took > Verdict || took < Verdict-2*pingEvery {
				t.Errorf("it was noticed after %v", took)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPipes()
		a, b, c := n.host(t, 1), n.host(t, 2), n.host(t, 3)
		for _, o := range []*testHost{b, c} {
			a.addresses[o.Self()] = []netip.AddrPort{netip.MustParseAddrPort(o.address)}
			if err := a.Send(o.Self(), []byte("x")); err != nil {
				t.Fatal(err)
			}
			o.message(t)
		}
		a.mustDial(t, c) // now it is wanted
		for range 10 {
			time.Sleep(idleAfter - 2*pingEvery)
			_ = b.Send(a.Self(), []byte("y"))
			a.message(t)
		}
		if !a.linked(b) {
			t.Error("a link was closed that was in use")
		}
		s := openStream(t, a, b.Self())
		time.Sleep(10 * idleAfter)
		if !a.linked(b) {
			t.Error("a link was closed that had a stream")
		}
		_ = s.Close()
		_ = (<-b.Streams()).Close()
		events := b.watch(t)
		<-events
		time.Sleep(idleAfter + 2*pingEvery)
		if a.linked(b) || b.linked(a) {
			t.Error("a link that nobody uses is kept")
		}
		if e := <-events; e.Up || reasonOf(e.Err) != Idle {
			t.Errorf("%+v", e)
		}
		if !a.linked(c) {
			t.Error("a link that was dialled for was closed as well")
		}
	})
}

// TestCrossing has two hosts dial each other at once, with messages that take as long as they like: in the end there is one link, the same on
// both sides, and neither side ever saw it end.
func TestCrossing(t *testing.T) {
	lower, higher := byte(1), byte(2)
	if hostOfKey(key(1)).Compare(hostOfKey(key(2))) > 0 {
		lower, higher = higher, lower
	}
	both := 0
	for i := range 60 {
		synctest.Test(t, func(t *testing.T) {
			n := newPipes()
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			var mu sync.Mutex
			n.delay = func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rnd.IntN(100)) * time.Millisecond
			}
			a, b := n.host(t, lower), n.host(t, higher)
			ea, eb := a.watch(t), b.watch(t)
			var dials sync.WaitGroup
			for _, d := range [][2]*testHost{{a, b}, {b, a}} {
				dials.Go(func() {
					if _, err := d[0].Dial(t.Context(), d[1].address); err != nil {
						t.Errorf("run %d: %v", i, err)
					}
				})
			}
			dials.Wait()
			if len(n.ends) == 4 {
				both++
			}
			time.Sleep(5 * time.Second)
			if x, y := a.links(), b.links(); x != 1 || y != 1 {
				t.Errorf("run %d: after 5 s %d and %d links", i, x, y)
			}
			time.Sleep(time.Minute)
			p, ok := a.Peer(b.Self())
			q, okToo := b.Peer(a.Self())
			if !ok || !okToo || p.Dialed == q.Dialed || a.links() != 1 || b.links() != 1 {
				t.Errorf("run %d: %v %v, dialled: %v %v, %d and %d links", i, ok, okToo, p.Dialed, q.Dialed, a.links(), b.links())
			}
			for side, events := range []<-chan Event{ea, eb} {
				if n := len(events); n != 1 && n != 2 { // the second is of the link that took the place of the first
					t.Errorf("run %d: %d events", i, n)
				}
				var last Event
				for range len(events) {
					if last = <-events; !last.Up {
						t.Errorf("run %d: the link came and went", i)
					}
				}
				if now := []Peer{p, q}[side]; !last.Same(now) {
					t.Errorf("run %d: told of a link since %v, there is one since %v", i, last.Since, now.Since)
				}
			}
			if err := a.Send(b.Self(), []byte("x")); err != nil {
				t.Error(err)
			}
			b.message(t)
		})
	}
	if both < 30 {
		t.Errorf("in %d of 60 runs both dialled", both)
	}
}

// TestHalfDead: one side knows that the preferred link is dead and dials anew; the other learns it late, and uses the new one then.
func TestHalfDead(t *testing.T) {
	lower, higher := byte(1), byte(2)
	if hostOfKey(key(1)).Compare(hostOfKey(key(2))) > 0 {
		lower, higher = higher, lower
	}
	synctest.Test(t, func(t *testing.T) {
		n := newPipes()
		a, b := n.host(t, lower), n.host(t, higher)
		a.mustDial(t, b)
		time.Sleep(10 * time.Second)
		for _, e := range slices.Clone(n.ends) {
			e.lost.Store(true)
		}
		b.best(a.Self()).failed(net.ErrClosed)
		b.mustDial(t, a)
		time.Sleep(Verdict + time.Second)
		for range 3 {
			if err := a.Send(b.Self(), []byte("x")); err != nil {
				t.Fatal(err)
			}
			b.message(t)
			time.Sleep(duplicateLives)
		}
		if p, _ := a.Peer(b.Self()); p.Dialed {
			t.Error("it is the dead link")
		}
	})
}

// TestSlow: who says nothing, or a byte a second, or takes nothing, is waited for no longer than a handshake or a verdict takes.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPipes()
		b := n.host(t, 2)
		dial := func() net.Conn {
			c, err := n.dial(t.Context(), "", b.address)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		hungUp := func(c net.Conn) time.Duration {
			start := time.Now()
			for {
				if _, err := c.Read(make([]byte, 4096)); err != nil {
					return time.Since(start)
				}
			}
		}
		if took := hungUp(dial()); took != handshakeLimit {
			t.Errorf("who says nothing is waited for %v", took)
		}
		drip := dial()
		start := time.Now()
		var err error
		for _, b := range append([]byte{22, 3, 1, 0x10, 0}, make([]byte, 1000)...) {
			if _, err = drip.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(start); err == nil || took > handshakeLimit+time.Second {
			t.Errorf("who says a byte a second is waited for %v, %v", took, err)
		}
		// A member that pings and reads nothing.
		config, _, _ := tlsConfigs(key(8))
		b.set(hostOfKey(key(8)), Member)
		raw := dial()
		c := tls.Client(raw, config)
		h := hello{min: 1, max: 1, Summary: cluster, standing: Member, password: true}
		_ = writeMessage(c, messageHello, h.encode())
		_, _, _ = readMessage(c)
		_, _, _ = readMessage(c)
		start = time.Now()
		for err = nil; err == nil; time.Sleep(pingEvery) {
			_, err = c.Write(frame{kind: framePing, payload: make([]byte, 8)}.append(nil))
		}
		if took := time.Since(start); took > Verdict+2*pingEvery {
			t.Errorf("who reads nothing is waited for %v", took)
		}
		if _, ok := b.Peer(hostOfKey(key(8))); ok {
			t.Error("its link is there still")
		}
		// One that sends half a frame, and then a byte now and then.
		c = tls.Client(dial(), config)
		_ = writeMessage(c, messageHello, h.encode())
		_, _, _ = readMessage(c)
		_, _, _ = readMessage(c)
		gone := make(chan time.Duration, 1)
		go func() { gone <- hungUp(c) }()
		_, _ = c.Write([]byte{byte(framePacket), 0, 0x10, 0, 0, 0, 0, 0})
		for range 20 {
			_, _ = c.Write([]byte{1})
			time.Sleep(time.Second)
		}
		if took := <-gone; took > Verdict+time.Second {
			t.Errorf("who drips a frame is waited for %v", took)
		}
	})
}

// TestClose: to stop takes a moment, whatever the others do.
func TestClose(t *testing.T) {
	for name, trouble := range map[string]func(*pipes, *pipeEnd){
		"nothing arrives": func(n *pipes, _ *pipeEnd) { n.lost.Store(true) },
		"nobody reads":    func(_ *pipes, e *pipeEnd) { e.deaf.Store(true) },
		"all is well":     func(*pipes, *pipeEnd) {},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newPipes()
			a, b := n.host(t, 1), n.host(t, 2)
			a.mustDial(t, b)
			trouble(n, n.ends[1])
			for range 100 {
				_ = a.Send(b.Self(), make([]byte, 1000))
			}
			start := time.Now()
			a.Close()
			if took := time.Since(start); took > 2*pingEvery || name == "all is well" && took > 0 {
				t.Errorf("%s: it takes %v", name, took)
			}
			if len(a.Peers()) > 0 {
				t.Errorf("%s: there are links still", name)
			}
			if _, err := a.Dial(t.Context(), b.address); err == nil {
				t.Errorf("%s: it dials when it is closed", name)
			}
			if err := a.Send(b.Self(), nil); err == nil {
				t.Errorf("%s: it sends when it is closed", name)
			}
			a.Close()
		})
	}
}
