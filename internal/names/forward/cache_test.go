package forward

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/names/server"
)

func message(name string, rcode int, rrs ...dns.RR) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Response, m.Rcode = true, rcode
	for _, rr := range rrs {
		if _, ok := rr.(*dns.SOA); ok {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

func a(ttl uint32) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: "x.example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.IPv4(192, 0, 2, 1)}
}

func soa(ttl, minimum uint32) dns.RR {
	return &dns.SOA{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl}, Ns: "a.", Mbox: "b.", Minttl: minimum}
}

// How long each answer is fresh, and how long it can be given when no server answers.
func TestCacheTimes(t *testing.T) {
	for _, tt := range []struct {
		what  string
		m     *dns.Msg
		fresh time.Duration
	}{
		{"an address", message("x.example.org.", 0, a(60)), time.Minute},
		{"the least of two", message("x.example.org.", 0, a(60), a(7)), 7 * time.Second},
		{"a long one", message("x.example.org.", 0, a(86400)), maxTTL},
		{"none", message("x.example.org.", 0, a(0)), 0},
		{"no such name", message("x.example.org.", dns.RcodeNameError, soa(3600, 20)), 20 * time.Second},
		{"no such name for a day", message("x.example.org.", dns.RcodeNameError, soa(86400, 86400)), maxDenied},
		{"no such name, the SOA itself is short", message("x.example.org.", dns.RcodeNameError, soa(4, 86400)), 4 * time.Second},
		{"no data", message("x.example.org.", 0, soa(60, 9)), 9 * time.Second},
		{"nobody says for how long", message("x.example.org.", dns.RcodeNameError), 0},
		{"a bare name", message("nas.", 0, a(3600)), time.Second},
		{"no such bare name", message("nas.", dns.RcodeNameError, soa(86400, 86400)), time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := cache{entries: map[key]*entry{}}
			k := key{tt.m.Question[0].Name, dns.TypeA, server.Flags{}}
			c.put(k, tt.m, time.Now())
			if tt.fresh == 0 {
				if fresh, old := c.get(k, time.Now()); fresh != nil || old != nil {
					t.Errorf("%s: is remembered", tt.what)
				}
				return
			}
			time.Sleep(tt.fresh - 500*time.Millisecond)
			fresh, _ := c.get(k, time.Now())
			if fresh == nil {
				t.Fatalf("%s: is not fresh just before %s", tt.what, tt.fresh)
			}
			for _, rr := range append(fresh.Answer, fresh.Ns...) {
				// What is left of the time to live is less by the age.
				if left := rr.Header().Ttl; tt.fresh < maxDenied && !dns.IsSubDomain("nas.", k.name) && left > 86400-uint32(tt.fresh/time.Second)+1 {
					t.Errorf("%s: %s has its old time to live", tt.what, rr)
				}
			}
			time.Sleep(500 * time.Millisecond)
			fresh, old := c.get(k, time.Now())
			if fresh != nil || old == nil {
				t.Fatalf("%s: after %s: fresh is %v, old is %v", tt.what, tt.fresh, fresh, old)
			}
			for _, rr := range append(old.Answer, old.Ns...) {
				if rr.Header().Ttl != oldTTL {
					t.Errorf("%s: %s is old, and may be remembered for long", tt.what, rr)
				}
			}
			time.Sleep(maxOld)
			if _, old := c.get(k, time.Now()); old != nil || c.bytes != 0 || len(c.entries) != 0 {
				t.Errorf("%s: is given for ever", tt.what)
			}
		})
	}
}

func TestCacheAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache{entries: map[key]*entry{}}
		k := key{name: "x.example.org."}
		c.put(k, message("x.example.org.", 0, a(60)), time.Now())
		time.Sleep(25 * time.Second)
		if fresh, _ := c.get(k, time.Now()); fresh.Answer[0].Header().Ttl != 35 {
			t.Errorf("after 25 of 60 s: %s", fresh.Answer[0])
		}
	})
}

// The cache stays within its bounds, in entries and in bytes.
func TestCacheBounds(t *testing.T) {
	c := cache{entries: map[key]*entry{}}
	now := time.Now()
	for i := range 3 * maxEntries {
		m := message("x.example.org.", 0, a(60))
		if i%2 == 0 {
			for range 100 {
				m.Answer = append(m.Answer, a(60))
			}
		}
		c.put(key{name: fmt.Sprint(i)}, m, now)
		if len(c.entries) > maxEntries || c.bytes > maxBytes || c.bytes <= 0 {
			t.Fatalf("%d entries, %d bytes", len(c.entries), c.bytes)
		}
	}
	huge := message("x.example.org.", 0, a(60))
	for range 1000 {
		huge.Answer = append(huge.Answer, a(60))
	}
	c.put(key{name: "huge"}, huge, now)
	if fresh, _ := c.get(key{name: "huge"}, now); fresh != nil {
		t.Error("a huge answer is remembered")
	}
}

func FuzzReadServers(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a b\noptions ndots:0\n"))
	f.Add([]byte("nameserver\nnameserver x\n\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		all := readServers(path, 53)
		for _, at := range all {
			if !at.IsValid() || len(all) > maxServers {
				t.Errorf("%q names %v", text, all)
			}
		}
	})
}

func FuzzAnswers(f *testing.F) {
	asked := message("x.example.org.", 0)
	for _, m := range []*dns.Msg{message("x.example.org.", 0, a(60)), message("y.", dns.RcodeNameError, soa(1, 1))} {
		m.Id = asked.Id
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := answers(b, asked)
		if m == nil {
			return
		}
		strip(m)
		if life := lifetime(m); life < 0 || life > maxTTL || m.IsEdns0() != nil {
			t.Errorf("%x lives for %s", b, life)
		}
	})
}
