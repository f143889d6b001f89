package forward

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The first server knows names that the second one, which answers faster at times, has never heard of.
func TestSplit(t *testing.T) {
	slowly := func(w dns.ResponseWriter, m *dns.Msg) {
		if name := m.Question[0].Name; !strings.HasPrefix(name, "quick.") {
			time.Sleep(2 * hedge)
		}
		says("192.0.2.1", 0)(w, m)
	}
	world := func(w dns.ResponseWriter, m *dns.Msg) {
		if strings.HasSuffix(m.Question[0].Name, ".corp.") {
			rcode(dns.RcodeNameError)(w, m)
			return
		}
		says("192.0.2.2", 0)(w, m)
	}
	f, _, _ := start(t, slowly, world)
	for _, q := range []struct{ name, want string }{
		{"slow.corp.", "192.0.2.1"},       // a denial that comes first does not count
		{"www.example.org.", "192.0.2.2"}, // any other answer does
		{"quick.corp.", "192.0.2.1"},      // and the first is still the first
		{"slower.corp.", "192.0.2.1"},
	} {
		if got, took := ask(t, f, q.name); got != q.want || took > attempt {
			t.Errorf("%s: %q after %s, want %q", q.name, got, took, q.want)
		}
	}
}

// A denial by the second server is the answer when the first one has none.
func TestSplitDenied(t *testing.T) {
	for what, first := range map[string]answer{"silent": silent, "fails late": func(w dns.ResponseWriter, m *dns.Msg) {
		time.Sleep(2 * hedge)
		rcode(dns.RcodeServerFailure)(w, m)
	}} {
		t.Run(what, func(t *testing.T) {
			f, _, _ := start(t, first, rcode(dns.RcodeNameError))
			if got, took := ask(t, f, "www.example.org."); got != "NXDOMAIN" || took > attempt+hedge {
				t.Errorf("%q after %s", got, took)
			}
		})
	}
}
