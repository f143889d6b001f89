package forward

import (
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A resolver of the host is told to ask this server while that runs, and is told otherwise again. Its address, and so the file, stay
// the same.
func TestLoopsLater(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.15:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(pc.LocalAddr().String())
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, conf, "nameserver 127.0.0.15\n")
	f := New(t.Context(), Config{ResolvConf: conf, Port: at.Port()})
	t.Cleanup(f.Close)
	var loops atomic.Bool
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		switch q := m.Question[0]; {
		case q.Qtype == dns.TypeHINFO:
			if loops.Load() {
				f.Heard(q.Name)
			}
			rcode(dns.RcodeNameError)(w, m)
		case loops.Load():
			rcode(dns.RcodeServerFailure)(w, m)
		default:
			says("192.0.2.1", 0)(w, m)
		}
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	for _, want := range []struct {
		loops bool
		asked int
	}{{false, 1}, {true, 0}, {false, 1}} {
		loops.Store(want.loops)
		ask(t, f, "www.example.org.")
		f.servers.mu.Lock()
		f.servers.probed = f.servers.probed.Add(-probeAgain)
		f.servers.mu.Unlock()
		var asked int
		for range 200 {
			if asked = len(f.Servers()); asked == want.asked {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if asked != want.asked {
			t.Errorf("asks this one: %t: %d servers are asked, want %d", want.loops, asked, want.asked)
		}
	}
	if got, _ := ask(t, f, "www.example.org."); got != "192.0.2.1" {
		t.Errorf("in the end: %q", got)
	}
}
