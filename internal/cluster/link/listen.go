package link

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Connections whose handshake is not over.
const (
	maxCrowd     = 256
	maxCrowdFrom = 32 // from one address
)

// crowd are they, the oldest first. An honest one is through in a moment, so where there are too many the oldest
// has to go.
type crowd struct {
	conns list.List // of *waiting
	from  map[netip.Addr]int
}

type waiting struct {
	conn net.Conn
	from netip.Addr
}

// join takes a connection in and returns the one that has to go for it.
func (c *crowd) join(conn net.Conn, from netip.Addr) (place *list.Element, gone net.Conn) {
	if c.from == nil {
		c.from = map[netip.Addr]int{}
	}
	switch {
	case c.from[from] >= maxCrowdFrom:
		for e := c.conns.Front(); e != nil; e = e.Next() {
			if w := e.Value.(*waiting); w.from == from {
				gone = w.conn
				c.leave(e)
				break
			}
		}
	case c.conns.Len() >= maxCrowd:
		e := c.conns.Front()
		gone = e.Value.(*waiting).conn
		c.leave(e)
	}
	c.from[from]++
	return c.conns.PushBack(&waiting{conn, from}), gone
}

// leave may be called twice.
func (c *crowd) leave(e *list.Element) {
	w := e.Value.(*waiting)
	if w.conn == nil {
		return
	}
	w.conn = nil
	c.conns.Remove(e)
	if c.from[w.from]--; c.from[w.from] == 0 {
		delete(c.from, w.from)
	}
}

func (c *crowd) all() (conns []net.Conn) {
	for e := c.conns.Front(); e != nil; e = e.Next() {
		conns = append(conns, e.Value.(*waiting).conn)
	}
	return conns
}

// listen takes connections until the listener is closed.
func (l *Links) listen() {
	delay := time.Duration(0)
	for {
		select {
		case l.places <- struct{}{}: // who had to go is gone soon
		case <-l.life.Done():
			return
		}
		conn, err := l.cfg.Listener.Accept()
		if err == nil {
			delay = 0
			l.counters.accepted.Add(1)
			tune(conn)
			g := greeting{address: conn.RemoteAddr().String(), remote: addrPort(conn.RemoteAddr())}
			place := l.enter(conn, g.remote.Addr())
			if place == nil {
				return
			}
			l.running.Go(func() {
				l.greetIn(conn, place, g, record.Host{})
				<-l.places
			})
			continue
		}
		<-l.places
		if errors.Is(err, net.ErrClosed) || l.life.Err() != nil {
			return
		}
		// Such as too many open files: it passes.
		delay = min(max(2*delay, 10*time.Millisecond), time.Second)
		l.cfg.Log.Warn("no connection taken", "error", err)
		select {
		case <-l.life.Done():
			return
		case <-time.After(delay):
		}
	}
}

// enter takes a connection into the crowd, in the order in which they come. Nil if the links are closed.
func (l *Links) enter(conn net.Conn, from netip.Addr) *list.Element {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		conn.Close()
		return nil
	}
	place, gone := l.crowd.join(conn, from)
	l.mu.Unlock()
	if gone != nil {
		l.counters.crowded.Add(1)
		if _, ok := gone.(*Stream); ok {
			l.running.Go(func() { gone.Close() }) // which may take a while
		} else {
			gone.Close()
		}
	}
	return place
}

// greetIn runs the handshake with who has dialled this host.
func (l *Links) greetIn(conn net.Conn, place *list.Element, g greeting, via record.Host) {
	got, err := l.greet(l.life, conn, g, record.Host{})
	l.mu.Lock()
	l.crowd.leave(place)
	l.mu.Unlock()
	if err == nil {
		err = l.welcome(conn, got, via)
	} else {
		conn.Close()
	}
	if err != nil {
		l.trouble(err)
	}
}

// tune makes the kernel give up what has not been acknowledged for as long as we would.
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = tcp.SetKeepAlive(false) // there are pings
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(Verdict/time.Millisecond))
	})
}

// addrPort returns the address of a TCP connection, zero for any other.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// Listen listens for other hosts on a TCP address, on port [Port] of all addresses if it is empty.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	if address == "" {
		address = ":" + strconv.Itoa(Port)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return listener, nil
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	err = errdefs.Errorf(errdefs.ErrUnavailable, "listen on %s: %w", address, err)
	if errors.Is(err, unix.EADDRINUSE) {
		err = errdefs.Hint(err, "choose another port, or stop the program that listens there")
	}
	return nil, err
}
