package server

import (
	"context"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/names"
)

// The sizes in bytes of answers over UDP: what every asker takes, and what is never cut into pieces on its way.
const (
	minSize = dns.MinMsgSize
	maxSize = 1232
)

// scratch is what one reader uses again for each question.
type scratch struct {
	req, reply dns.Msg
	out        []byte
}

// respond takes a packet and returns what is answered, nothing if that is nothing. If others have to be asked
// first it returns how.
func (s *Server) respond(sc *scratch, packet []byte, asker netip.Addr) (out []byte, ask func() []byte) {
	if len(packet) < 12 || packet[2]&0x80 != 0 {
		s.counts.malformed.Add(1) // an answer is never answered, or two servers would talk for ever
		return nil, nil
	}
	req := &sc.req
	*req = dns.Msg{Question: req.Question[:0], Extra: req.Extra[:0]}
	if err := req.Unpack(packet); err != nil {
		s.counts.malformed.Add(1)
		reply := dns.Msg{MsgHdr: dns.MsgHdr{Id: uint16(packet[0])<<8 | uint16(packet[1]), Response: true, Rcode: dns.RcodeFormatError}}
		out, _ := reply.PackBuffer(sc.out) // a header has nothing that could not be packed
		return out, nil
	}
	if s.decide(req, &sc.reply, asker) {
		return pack(&sc.reply, sizeOf(req), sc), nil
	}
	kept := req.Copy()
	return nil, func() []byte { return pack(s.ask(kept), sizeOf(kept), new(scratch)) }
}

// sizeOf returns how large the answer may be over UDP.
func sizeOf(req *dns.Msg) int {
	if opt := req.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), minSize), maxSize)
	}
	return minSize
}

// pack returns the bytes of m, cut off where that is too much.
func pack(m *dns.Msg, size int, sc *scratch) []byte {
	m.Compress = len(m.Answer)+len(m.Ns)+len(m.Extra) > 4 // it costs more than a few names
	out, err := m.PackBuffer(sc.out)
	if err == nil && len(out) > size {
		m.Truncate(size)
		out, err = m.PackBuffer(sc.out)
	}
	if err != nil {
		failed := dns.Msg{MsgHdr: dns.MsgHdr{Id: m.Id, Response: true, Rcode: dns.RcodeServerFailure}, Question: m.Question}
		out, _ = failed.PackBuffer(sc.out)
	}
	if cap(out) > cap(sc.out) {
		sc.out = out[:cap(out)]
	}
	return out
}

// begin fills reply with what is the same in all answers to req.
func begin(req, reply *dns.Msg) {
	*reply = dns.Msg{
		MsgHdr: dns.MsgHdr{
			Id: req.Id, Response: true, Opcode: req.Opcode, RecursionDesired: req.RecursionDesired,
			RecursionAvailable: true, CheckingDisabled: req.CheckingDisabled,
		},
		Question: req.Question, Answer: reply.Answer[:0], Extra: reply.Extra[:0],
	}
}

// end adds to reply what an asker with EDNS expects.
func end(req, reply *dns.Msg) {
	if opt := req.IsEdns0(); opt != nil {
		reply.SetEdns0(maxSize, opt.Do())
	}
}

// decide fills reply, and returns false if others have to be asked first.
func (s *Server) decide(req, reply *dns.Msg, asker netip.Addr) bool {
	begin(req, reply)
	defer end(req, reply)
	z := s.cfg.Zone()
	opt := req.IsEdns0()
	switch {
	case !s.serves(asker, z):
		s.counts.refused.Add(1)
		reply.Rcode = dns.RcodeRefused
		return true
	case req.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
		return true
	case len(req.Question) != 1:
		s.counts.malformed.Add(1)
		reply.Rcode = dns.RcodeFormatError
		return true
	case opt != nil && opt.Version() != 0:
		reply.Rcode = dns.RcodeBadVers
		return true
	}
	q := req.Question[0]
	switch {
	case q.Qclass != dns.ClassINET, q.Qtype == dns.TypeAXFR, q.Qtype == dns.TypeIXFR:
		reply.Rcode = dns.RcodeRefused
	case z.Answer(reply, q, asker):
		s.counts.answered.Add(1)
	case s.cfg.Forward.Heard(q.Name):
		reply.Rcode = dns.RcodeNameError
	case !req.RecursionDesired:
		reply.Rcode = dns.RcodeRefused
	default:
		return false
	}
	return true
}

// ask has other servers answer req. Of a name without a dot that they do not know either, or cannot
// be asked about, it says that there is none: whoever looks in his search list after it goes on at once.
func (s *Server) ask(req *dns.Msg) *dns.Msg {
	s.counts.forwarded.Add(1)
	q, reply := req.Question[0], new(dns.Msg)
	begin(req, reply)
	opt := req.IsEdns0()
	got, err := s.cfg.Forward.Forward(s.base(), q, Flags{CheckingDisabled: req.CheckingDisabled, DNSSEC: opt != nil && opt.Do()})
	if err != nil {
		s.counts.failed.Add(1)
	}
	single := names.Single(q.Name)
	switch {
	case err != nil && single:
		s.cfg.Zone().Denied(reply)
	case err != nil:
		reply.Rcode = dns.RcodeServerFailure
	case single && got.Rcode == dns.RcodeNameError:
		// The root says that there is none for a day. A container of that name may start in a second.
		s.cfg.Zone().Denied(reply)
	default:
		reply.Rcode, reply.AuthenticatedData = got.Rcode, got.AuthenticatedData
		reply.Answer, reply.Ns, reply.Extra = got.Answer, got.Ns, got.Extra
	}
	end(req, reply)
	return reply
}

// ServeDNS answers over TCP, for [dns.Server].
func (s *Server) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		return
	}
	reply := new(dns.Msg)
	if !s.decide(req, reply, from.Addr().Unmap().WithZone("")) {
		if !s.wait() {
			return
		}
		defer s.done()
		reply = s.ask(req)
	}
	reply.Compress = true
	if len(reply.Answer)+len(reply.Extra) > 0 {
		reply.Truncate(dns.MaxMsgSize)
	}
	_ = w.WriteMsg(reply) // the asker is gone
}

// wait takes a place among those who wait for other servers, and reports whether there was one.
func (s *Server) wait() bool {
	select {
	case s.waiting <- struct{}{}:
		return true
	default:
		s.counts.dropped.Add(1)
		return false
	}
}

func (s *Server) done() { <-s.waiting }

var _ dns.Handler = (*Server)(nil)

// background asks in a goroutine of its own, and hands what is answered to write.
func (s *Server) background(ctx context.Context, ask func() []byte, write func([]byte)) {
	if !s.wait() {
		return
	}
	s.asking.Go(func() {
		defer s.done()
		if out := ask(); ctx.Err() == nil {
			write(out)
		}
	})
}
