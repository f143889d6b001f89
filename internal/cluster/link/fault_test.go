package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// faulty is a connection whose writes are done to by meddle, which is called one at a time with the number of each.
type faulty struct {
	net.Conn
	mu     sync.Mutex
	writes int
	meddle func(c net.Conn, n int, b []byte) (int, error)
}

func (f *faulty) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	return f.meddle(f.Conn, f.writes, b)
}

type faultyListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l faultyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

// TestCutInHandshake cuts the connection in the middle of each thing that either side says, at both sides in turn.
func TestCutInHandshake(t *testing.T) {
	for _, side := range []string{"dialer", "listener"} {
		cuts := 0
		for n := 1; ; n++ {
			cut := false
			wrap := func(c net.Conn) net.Conn {
				return &faulty{Conn: c, meddle: func(c net.Conn, i int, b []byte) (int, error) {
					if i != n {
						return c.Write(b)
					}
					cut = true
					_, _ = c.Write(b[:len(b)/2])
					c.Close()
					return 0, net.ErrClosed
				}}
			}
			dialerOption, listenerOption := option(func(*testHost, *Config) {}), option(func(*testHost, *Config) {})
			if side == "dialer" {
				dialerOption = dialing(wrap)
			} else {
				listenerOption = func(_ *testHost, cfg *Config) { cfg.Listener = faultyListener{cfg.Listener, wrap} }
			}
			a, b := newHost(t, 1, dialerOption), newHost(t, 2, listenerOption)
			start := time.Now()
			_, err := a.Dial(t.Context(), b.address)
			if took := time.Since(start); took > handshakeLimit/2 {
				t.Errorf("%s, cut in message %d: it took %v", side, n, took)
			}
			if err == nil { // it was cut after the handshake, or not yet
				a.Close()
				b.Close()
				break
			}
			cuts++
			if !errors.Is(err, errdefs.ErrUnavailable) || reasonOf(err) != Cut {
				t.Errorf("%s, cut in message %d: %v", side, n, err)
			}
			if !cut {
				t.Errorf("%s, message %d: not cut, %v", side, n, err)
			}
			until(t, "no link is left at the listener", func() bool { return !b.linked(a) })
			a.Close()
			b.Close()
		}
		if cuts < 3 {
			t.Errorf("the %s was cut in %d messages", side, cuts)
		}
	}
}

func dialing(wrap func(net.Conn) net.Conn) option {
	return func(_ *testHost, cfg *Config) {
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return wrap(c), nil
		}
	}
}

// TestFlippedBytes changes one byte of what is sent, wherever it is: the link is not made, or it breaks. Nothing that was not
// sent is ever received.
func TestFlippedBytes(t *testing.T) {
	rnd := mrand.New(mrand.NewPCG(1, 2))
	for range 40 {
		at := rnd.IntN(8000)
		wrap := func(c net.Conn) net.Conn {
			sent := 0
			return &faulty{Conn: c, meddle: func(c net.Conn, _ int, b []byte) (int, error) {
				if i := at - sent; i >= 0 && i < len(b) {
					b = bytes.Clone(b)
					b[i] ^= 1 << rnd.IntN(8)
				}
				sent += len(b)
				return c.Write(b)
			}}
		}
		a, b := newHost(t, 1, dialing(wrap)), newHost(t, 2)
		if _, err := a.Dial(t.Context(), b.address); err == nil {
			for range 20 {
				_ = a.Send(b.Self(), make([]byte, 1000))
			}
			until(t, "the link breaks", func() bool { return !a.linked(b) && !b.linked(a) })
		}
		for len(b.Packets()) > 0 {
			if p := <-b.Packets(); p.Host != a.Self() || !bytes.Equal(p.Body, make([]byte, 1000)) {
				t.Errorf("byte %d: %x was received", at, p.Body)
			}
		}
		a.Close()
		b.Close()
	}
}

