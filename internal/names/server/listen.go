package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	maxReaders = 4
	// readBuffer is how much the kernel keeps of a burst.
	readBuffer = 1 << 20
	// maxConns bounds the connections over TCP to one address, idle how long one may do nothing.
	maxConns = 256
	idle     = 8 * time.Second
)

// listener answers at one address.
type listener struct {
	udp  []*net.UDPConn
	tcp  *dns.Server
	done sync.WaitGroup
}

// listen opens the sockets. TCP comes first: it does not share its port, so that a second server is found out.
func (s *Server) listen(at netip.AddrPort) (*listener, error) {
	family := "4"
	if at.Addr().Is6() {
		family = "6"
	}
	l := new(listener)
	tcp, err := (&net.ListenConfig{Control: options(at, false)}).Listen(s.base(), "tcp"+family, at.String())
	if err != nil {
		return nil, refused(at, err)
	}
	readers := min(runtime.GOMAXPROCS(0), maxReaders)
	for range readers {
		var c net.PacketConn
		c, err = (&net.ListenConfig{Control: options(at, true)}).ListenPacket(s.base(), "udp"+family, at.String())
		if err != nil {
			_ = tcp.Close()
			_ = l.close(s.base())
			return nil, refused(at, err)
		}
		u := c.(*net.UDPConn)
		_ = u.SetReadBuffer(readBuffer) // less is slower, not wrong
		l.udp = append(l.udp, u)
	}
	l.tcp = &dns.Server{
		Listener: &limited{Listener: tcp, most: maxConns}, Handler: s, MaxTCPQueries: -1,
		ReadTimeout: idle, WriteTimeout: idle, IdleTimeout: func() time.Duration { return idle },
	}
	started := make(chan struct{})
	l.tcp.NotifyStartedFunc = func() { close(started) }
	l.done.Go(func() {
		if err := l.tcp.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.cfg.Log.Warn("dns server: no longer answers over TCP", "at", at, "error", err)
		}
	})
	<-started
	for _, u := range l.udp {
		l.done.Go(func() { s.read(u) })
	}
	return l, nil
}

// options lets a socket have an address before the host has it, and for UDP several readers share one.
func options(at netip.AddrPort, share bool) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if at.Addr().Is6() {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			} else {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			}
			if failed == nil && share {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
		return errors.Join(err, failed)
	}
}

func refused(at netip.AddrPort, err error) error {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return errdefs.Errorf(errdefs.ErrUnavailable, "dns server at %s: %w", at, err)
	}
	switch number {
	case unix.EADDRINUSE:
		return errdefs.Hint(
			errdefs.Errorf(errdefs.ErrInUse, "dns server at %s: another server listens there", at),
			fmt.Sprintf("ss -lnup 'sport = :%d' shows it; one that listens on every address can be told its own (dnsmasq: bind-dynamic)", at.Port()))
	case unix.EACCES, unix.EPERM:
		return errdefs.Errorf(errdefs.ErrDenied, "dns server at %s: %w", at, number)
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "dns server at %s: %w", at, number)
}

func (l *listener) close(ctx context.Context) error {
	var errs []error
	for _, u := range l.udp {
		errs = append(errs, u.Close())
	}
	if l.tcp != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// It ends those who are connected, too. One whose answer still waits for other
		// servers is not waited for.
		if err := l.tcp.ShutdownContext(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			errs = append(errs, err)
		}
	}
	l.done.Wait()
	return errors.Join(errs...)
}

// read answers what comes in until the socket is closed.
func (s *Server) read(u *net.UDPConn) {
	sc, packet := new(scratch), make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := u.ReadFromUDPAddrPort(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		out, ask := s.respond(sc, packet[:n], from.Addr().Unmap().WithZone(""))
		if ask != nil {
			s.background(s.base(), ask, func(out []byte) { _, _ = u.WriteToUDPAddrPort(out, from) })
		} else if len(out) > 0 {
			_, _ = u.WriteToUDPAddrPort(out, from) // who does not get it asks again
		}
	}
}

// limited closes connections at once of which there are too many.
type limited struct {
	net.Listener
	most int64
	open atomic.Int64
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			return &counted{Conn: c, open: &l.open}, nil
		}
		l.open.Add(-1)
		_ = c.Close()
	}
}

type counted struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
