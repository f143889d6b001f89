package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/internal/names/forward"
	"github.com/remora-plugins/remora/internal/names/server"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// facts are records that do not change, of one host.
type facts struct{ names, networks []record.Record }

func (f *facts) Records(kind string) []record.Record {
	if kind == record.KindName {
		return f.names
	}
	return f.networks
}
func (f *facts) Watch(...string) (<-chan struct{}, func()) { return nil, func() {} }

// everyone can be reached.
type everyone struct{}

func (everyone) Reachable(record.Host) bool       { return true }
func (everyone) Watch() (<-chan struct{}, func()) { return nil, func() {} }

func (f *facts) add(name string, addresses ...string) {
	body := fmt.Sprintf(`{"names":[%q],"addresses":["%s"],"network":"b1"}`, name, strings.Join(addresses, `","`))
	f.names = append(f.names, record.Record{Key: record.Key{Kind: record.KindName, Name: name}, Body: []byte(body)})
}

func zones(change func(*facts)) *names.Zones {
	f := &facts{networks: []record.Record{{Key: record.Key{Kind: record.KindNetwork, Name: "blue"}, Body: []byte(`{"id":"b1","subnets":["10.32.0.0/16"]}`)}}}
	f.add("nyc", "10.32.0.2")
	f.add("six", "fd00::2")
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("10.32.2.%d", i))
	}
	f.add("many", many...)
	if change != nil {
		change(f)
	}
	return names.New(names.Config{}, f, everyone{})
}

// upstream is another server, such as the host has.
type upstream struct {
	at    netip.AddrPort
	asked atomic.Int64
	mu    sync.Mutex
	names []string
}

func (u *upstream) seen() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.names)
}

// newUpstream answers with handle, or 192.0.2.1 for every name, over UDP and TCP.
func newUpstream(t testing.TB, at string, handle func(w dns.ResponseWriter, m *dns.Msg)) *upstream {
	t.Helper()
	if handle == nil {
		handle = plain
	}
	pc, err := net.ListenPacket("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{at: netip.MustParseAddrPort(pc.LocalAddr().String())}
	l, err := net.Listen("tcp4", u.at.String())
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		if m.Question[0].Qtype != dns.TypeHINFO { // the forwarder looks for loops
			u.asked.Add(1)
			u.mu.Lock()
			u.names = append(u.names, m.Question[0].Name)
			u.mu.Unlock()
			handle(w, m)
		}
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return u
}

func plain(w dns.ResponseWriter, m *dns.Msg) {
	r := new(dns.Msg).SetReply(m)
	if m.Question[0].Qtype == dns.TypeA {
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)}}
	}
	_ = w.WriteMsg(r)
}

func nxdomain(w dns.ResponseWriter, m *dns.Msg) {
	r := new(dns.Msg).SetRcode(m, dns.RcodeNameError)
	r.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 86400}, Ns: "a.", Mbox: "b.", Minttl: 86400}}
	_ = w.WriteMsg(r)
}

