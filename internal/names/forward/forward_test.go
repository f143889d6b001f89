package forward

import (
	"context"
	"errors"
	"fmt"
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

	"github.com/remora-plugins/remora/internal/names/server"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// upstream is a DNS server on loopback: all of them have one port, as the host's have.
type upstream struct {
	ip    string
	asked atomic.Int64
	tcp   atomic.Int64
	stop  func()
}

type answer func(w dns.ResponseWriter, m *dns.Msg)

// start starts a server of this answer at each address, and returns a forwarder that knows them in this order.
func start(t *testing.T, answers ...answer) (*Forwarder, []*upstream, string) {
	t.Helper()
	var ups []*upstream
	var port uint16
	text := "# made by a test\nsearch lan\n"
	for i, a := range answers {
		u := serve(t, fmt.Sprintf("127.0.0.%d", 11+i), &port, a)
		ups = append(ups, u)
		text += "nameserver " + u.ip + "\n"
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, conf, text)
	f := New(t.Context(), Config{ResolvConf: conf, Port: port})
	t.Cleanup(f.Close)
	return f, ups, conf
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, ip string, port *uint16, a answer) *upstream {
	t.Helper()
	pc, err := net.ListenPacket("udp4", net.JoinHostPort(ip, fmt.Sprint(*port)))
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(pc.LocalAddr().String())
	*port = at.Port()
	l, err := net.Listen("tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{ip: ip}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		if m.Question[0].Qtype == dns.TypeHINFO {
			return // looks for loops
		}
		u.asked.Add(1)
		if w.RemoteAddr().Network() == "tcp" {
			u.tcp.Add(1)
		}
		a(w, m)
	})
	var all []*dns.Server
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		all = append(all, s)
	}
	u.stop = sync.OnceFunc(func() {
		for _, s := range all {
			_ = s.Shutdown()
		}
	})
	t.Cleanup(u.stop)
	return u
}

// says answers with one address that lives for a while.
func says(ip string, ttl uint32) answer {
	return func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.ParseIP(ip)}}
		_ = w.WriteMsg(r)
	}
}

func rcode(code int) answer {
	return func(w dns.ResponseWriter, m *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(m, code)) }
}

func silent(dns.ResponseWriter, *dns.Msg) {}

// ask returns the address or the error, and how long it took.
func ask(t *testing.T, f *Forwarder, name string) (string, time.Duration) {
	t.Helper()
	begun := time.Now()
	m, err := f.Forward(t.Context(), dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}, server.Flags{})
	took := time.Since(begun)
	switch {
	case err != nil:
		if !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("%s: %v has the wrong class", name, err)
		}
		return err.Error(), took
	case len(m.Answer) == 0:
		return dns.RcodeToString[m.Rcode], took
	}
	return m.Answer[0].(*dns.A).A.String(), took
}

func TestForward(t *testing.T) {
	for _, tt := range []struct {
		what    string
		ups     []answer
		want    string
		atLeast time.Duration
		atMost  time.Duration
		asked   string
	}{
		{"the first", []answer{says("192.0.2.1", 60), says("192.0.2.2", 60)}, "192.0.2.1", 0, hedge, "1 0"},
		{"the second beside a slow first", []answer{silent, says("192.0.2.2", 60)}, "192.0.2.2", hedge, 2 * hedge, "1 1"},
		{"the second after one that fails", []answer{rcode(dns.RcodeServerFailure), says("192.0.2.2", 60)}, "192.0.2.2", 0, hedge, "1 1"},
		{"the third after two that refuse", []answer{rcode(dns.RcodeRefused), rcode(dns.RcodeRefused), says("192.0.2.3", 60)}, "192.0.2.3", 0, hedge, "1 1 1"},
		{"no such name is an answer", []answer{rcode(dns.RcodeNameError), says("192.0.2.2", 60)}, "NXDOMAIN", 0, hedge, "1 0"},
		{"all fail", []answer{rcode(dns.RcodeServerFailure), rcode(dns.RcodeServerFailure)}, "SERVFAIL", 0, hedge, "1 1"},
		{"none answers", []answer{silent}, "no server has answered", 3 * time.Second, 3500 * time.Millisecond, "3"},
		{"there is none", nil, "names no server", 0, hedge, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			f, ups, _ := start(t, tt.ups...)
			got, took := ask(t, f, "www.example.org.")
			if !strings.Contains(got, tt.want) || took < tt.atLeast || took > tt.atMost+200*time.Millisecond {
				t.Errorf("%q after %s, want %q within %s to %s", got, took, tt.want, tt.atLeast, tt.atMost)
			}
			asked := []string{}
			for _, u := range ups {
				asked = append(asked, fmt.Sprint(u.asked.Load()))
			}
			if got := strings.Join(asked, " "); got != tt.asked && tt.what != "none answers" {
				t.Errorf("asked %q times, want %q", got, tt.asked)
			}
		})
	}
}