// TestBetween is the host in the middle of a relayed link: it sees what it passes on, and it can neither read that, nor change it, nor
// pass for one of the two.
func TestBetween(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	via := hostOfKey(key(3))
	relay := func(meddle func(c net.Conn, n int, b []byte) (int, error)) (*link, error) {
		x, y := tcpPair(t)
		b.running.Go(func() { b.greetIn(y, b.enter(y, netip.Addr{}), greeting{address: "via"}, via) })
		return a.dialed(t.Context(), &faulty{Conn: x, meddle: meddle}, greeting{dialed: true, address: "via"}, b.Self(), via, false)
	}
	var seen overheard
	if _, err := relay(seen.pass); err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("attack at dawn"), 100)
	_ = a.Send(b.Self(), text)
	if p := b.message(t); !bytes.Equal(p.Body, text) {
		t.Errorf("%q", p.Body)
	}
	if all := seen.all(); len(all) < len(text) || bytes.Contains(all, []byte("attack")) {
		t.Errorf("of %d bytes the one between can read the message", len(all))
	}
	a.Disconnect(b.Self())
	until(t, "the link is gone", func() bool { return !a.linked(b) && !b.linked(a) })

	// It does the handshake itself, with a key of its own, in both directions.
	m := newHost(t, 3, in(cluster))
	x, y := tcpPair(t)
	m.running.Go(func() { m.greetIn(y, m.enter(y, netip.Addr{}), greeting{address: "via"}, via) })
	_, err := a.dialed(t.Context(), x, greeting{dialed: true, address: "via"}, b.Self(), via, false)
	wantRefused(t, err, OtherHost, errdefs.ErrUnavailable, "not the one that was wanted", "")
}

// overheard is what passed by. A link may say something whenever it likes.
type overheard struct {
	mu   sync.Mutex
	text []byte
}

func (o *overheard) pass(c net.Conn, _ int, b []byte) (int, error) {
	o.mu.Lock()
	o.text = append(o.text, b...)
	o.mu.Unlock()
	return c.Write(b)
}

func (o *overheard) all() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.text)
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (dialed, accepted net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if dialed, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return dialed, accepted
}

// TestManInTheMiddle ends both connections himself, and passes on what is said: each side sees his key, which it does not
// know, and his proof would have to be one for two channels.
func TestManInTheMiddle(t *testing.T) {
	_, listenerTLS, err := tlsConfigs(key(9))
	if err != nil {
		t.Fatal(err)
	}
	dialerTLS, _, err := tlsConfigs(key(9))
	if err != nil {
		t.Fatal(err)
	}
	b := newHost(t, 2)
	middle := serveTest(t, func(c net.Conn) {
		victim := tls.Server(c, listenerTLS)
		onward, err := tls.Dial("tcp", b.address, dialerTLS)
		if err != nil {
			return
		}
		defer onward.Close()
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(onward, victim); onward.Close() }()
		_, _ = io.Copy(victim, onward)
		c.Close()
		<-done
	})
	a := newHost(t, 1)
	_, err = a.Dial(t.Context(), middle)
	wantRefused(t, err, WrongPassword, errdefs.ErrDenied, "", "password")
	if b.linked(a) || len(b.Peers()) > 0 || len(a.Peers()) > 0 {
		t.Error("there is a link through him")
	}
	if b.Stats().WrongProofs != 1 {
		t.Errorf("%d wrong proofs are counted", b.Stats().WrongProofs)
	}
}

