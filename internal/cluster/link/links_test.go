package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestTwoHosts(t *testing.T) {
	a, b := newHost(t, 1, in(Summary{})), newHost(t, 2)
	p := a.mustDial(t, b)
	if p.Host != b.Self() || p.Cluster != cluster.Cluster || !p.Dialed || !p.Proved || !p.Via.IsZero() || p.Address.String() != b.address {
		t.Errorf("the dialer sees %+v", p)
	}
	q, ok := b.Peer(a.Self())
	if !ok || q.Host != a.Self() || q.Cluster != (record.Cluster{}) || q.Dialed || !q.Proved {
		t.Errorf("the listener sees %v, %+v", ok, q)
	}
	if p.Observed != q.Address || q.Observed.String() != b.address {
		t.Errorf("the dialer is told %v and comes from %v; the listener is told %v", p.Observed, q.Address, q.Observed)
	}
	if err := a.Send(b.Self(), []byte("there")); err != nil {
		t.Fatal(err)
	}
	if m := b.message(t); m.Host != a.Self() || string(m.Body) != "there" {
		t.Errorf("%v, %q", m.Host, m.Body)
	}
	if err := b.Send(a.Self(), make([]byte, MaxPacket)); err != nil {
		t.Fatal(err)
	}
	if m := a.message(t); m.Host != b.Self() || len(m.Body) != MaxPacket {
		t.Errorf("%v, %d bytes", m.Host, len(m.Body))
	}
	if err := a.Send(b.Self(), make([]byte, MaxPacket+1)); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a message that is too long: %v", err)
	}
	until(t, "a round trip is measured", func() bool { p, _ := a.Peer(b.Self()); return p.RTT > 0 })
	if again := a.mustDial(t, b); !again.Same(p) {
		t.Error("a second Dial made a second link")
	}
	if p, _ := a.Peer(b.Self()); p.SentBytes < 5 || p.ReceivedBytes < MaxPacket || p.SentFrames == 0 || p.ReceivedFrames == 0 {
		t.Errorf("figures: %+v", p)
	}
	b.Close()
	until(t, "the link is gone", func() bool { return !a.linked(b) })
}

// TestPinned: hosts that know each other need no password, and do not ask for it when it was changed.
func TestPinned(t *testing.T) {
	a, b := newHost(t, 1, knows(Member, 2)), newHost(t, 2, knows(Member, 1), with(wrong))
	if p := a.mustDial(t, b); p.Proved {
		t.Error("the password was asked for")
	}
	c := newHost(t, 3, knows(Member, 2))
	if _, err := c.Dial(t.Context(), b.address); reasonOf(err) != WrongPassword {
		t.Errorf("a host that one side does not know: %v", err)
	}
	d, e := newHost(t, 4, with(nil)), newHost(t, 5, with(nil))
	if p := d.mustDial(t, e); p.Proved {
		t.Error("there was a proof without a password")
	}
}

func TestStream(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	b.echo(t)
	a.mustDial(t, b)
	for _, size := range []int{1, maxData, maxData + 1, 3 * window} {
		s := openStream(t, a, b.Self())
		want := make([]byte, size)
		_, _ = rand.Read(want)
		go func() { _, _ = s.Write(want) }()
		got := make([]byte, size)
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %v, the same: %v", size, err, bytes.Equal(got, want))
		}
		if s.Host() != b.Self() || s.RemoteAddr().String() != b.Self().String() || s.LocalAddr().Network() != "remora" {
			t.Errorf("%v, %v, %v", s.Host(), s.RemoteAddr(), s.LocalAddr())
		}
		_ = s.Close()
		_ = s.Close()
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("a closed stream is written to")
		}
		if _, err := s.Read(got); err == nil {
			t.Error("a closed stream is read")
		}
	}
	for _, h := range []*testHost{a, b} {
		other := b
		if h == b {
			other = a
		}
		k := h.best(other.Self())
		until(t, "no stream is left", k.quiet)
		if n := k.unread.Load(); n != 0 {
			t.Errorf("%d bytes are counted as unread", n)
		}
	}
}

// TestStreamEnds: what was written before a Close arrives, then the end, and who goes on writing is told.
func TestStreamEnds(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	a.mustDial(t, b)
	s := openStream(t, a, b.Self())
	_, _ = s.Write([]byte("all of it"))
	_ = s.Close()
	r := <-b.Streams()
	if got, err := io.ReadAll(r); err != nil || string(got) != "all of it" {
		t.Errorf("%q, %v", got, err)
	}
	_ = r.SetDeadline(time.Now().Add(10 * time.Second))
	var err error
	for err == nil {
		_, err = r.Write(make([]byte, 1000))
	}
	if !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a write to who has closed: %v", err)
	}
	_ = r.Close()
}