// One that does not answer is asked after the others once its time is over.
func TestOrder(t *testing.T) {
	f, ups, _ := start(t, silent, says("192.0.2.2", 0))
	for i := range 5 {
		got, took := ask(t, f, fmt.Sprintf("n%d.example.org.", i))
		if got != "192.0.2.2" || i > 0 && took > hedge {
			t.Errorf("question %d: %q after %s", i, got, took)
		}
		if i == 0 {
			time.Sleep(attempt)
		}
	}
	if n := ups[0].asked.Load(); n != 1 {
		t.Errorf("the silent one was asked %d times", n)
	}
}

// However many wait for it, a question is asked once.
func TestOnce(t *testing.T) {
	release := make(chan struct{})
	f, ups, _ := start(t, func(w dns.ResponseWriter, m *dns.Msg) {
		<-release
		says("192.0.2.1", 60)(w, m)
	})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			name := "www.example.org."
			if i%2 == 0 {
				name = "WWW.example.ORG."
			}
			m, err := f.Forward(t.Context(), dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}, server.Flags{})
			if err != nil || len(m.Answer) != 1 {
				t.Errorf("%v, %s", err, m)
				return
			}
			m.Answer[0].Header().Ttl = 0 // it is the caller's own
		})
	}
	for ups[0].asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	close(release)
	all.Wait()
	if n := ups[0].asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if got, _ := ask(t, f, "www.example.org."); got != "192.0.2.1" || ups[0].asked.Load() != 1 {
		t.Errorf("%q is not remembered", got)
	}
}

// Who has waited long enough goes, and what he asked comes for the next one.
func TestCallerGoes(t *testing.T) {
	f, ups, _ := start(t, func(w dns.ResponseWriter, m *dns.Msg) {
		time.Sleep(200 * time.Millisecond)
		says("192.0.2.1", 60)(w, m)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.Forward(ctx, dns.Question{Name: "a.example.org.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, server.Flags{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if got, _ := ask(t, f, "a.example.org."); got != "192.0.2.1" || ups[0].asked.Load() != 1 {
		t.Errorf("%q, asked %d times", got, ups[0].asked.Load())
	}
}

// An answer that is cut off comes whole over TCP; EDNS asks for what fits everywhere.
func TestTruncated(t *testing.T) {
	f, ups, _ := start(t, func(w dns.ResponseWriter, m *dns.Msg) {
		if opt := m.IsEdns0(); opt == nil || opt.UDPSize() != 1232 {
			t.Errorf("asked without EDNS of 1232 bytes: %s", m)
		}
		r := new(dns.Msg).SetReply(m)
		for i := range 100 {
			r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, byte(i))})
		}
		if w.RemoteAddr().Network() == "udp" {
			r.Truncate(512)
		}
		_ = w.WriteMsg(r)
	})
	m, err := f.Forward(t.Context(), dns.Question{Name: "many.example.org.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, server.Flags{})
	if err != nil || len(m.Answer) != 100 || m.Truncated || ups[0].tcp.Load() != 1 {
		t.Errorf("%v, %s", err, m)
	}
}

// A server older than EDNS is asked without it.
func TestNoEDNS(t *testing.T) {
	f, _, _ := start(t, func(w dns.ResponseWriter, m *dns.Msg) {
		if m.IsEdns0() != nil {
			rcode(dns.RcodeFormatError)(w, m)
			return
		}
		says("192.0.2.1", 60)(w, m)
	})
	if got, _ := ask(t, f, "www.example.org."); got != "192.0.2.1" {
		t.Errorf("got %q", got)
	}
}

// Forged answers are passed over, and the right one is taken.
func TestForged(t *testing.T) {
	f, _, _ := start(t, func(w dns.ResponseWriter, m *dns.Msg) {
		for _, change := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ }, func(m *dns.Msg) { m.Question[0].Name = "evil.example.org." }, func(m *dns.Msg) { m.Response = false },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }, func(m *dns.Msg) { m.Question = nil },
		} {
			forged := new(dns.Msg).SetReply(m)
			forged.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(6, 6, 6, 6)}}
			change(forged)
			_ = w.WriteMsg(forged)
		}
		_, _ = w.Write([]byte("nonsense"))
		says("192.0.2.1", 60)(w, m)
	})
	if got, took := ask(t, f, "www.example.org."); got != "192.0.2.1" || took > hedge {
		t.Errorf("got %q after %s", got, took)
	}
}