// newServer serves at a port of loopback, with the file for its resolv.conf.
func newServer(t testing.TB, z *names.Zones, ups ...*upstream) (*server.Server, netip.AddrPort) {
	t.Helper()
	conf, port := filepath.Join(t.TempDir(), "resolv.conf"), uint16(53)
	text := ""
	for _, u := range ups {
		text += "nameserver " + u.at.Addr().String() + "\n"
		port = u.at.Port()
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var s *server.Server
	f := forward.New(t.Context(), forward.Config{ResolvConf: conf, Port: port, Own: func() []netip.AddrPort { return s.Listening() }})
	s = server.New(t.Context(), server.Config{Zone: z.Zone, Forward: f, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		f.Close()
	})
	at := free(t, "127.0.0.1")
	if err := s.Listen(at); err != nil {
		t.Fatal(err)
	}
	return s, at
}

// free finds a port that nobody uses.
func free(t testing.TB, ip string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// dig asks, and returns rcode, flags and data in one line.
func dig(t testing.TB, at netip.AddrPort, network, name, qtype string, change func(*dns.Msg)) (string, *dns.Msg) {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	if change != nil {
		change(m)
	}
	c := dns.Client{Net: network, Timeout: 4 * time.Second}
	r, _, err := c.Exchange(m, at.String())
	if err != nil {
		return err.Error(), nil
	}
	data := []string{}
	for _, rr := range r.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(data)
	return strings.Join(append([]string{dns.RcodeToString[r.Rcode]}, data...), " "), r
}

func TestServer(t *testing.T) {
	up := newUpstream(t, "127.0.0.2:0", nil)
	s, at := newServer(t, zones(nil), up)
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range []struct{ name, qtype, want string }{
			{"nyc", "A", "NOERROR 10.32.0.2"},
			{"nYc.remora.LOCAL", "A", "NOERROR 10.32.0.2"},
			{"nyc", "AAAA", "NOERROR"},
			{"six", "AAAA", "NOERROR fd00::2"},
			{"none.remora.local", "A", "NXDOMAIN"},
			{"2.0.32.10.in-addr.arpa", "PTR", "NOERROR nyc.remora.local."},
			{"www.example.org", "A", "NOERROR 192.0.2.1"},
			{"nas", "A", "NOERROR 192.0.2.1"}, // a bare name of the host's own surroundings
		} {
			got, m := dig(t, at, network, tt.name, tt.qtype, nil)
			if got != tt.want {
				t.Errorf("%s %s over %s: %q, want %q", tt.name, tt.qtype, network, got, tt.want)
				continue
			}
			if m.Question[0].Name != dns.Fqdn(tt.name) || !m.RecursionAvailable {
				t.Errorf("%s: the answer is %s", tt.name, m)
			}
		}
	}
	for _, name := range up.seen() {
		if name != "www.example.org." && name != "nas." {
			t.Errorf("%s was asked elsewhere", name)
		}
	}
	if n := up.asked.Load(); n != 2 && n != 3 { // nas may be asked again after a second
		t.Errorf("%d questions went out", n)
	}
	if st := s.Stats(); st.Answered != 12 || st.Forwarded != 4 || st.Refused+st.Dropped != 0 {
		t.Errorf("counted: %+v", st)
	}
}

// A and AAAA are asked at once from one socket, as by musl and glibc.
func TestParallel(t *testing.T) {
	_, at := newServer(t, zones(nil), newUpstream(t, "127.0.0.2:0", nil))
	for _, name := range []string{"nyc.", "nyc.remora.local.", "www.example.org."} {
		c, err := net.Dial("udp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		for i, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			m := new(dns.Msg).SetQuestion(name, qtype)
			m.Id = uint16(i + 1)
			packet, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(packet); err != nil {
				t.Fatal(err)
			}
		}
		got, buf := map[uint16]int{}, make([]byte, 512)
		for range 2 {
			_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			m := new(dns.Msg)
			if err := m.Unpack(buf[:n]); err != nil || m.Rcode != dns.RcodeSuccess {
				t.Errorf("%s: %v, %s", name, err, m)
			}
			got[m.Id] = len(m.Answer)
		}
		if got[1] != 1 || got[2] != 0 || len(got) != 2 {
			t.Errorf("%s: answers %v", name, got)
		}
		_ = c.Close()
	}
}

// A bare name that nobody knows is not denied for as long as the root would, and not late where no server answers.
func TestBareNames(t *testing.T) {
	_, at := newServer(t, zones(nil), newUpstream(t, "127.0.0.2:0", nxdomain))
	_, silent := newServer(t, zones(nil), newUpstream(t, "127.0.0.2:0", func(dns.ResponseWriter, *dns.Msg) {}))
	for _, tt := range []struct {
		at     netip.AddrPort
		name   string
		want   string
		negTTL uint32
		most   time.Duration
	}{
		{at, "nobody", "NXDOMAIN", 1, time.Second},
		{at, "nobody.example.org", "NXDOMAIN", 86400, time.Second},
		{silent, "nobody", "NXDOMAIN", 1, 1500 * time.Millisecond},
		{silent, "nobody.example.org", "SERVFAIL", 0, 3700 * time.Millisecond},
		{silent, "nyc", "NOERROR 10.32.0.2", 0, 100 * time.Millisecond},
	} {
		begun := time.Now()
		got, m := dig(t, tt.at, "udp", tt.name, "A", nil)
		if took := time.Since(begun); got != tt.want || took > tt.most {
			t.Errorf("%s: %q after %s, want %q", tt.name, got, took, tt.want)
			continue
		}
		var ttl uint32
		for _, rr := range m.Ns {
			ttl = min(rr.Header().Ttl, rr.(*dns.SOA).Minttl)
		}
		if ttl != tt.negTTL {
			t.Errorf("%s: is denied for %d s, want %d", tt.name, ttl, tt.negTTL)
		}
	}
}

func TestSizes(t *testing.T) {
	_, at := newServer(t, zones(nil))
	for _, tt := range []struct {
		network   string
		edns      uint16
		cut       bool
		least, up int
	}{
		{"udp", 0, true, 400, 512}, {"udp", 100, true, 400, 512}, {"udp", 1232, true, 1100, 1232}, {"udp", 65000, true, 1100, 1232}, {"tcp", 0, false, 3200, 4000},
	} {
		_, m := dig(t, at, tt.network, "many.remora.local", "A", func(m *dns.Msg) {
			if tt.edns > 0 {
				m.SetEdns0(tt.edns, true)
			}
		})
		if m == nil {
			t.Fatalf("%+v: no answer", tt)
		}
		m.Compress = true
		if m.Truncated != tt.cut || m.Len() < tt.least || m.Len() > tt.up || (m.IsEdns0() != nil) != (tt.edns > 0) {
			t.Errorf("%+v: %d bytes, truncated %t, %d answers, %v", tt, m.Len(), m.Truncated, len(m.Answer), m.IsEdns0())
		}
	}
}

// What is no question in this server's sense is told so.
func TestWrong(t *testing.T) {
	_, at := newServer(t, zones(nil), newUpstream(t, "127.0.0.2:0", nil))
	for _, tt := range []struct {
		what, want string
		change     func(*dns.Msg)
	}{
		{"notify", "NOTIMP", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }},
		{"update", "NOTIMP", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }},
		{"chaos", "REFUSED", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }},
		{"transfer", "REFUSED", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }},
		{"no recursion", "REFUSED", func(m *dns.Msg) { m.RecursionDesired, m.Question[0].Name = false, "www.example.org." }},
		{"no recursion, ours", "NOERROR 10.32.0.2", func(m *dns.Msg) { m.RecursionDesired = false }},
		{"new EDNS", "BADVERS", func(m *dns.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }},
		{"two questions", "FORMERR", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }},
	} {
		got, m := dig(t, at, "udp", "nyc", "A", tt.change)
		if m != nil && m.Rcode == dns.RcodeBadVers {
			got = "BADVERS"
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// TestAskers has the server say no to all but those it serves.
func TestAskers(t *testing.T) {
	z := zones(nil)
	s := server.New(t.Context(), server.Config{Zone: z.Zone, Allow: func(a netip.Addr) bool { return a == netip.MustParseAddr("172.17.0.2") }, Log: slog.New(slog.DiscardHandler)})
	for asker, want := range map[string]int{
		"10.32.9.9": dns.RcodeSuccess, "127.0.0.1": dns.RcodeSuccess, "::1": dns.RcodeSuccess, "172.17.0.2": dns.RcodeSuccess,
		"10.33.0.1": dns.RcodeRefused, "8.8.8.8": dns.RcodeRefused, "172.17.0.3": dns.RcodeRefused, "fd00::1": dns.RcodeRefused,
	} {
		m := new(dns.Msg).SetQuestion("nyc.", dns.TypeA)
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		r := new(dns.Msg)
		if err := r.Unpack(server.Respond(s, packet, netip.MustParseAddr(asker))); err != nil || r.Rcode != want || (len(r.Answer) > 0) != (want == 0) {
			t.Errorf("%s: %v, %s", asker, err, r)
		}
	}
}

func TestListen(t *testing.T) {
	s, at := newServer(t, zones(nil))
	two := free(t, "127.0.0.3")
	for range 2 {
		if err := s.Listen(two); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Listening(); len(got) != 2 {
		t.Errorf("listens at %v", got)
	}
	if got, _ := dig(t, two, "udp", "nyc", "A", nil); got != "NOERROR 10.32.0.2" {
		t.Errorf("at the second address: %q", got)
	}
	six := free(t, "::1")
	if err := s.Listen(six); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		if got, _ := dig(t, six, network, "six", "AAAA", nil); got != "NOERROR fd00::2" {
			t.Errorf("at an IPv6 address over %s: %q", network, got)
		}
	}
	// The address of a bridge that is made in a moment.
	if err := s.Listen(netip.MustParseAddrPort("203.0.113.7:5353")); err != nil {
		t.Errorf("an address that the host does not have: %v", err)
	}
	for range 2 {
		if err := s.Unlisten(two); err != nil {
			t.Fatal(err)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		if got, m := dig(t, two, network, "nyc", "A", nil); m != nil {
			t.Errorf("%s after Unlisten: %q", network, got)
		}
	}
	if got, _ := dig(t, at, "tcp", "nyc", "A", nil); got != "NOERROR 10.32.0.2" {
		t.Errorf("at the first address: %q", got)
	}

	other := server.New(t.Context(), server.Config{Zone: zones(nil).Zone, Log: slog.New(slog.DiscardHandler)})
	if err := other.Listen(at); !errors.Is(err, errdefs.ErrInUse) || len(errdefs.Hints(err)) != 1 {
		t.Errorf("where another listens: %v, %q", err, errdefs.Hints(err))
	}
	for _, wrong := range []string{"0.0.0.0:53", "[::]:53", "224.0.0.251:53"} {
		if err := other.Listen(netip.MustParseAddrPort(wrong)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	if err := errors.Join(other.Close(), other.Close()); err != nil {
		t.Error(err)
	}
	if err := other.Listen(free(t, "127.0.0.1")); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// Connections over TCP are bounded, and who has one is answered.
func TestManyConnections(t *testing.T) {
	_, at := newServer(t, zones(nil))
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	refused := 0
	for range 300 {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	for _, c := range held {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			refused++
		}
	}
	if refused != 300-256 {
		t.Errorf("%d of 300 were refused", refused)
	}
	_ = held[0].Close()
	for range 100 {
		if got, _ := dig(t, at, "tcp", "nyc", "A", nil); got == "NOERROR 10.32.0.2" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("no answer when there is a place again")
}

// Close gives up what waits for others, and leaves no goroutine behind.
func TestCloseWhileWaiting(t *testing.T) {
	up := newUpstream(t, "127.0.0.2:0", func(dns.ResponseWriter, *dns.Msg) {})
	before := goleak.IgnoreCurrent()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := forward.New(t.Context(), forward.Config{ResolvConf: conf, Port: up.at.Port()})
	s := server.New(t.Context(), server.Config{Zone: zones(nil).Zone, Forward: f, Log: slog.New(slog.DiscardHandler)})
	at := free(t, "127.0.0.1")
	if err := s.Listen(at); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg).SetQuestion("slow.example.org.", dns.TypeA)
	c := dns.Client{Timeout: 200 * time.Millisecond}
	_, _, err := c.Exchange(m, at.String())
	var late net.Error
	if !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("error is %v", err)
	}
	begun := time.Now()
	if err := s.Close(); err != nil || time.Since(begun) > time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
	f.Close()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

type deaf struct{}

func (deaf) Forward(context.Context, dns.Question, server.Flags) (*dns.Msg, error) {
	return nil, errors.New("none")
}
func (deaf) Heard(string) bool { return false }

func FuzzRespond(f *testing.F) {
	for _, m := range []*dns.Msg{
		new(dns.Msg).SetQuestion("nyc.", dns.TypeA), new(dns.Msg).SetQuestion("x.remora.local.", dns.TypeAAAA).SetEdns0(4096, true),
		new(dns.Msg).SetQuestion("2.0.32.10.in-addr.arpa.", dns.TypePTR), new(dns.Msg).SetAxfr("remora.local."),
	} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-3])
	}
	s := server.New(f.Context(), server.Config{Zone: zones(nil).Zone, Forward: deaf{}, Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, packet []byte) {
		out := server.Respond(s, packet, netip.MustParseAddr("127.0.0.1"))
		if len(out) == 0 {
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(out); err != nil || !m.Response || m.Id != uint16(packet[0])<<8|uint16(packet[1]) || len(out) > 1232 {
			t.Errorf("%x is answered with %x: %v", packet, out, err)
		}
	})
}