// member makes a link to a host with a key that it takes, and leaves what is said on it to the test.
func member(t *testing.T, b *testHost) *tls.Conn {
	t.Helper()
	config, _, err := tlsConfigs(key(8))
	if err != nil {
		t.Fatal(err)
	}
	b.set(hostOfKey(key(8)), Member)
	c, err := tls.Dial("tcp", b.address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	h := hello{min: 1, max: 1, Summary: cluster, standing: Member, password: true, instance: instance{8}}
	if err := writeMessage(c, messageHello, h.encode()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []messageType{messageHello, messageWelcome} {
		if kind, _, err := readMessage(c); err != nil || kind != want {
			t.Fatalf("a message of type %d, %v; want %d", kind, err, want)
		}
	}
	return c
}

// TestMemberGoesMad: whatever a member says, the link ends at the worst, and nothing of it is believed.
func TestMemberGoesMad(t *testing.T) {
	b := newHost(t, 2)
	open := frame{kind: frameOpen, stream: 1, payload: []byte{toHost}}.append(nil)
	garbage := make([]byte, 100_000)
	_, _ = rand.Read(garbage)
	garbage[0] = byte(frameData) // else it may be an unknown frame, which is waited for
	garbage[1] = 0xff
	data := func(n int) []byte { return frame{kind: frameData, stream: 1, payload: make([]byte, n)}.append(nil) }
	for name, said := range map[string][]byte{
		"garbage":                   garbage,
		"a huge packet":             {byte(framePacket), 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"a packet one too long":     {byte(framePacket), 1, 0, 1, 0, 0, 0, 0},
		"a huge unknown frame":      {99, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"a ping of 7 bytes":         append([]byte{byte(framePing), 0, 0, 7, 0, 0, 0, 0}, make([]byte, 7)...),
		"a stream opened twice":     append(bytes.Clone(open), open...),
		"a stream of ours":          frame{kind: frameOpen, stream: 2, payload: []byte{toHost}}.append(nil),
		"stream 0":                  frame{kind: frameOpen, payload: []byte{toHost}}.append(nil),
		"data after the end":        append(append(bytes.Clone(open), frame{kind: frameEnd, stream: 1}.append(nil)...), data(1)...),
		"more data than the window": append(bytes.Clone(open), bytes.Repeat(data(maxData), window/maxData+1)...),
		"credit that was not used":  append(bytes.Clone(open), frame{kind: frameCredit, stream: 1, payload: []byte{0, 0, 0, 1}}.append(nil)...),
		"a bye":                     frame{kind: frameBye, payload: []byte{byte(Leaving)}}.append(nil),
	} {
		c := member(t, b)
		start := time.Now()
		if _, err := c.Write(said); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
		until(t, name+": the link ends", func() bool { _, ok := b.Peer(hostOfKey(key(8))); return !ok })
		if took := time.Since(start); took > Verdict/2 {
			t.Errorf("%s: the link ended after %v, for want of pings", name, took)
		}
		c.Close()
		for len(b.Streams()) > 0 {
			_ = (<-b.Streams()).Close()
		}
	}
	// What a later version may say is passed over, and streams that are not known hurt nobody.
	c := member(t, b)
	said := frame{kind: 99, payload: []byte("new")}.append(nil)
	said = frame{kind: frameOpen, stream: 3, payload: []byte{200}}.append(said)
	said = frame{kind: frameOpen, stream: 5, payload: []byte{toRelay, 1, 2}}.append(said)
	said = frame{kind: frameData, stream: 77, payload: []byte("x")}.append(said)
	said = frame{kind: framePacket, payload: []byte("heard")}.append(said)
	if _, err := c.Write(said); err != nil {
		t.Fatal(err)
	}
	if p := b.message(t); string(p.Body) != "heard" {
		t.Errorf("%q", p.Body)
	}
	resets := map[uint32]Reason{}
	for len(resets) < 2 {
		f, err := readFrame(c)
		if err != nil {
			t.Fatal(err)
		}
		if f.kind == frameReset {
			resets[f.stream] = Reason(f.payload[0])
		}
	}
	if resets[3] != Broken || resets[5] != Broken {
		t.Errorf("unknown streams are refused with %v", resets)
	}
}

// TestMemberFloods opens streams without end and reads no answer.
func TestMemberFloods(t *testing.T) {
	b := newHost(t, 2)
	c := member(t, b)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := uint32(1); i < 400_000; i += 2 {
		if _, err := c.Write(frame{kind: frameOpen, stream: i, payload: []byte{toHost}}.append(nil)); err != nil {
			break
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("it takes %d MB", grown>>20)
	}
	a := newHost(t, 1)
	a.mustDial(t, b)
}

// TestHalfOpen has ten thousand connections that say nothing, or one byte now and then, while honest hosts come.
func TestHalfOpen(t *testing.T) {
	const many = 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < many+2000 {
		t.Skipf("%d files may be open, %v", limit.Cur, err)
	}
	b := newHost(t, 2)
	conns := make([]net.Conn, 0, many)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	top := 0
	for i := range many {
		c, err := net.Dial("tcp", b.address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if i%2 == 0 {
			_, _ = c.Write([]byte{22}) // as TLS begins
		}
		if i%2500 == 2499 {
			a := newHost(t, byte(100+i/2500))
			a.mustDial(t, b) // within handshakeLimit
			a.Close()
		}
		top = max(top, runtime.NumGoroutine())
	}
	if top > maxCrowd+maxCrowdFrom+100 {
		t.Errorf("there were %d goroutines", top)
	}
	b.Links.mu.Lock()
	crowd, from := b.crowd.conns.Len(), len(b.crowd.from)
	b.Links.mu.Unlock()
	if crowd > maxCrowdFrom || from > 1 || b.Stats().Crowded < many-2*maxCrowd {
		t.Errorf("%d connections of %d addresses are waited for, %d were closed", crowd, from, b.Stats().Crowded)
	}
}

func TestCrowd(t *testing.T) {
	var c crowd
	gone := 0
	var last any
	for i := range 3 * maxCrowd {
		conn, _ := net.Pipe()
		place, out := c.join(conn, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		if out != nil {
			gone++
		}
		if i%5 == 0 {
			c.leave(place)
			c.leave(place)
		}
		last = conn
	}
	if c.conns.Len() != maxCrowd || len(c.from) != maxCrowd || gone == 0 {
		t.Errorf("%d connections of %d addresses, %d had to go", c.conns.Len(), len(c.from), gone)
	}
	if all := c.all(); all[len(all)-1] != last {
		t.Error("the newest had to go")
	}
}

// TestAccidents cuts, closes and makes anew links among four hosts while all of them talk, and looks whether they can talk in the end. One of
// them can only dial, and dials only the first: the others reach it through that one.
func TestAccidents(t *testing.T) {
	var hosts []*testHost
	for i := range 4 {
		var options []option
		if i == 3 {
			options = append(options, deaf)
		}
		hosts = append(hosts, newHost(t, byte(i+1), options...))
		hosts[i].echo(t)
	}
	shy := hosts[3]
	dial := func(h, to *testHost) error {
		if h == shy || to == shy {
			h, to = shy, hosts[0]
		}
		_, err := h.Dial(t.Context(), to.address)
		return err
	}
	stop := make(chan struct{})
	var talkers sync.WaitGroup
	for i, h := range hosts {
		talkers.Go(func() {
			rnd := mrand.New(mrand.NewPCG(uint64(i), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				to := hosts[rnd.IntN(len(hosts))]
				if to == h {
					continue
				}
				switch rnd.IntN(12) {
				case 0:
					h.Disconnect(to.Self())
				case 1:
					if k := h.best(to.Self()); k != nil {
						k.conn.Close()
					}
				case 2, 3:
					_ = dial(h, to)
				case 4:
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if s, err := h.OpenStream(ctx, to.Self()); err == nil {
						_ = s.SetDeadline(time.Now().Add(time.Second))
						_, _ = s.Write([]byte("x"))
						_, _ = s.Read(make([]byte, 1))
						_ = s.Close()
					}
					cancel()
				default:
					_ = h.Send(to.Self(), []byte("x"))
				}
			}
		})
		talkers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-h.Packets():
				}
			}
		})
	}
	time.Sleep(2 * time.Second)
	close(stop)
	talkers.Wait()
	for _, h := range hosts {
		for _, to := range hosts {
			if h == to {
				continue
			}
			until(t, fmt.Sprintf("%s reaches %s", h.Self().Short(), to.Self().Short()), func() bool {
				if dial(hosts[0], h) != nil && h != hosts[0] || dial(h, to) != nil {
					return false
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				s, err := h.OpenStream(ctx, to.Self())
				if err != nil {
					return false
				}
				defer s.Close()
				_ = s.SetDeadline(time.Now().Add(time.Second))
				_, _ = s.Write([]byte("y"))
				n, _ := s.Read(make([]byte, 1))
				return n == 1
			})
		}
	}
}