// The servers are those that the file names now. While it names none they are those it named last.
func TestFileChanges(t *testing.T) {
	f, ups, conf := start(t, says("192.0.2.1", 0), says("192.0.2.2", 0))
	if got, _ := ask(t, f, "a.example.org."); got != "192.0.2.1" {
		t.Errorf("first: %q", got)
	}
	for _, tt := range []struct{ text, want string }{
		{"nameserver " + ups[1].ip + "\n", "192.0.2.2"},
		{"", "192.0.2.2"},
		{"nameserver 127.0.0.11\nnameserver nonsense\n", "192.0.2.1"},
	} {
		write(t, conf, tt.text)
		time.Sleep(look)
		if got, _ := ask(t, f, "a.example.org."); got != tt.want {
			t.Errorf("with %q: %q, want %q", tt.text, got, tt.want)
		}
	}
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	time.Sleep(look)
	if got, _ := ask(t, f, "a.example.org."); got != "192.0.2.1" {
		t.Errorf("without the file: %q", got)
	}
}

// Servers that are given are asked instead of the file's, for as long as there are any.
func TestGiven(t *testing.T) {
	f, ups, _ := start(t, says("192.0.2.1", 0), says("192.0.2.2", 0))
	var given []netip.Addr
	f.cfg.Servers = func() []netip.Addr { return given }
	for _, tt := range []struct {
		given []netip.Addr
		want  string
	}{
		{nil, "192.0.2.1"}, {[]netip.Addr{netip.MustParseAddr(ups[1].ip)}, "192.0.2.2"}, {nil, "192.0.2.1"},
	} {
		given = tt.given
		if got, _ := ask(t, f, "a.example.org."); got != tt.want {
			t.Errorf("with %v: %q, want %q", given, got, tt.want)
		}
	}
}

// When no server answers any more an old answer is given, soon and for a while.
func TestOld(t *testing.T) {
	f, ups, _ := start(t, says("192.0.2.1", 1))
	if got, _ := ask(t, f, "a.example.org."); got != "192.0.2.1" {
		t.Fatalf("first: %q", got)
	}
	ups[0].stop()
	time.Sleep(1100 * time.Millisecond)
	if got, took := ask(t, f, "a.example.org."); got != "192.0.2.1" || took > patience+hedge {
		t.Errorf("after the servers are gone: %q after %s", got, took)
	}
	if got, _ := ask(t, f, "b.example.org."); !strings.Contains(got, "refused") {
		t.Errorf("a name that was never asked: %q", got)
	}
	if got, took := ask(t, f, "a.example.org."); got != "192.0.2.1" || took > hedge {
		t.Errorf("once they are known to be gone: %q after %s", got, took)
	}
}

// A server that is this one is not asked, nor one that asks this one.
func TestLoops(t *testing.T) {
	f, ups, _ := start(t, says("192.0.2.1", 0), says("192.0.2.2", 0))
	at := netip.AddrPortFrom(netip.MustParseAddr(ups[0].ip), f.cfg.Port)
	f.cfg.Own = func() []netip.AddrPort { return []netip.AddrPort{at} }
	if got, _ := ask(t, f, "a.example.org."); got != "192.0.2.2" || ups[0].asked.Load() != 0 {
		t.Errorf("asked itself: %q", got)
	}
	// The other one forwards to us what we ask it.
	heard := make(chan bool, 8)
	var port uint16
	pc, err := net.ListenPacket("udp4", "127.0.0.14:0")
	if err != nil {
		t.Fatal(err)
	}
	port = netip.MustParseAddrPort(pc.LocalAddr().String()).Port()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, conf, "nameserver 127.0.0.14\n")
	g := New(t.Context(), Config{ResolvConf: conf, Port: port})
	t.Cleanup(g.Close)
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		heard <- g.Heard(strings.ToUpper(m.Question[0].Name))
		_ = w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeServerFailure))
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	if all := g.Servers(); !slices.Equal(all, []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.14"), port)}) {
		t.Errorf("servers are %v", all)
	}
	select {
	case ours := <-heard:
		if !ours {
			t.Error("the question that looks for loops is not known again")
		}
	case <-time.After(3 * time.Second):
		t.Fatal("nothing was asked to look for loops")
	}
	if all := g.Servers(); len(all) != 0 {
		t.Errorf("servers are %v", all)
	}
	if g.Heard("www.example.org.") {
		t.Error("any name is taken for one that looks for loops")
	}
}
