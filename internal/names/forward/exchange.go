package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/names/server"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxUDP is the size of an answer that is taken over UDP: what is larger comes over TCP, and is never cut into pieces.
const maxUDP = 1232

// exchange asks one server, over UDP, and over TCP if the answer is too large for that.
func exchange(ctx context.Context, to netip.AddrPort, q dns.Question, flags server.Flags) (*dns.Msg, error) {
	m := &dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: uint16(rand.Uint32()), RecursionDesired: true, CheckingDisabled: flags.CheckingDisabled},
		Question: []dns.Question{q},
	}
	m.SetEdns0(maxUDP, flags.DNSSEC)
	packet, err := m.Pack()
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "dns: %q: %w", q.Name, err)
	}
	reply, err := overUDP(ctx, to, packet, m)
	if err == nil && reply.Rcode == dns.RcodeFormatError && reply.IsEdns0() == nil {
		// It is older than EDNS.
		m.Extra = nil
		if packet, err = m.Pack(); err == nil {
			reply, err = overUDP(ctx, to, packet, m)
		}
	}
	if err == nil && reply.Truncated {
		reply, err = overTCP(ctx, to, packet, m)
	}
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "dns server %s: %w", to, err)
	}
	return reply, nil
}

// dial opens a socket whose calls end with ctx.
func dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, func() bool, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, to.String())
	if err != nil {
		return nil, nil, err
	}
	return c, context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }), nil
}

func overUDP(ctx context.Context, to netip.AddrPort, packet []byte, asked *dns.Msg) (*dns.Msg, error) {
	c, stop, err := dial(ctx, "udp", to)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer stop()
	if _, err := c.Write(packet); err != nil {
		return nil, err
	}
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if reply := answers(buf[:n], asked); reply != nil {
			return reply, nil // anything else was forged or is late: the right one may still come
		}
	}
}

func overTCP(ctx context.Context, to netip.AddrPort, packet []byte, asked *dns.Msg) (*dns.Msg, error) {
	c, stop, err := dial(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer stop()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)); err != nil {
		return nil, err
	}
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, err
	}
	if reply := answers(body, asked); reply != nil {
		return reply, nil
	}
	return nil, errors.New("what came over TCP does not answer the question")
}

// answers returns the message in b if it answers what was asked.
func answers(b []byte, asked *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	if m.Unpack(b) != nil || m.Id != asked.Id || !m.Response {
		return nil
	}
	want := asked.Question[0]
	switch {
	case len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return m // some servers say no more than that
	case len(m.Question) != 1, m.Question[0].Qtype != want.Qtype, m.Question[0].Qclass != want.Qclass,
		!strings.EqualFold(m.Question[0].Name, want.Name):
		return nil
	}
	return m
}

// quick reports whether a server said at once that it is not there.
func quick(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, io.EOF)
}