// TestCloseInWrite: a stream that is closed while somebody writes to it does no harm to the others.
func TestCloseInWrite(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	b.echo(t)
	link := a.mustDial(t, b)
	for range 200 {
		s := openStream(t, a, b.Self())
		var writers sync.WaitGroup
		for range 3 {
			writers.Go(func() {
				for {
					if _, err := s.Write(make([]byte, 3*maxData)); err != nil {
						return
					}
				}
			})
		}
		_, _ = s.Read(make([]byte, 1000))
		_ = s.Close()
		writers.Wait()
	}
	if p, ok := a.Peer(b.Self()); !ok || !p.Same(link) {
		t.Error("the link did not bear it")
	}
}

// TestNobodyReads: a stream that is not read stops its writer, and nothing else of the link.
func TestNobodyReads(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	a.mustDial(t, b)
	s := openStream(t, a, b.Self())
	_ = s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := s.Write(make([]byte, 2*window))
	if n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes were taken, %v", n, err)
	}
	_ = s.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after its deadline: %v", err)
	}
	if err := a.Send(b.Self(), []byte("still")); err != nil {
		t.Fatal(err)
	}
	b.message(t)
	r := <-b.Streams()
	got := make([]byte, window)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Error(err)
	}
	_ = s.SetWriteDeadline(time.Time{})
	if _, err := s.Write([]byte("x")); err != nil {
		t.Errorf("a write after the deadline was lifted: %v", err)
	}

	// Nor do messages that nobody takes, or streams.
	for range packetBuffer + 3*packetQueue {
		_ = a.Send(b.Self(), make([]byte, 100))
	}
	until(t, "messages are dropped", func() bool {
		_ = a.Send(b.Self(), make([]byte, 100))
		p, _ := b.Peer(a.Self())
		return p.DroppedIn > 0 && b.Stats().Dropped > 0
	})
	for range streamBuffer + 1 {
		s = openStream(t, a, b.Self())
	}
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := s.Read(got); err == nil || !strings.Contains(err.Error(), Busy.String()) {
		t.Errorf("streams that nobody takes are not refused: %v", err)
	}
	if !a.linked(b) || !b.linked(a) {
		t.Error("the link did not bear it")
	}
}

func TestTooManyStreams(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	b.echo(t)
	a.mustDial(t, b)
	var open []*Stream
	for range maxStreams {
		open = append(open, openStream(t, a, b.Self()))
	}
	if _, err := a.OpenStream(t.Context(), b.Self()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	for _, s := range open {
		_ = s.Close()
	}
	until(t, "there is room again", a.best(b.Self()).quiet)
	openStream(t, a, b.Self())
}

func TestEvents(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := make(chan Event, 10)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range a.Events(ctx) {
			events <- e
		}
	}()
	a.mustDial(t, b)
	if e := <-events; !e.Up || e.Host != b.Self() || e.Address.String() != b.address {
		t.Errorf("%+v", e)
	}
	b.Close()
	if e := <-events; e.Up || e.Host != b.Self() || reasonOf(e.Err) != Leaving {
		t.Errorf("%+v", e)
	}
	cancel()
	<-ended
}

// TestLastWords: why a host closes a link arrives, however much is on its way to it.
func TestLastWords(t *testing.T) {
	for range 8 {
		a, b := newHost(t, 1), newHost(t, 2)
		events := a.watch(t)
		a.mustDial(t, b)
		<-events
		stop := make(chan struct{})
		var flood sync.WaitGroup
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = a.Send(b.Self(), make([]byte, 30_000))
				}
			}
		})
		until(t, "it is under way", func() bool { p, _ := b.Peer(a.Self()); return p.ReceivedFrames > 10 })
		b.Close()
		if e := <-events; e.Up || reasonOf(e.Err) != Leaving {
			t.Errorf("%v: %v", e.Up, e.Err)
		}
		close(stop)
		flood.Wait()
		a.Close()
	}
}

// TestOnDemand: a host that has something to say dials by itself, and goes when it has nothing more to say.
func TestOnDemand(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	until(t, "it is told that there is no way", func() bool { return a.Send(b.Self(), []byte("x")) != nil })
	if _, err := a.OpenStream(t.Context(), b.Self()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a host of which nothing is known: %v", err)
	}
	a.addresses[b.Self()] = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort(b.address)}
	until(t, "it is tried again", func() bool { return a.Send(b.Self(), []byte("y")) == nil })
	if m := b.message(t); string(m.Body) != "y" {
		t.Errorf("%q", m.Body)
	}
	if err := a.Send(a.Self(), nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("to itself: %v", err)
	}
	a.set(hostOfKey(key(9)), Removed)
	if err := a.Send(hostOfKey(key(9)), nil); !errors.Is(err, errdefs.ErrDenied) {
		t.Errorf("to a removed host: %v", err)
	}
}

// TestRelay: two hosts that cannot be dialled reach each other through a third.
func TestRelay(t *testing.T) {
	a, m, b := newHost(t, 1, deaf), newHost(t, 3), newHost(t, 2, deaf)
	b.echo(t)
	a.mustDial(t, m)
	b.mustDial(t, m)
	if err := a.Send(b.Self(), []byte("through")); err != nil {
		t.Fatal(err)
	}
	if p := b.message(t); p.Host != a.Self() || string(p.Body) != "through" {
		t.Errorf("%v, %q", p.Host, p.Body)
	}
	for _, h := range []*testHost{a, b} {
		other := b
		if h == b {
			other = a
		}
		p, ok := h.Peer(other.Self())
		if !ok || p.Via != m.Self() || p.Address.IsValid() {
			t.Errorf("%v, %+v", ok, p)
		}
	}
	s := openStream(t, a, b.Self())
	want := make([]byte, 2*window)
	_, _ = rand.Read(want)
	go func() { _, _ = s.Write(want) }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, the same: %v", err, bytes.Equal(got, want))
	}
	if n := m.Stats().Relaying; n != 1 {
		t.Errorf("%d streams are passed on", n)
	}
	// What the one between does not have, it does not pass on.
	if _, err := a.OpenStream(t.Context(), hostOfKey(key(7))); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a host that nobody has: %v", err)
	}
	m.Close()
	until(t, "the link through it is gone", func() bool { return !a.linked(b) && !b.linked(a) })
}

// TestRelayIsReplaced: when two hosts that talk through a third can connect, they do without it.
func TestRelayIsReplaced(t *testing.T) {
	a, m, b := newHost(t, 1), newHost(t, 3), newHost(t, 2)
	a.mustDial(t, m)
	b.mustDial(t, m)
	_ = a.Send(b.Self(), []byte("x"))
	b.message(t)
	events := a.watch(t)
	for range 2 {
		<-events
	}
	b.mustDial(t, a)
	until(t, "the relay has nothing to do", func() bool { return m.Stats().Relaying == 0 })
	for _, h := range []*testHost{a, b} {
		other := b
		if h == b {
			other = a
		}
		if p, ok := h.Peer(other.Self()); !ok || !p.Via.IsZero() || !p.Address.IsValid() {
			t.Errorf("%v, %+v", ok, p)
		}
	}
	if e := <-events; e.Up || e.Via != m.Self() || reasonOf(e.Err) != Duplicate {
		t.Errorf("%+v", e)
	}
	if e := <-events; !e.Up || !e.Via.IsZero() || e.Host != b.Self() {
		t.Errorf("%+v", e)
	}
}

// TestRelaysInTurn: the host that is said to have a link is asked first, and others after it.
func TestRelaysInTurn(t *testing.T) {
	a, b := newHost(t, 1, deaf), newHost(t, 2, deaf)
	lone, m := newHost(t, 3), newHost(t, 4)
	for _, to := range []*testHost{lone, m} {
		a.mustDial(t, to)
	}
	b.mustDial(t, m)
	a.cfg.Relays = func(record.Host) []record.Host { return []record.Host{lone.Self()} }
	b.echo(t)
	s := openStream(t, a, b.Self())
	if p, ok := a.Peer(b.Self()); !ok || p.Via != m.Self() {
		t.Errorf("%v, %+v", ok, p)
	}
	_ = s.Close()
	// Who is asked to pass something to itself, or to who asks, has no way.
	k := a.best(m.Self())
	for _, to := range []record.Host{a.Self(), m.Self(), lone.Self()} {
		s, err := k.open(t.Context(), append([]byte{toRelay}, to[:]...)...)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := s.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), NoRoute.String()) {
			t.Errorf("to %s: %v", to.Short(), err)
		}
		_ = s.Close()
	}
}

// TestUnread: all streams of a link together may have no more than so much that nobody reads.
func TestUnread(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	a.mustDial(t, b)
	broken := 0
	for range maxUnread/window + 2 {
		s := openStream(t, a, b.Self())
		_ = s.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := s.Write(make([]byte, window)); err == nil {
			_ = s.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err = s.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
		}
		broken++
	}
	if broken < 1 || broken > 3 {
		t.Errorf("%d streams were broken", broken)
	}
	if n := b.best(a.Self()).unread.Load(); n > maxUnread || n < maxUnread/2 {
		t.Errorf("%d bytes are unread", n)
	}
	for len(b.Streams()) > 0 {
		_ = (<-b.Streams()).Close()
	}
	if n := b.best(a.Self()).unread.Load(); n != 0 {
		t.Errorf("%d bytes are counted when all is closed", n)
	}
}

// TestUserTimeout: the kernel does not keep trying longer than the verdict.
func TestUserTimeout(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	a.mustDial(t, b)
	for _, k := range []*link{a.best(b.Self()), b.best(a.Self())} {
		raw, err := k.g.conn.NetConn().(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || ms != 5000 {
				t.Errorf("%d ms, %v", ms, err)
			}
		})
	}
}
