package forward

import (
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/names"
)

// The limits of what is remembered.
const (
	maxEntries = 4096
	maxBytes   = 8 << 20
	maxMessage = 4 << 10
	maxTTL     = 5 * time.Minute
	maxDenied  = 30 * time.Second // that there is nothing
	maxSingle  = time.Second      // about a name without a dot, which a container may get
	maxOld     = time.Hour        // after its time, if no server answers
	oldTTL     = 5                // seconds, of an answer that is past its time
)

// cache remembers answers.
type cache struct {
	mu      sync.Mutex
	entries map[key]*entry
	bytes   int
}

type entry struct {
	reply   *dns.Msg
	size    int
	at      time.Time
	expires time.Time
}

// get returns a copy of what is remembered, with the times to live that are left: fresh, or old if it is
// past its time.
func (c *cache) get(k key, now time.Time) (fresh, old *dns.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[k]
	switch {
	case e == nil:
		return nil, nil
	case now.Sub(e.expires) >= maxOld:
		c.drop(k, e)
		return nil, nil
	case now.Before(e.expires):
		age := uint32(now.Sub(e.at) / time.Second)
		return aged(e.reply, func(ttl uint32) uint32 { return max(ttl, age) - age }), nil
	}
	return nil, aged(e.reply, func(uint32) uint32 { return oldTTL })
}

// aged returns a copy of m with other times to live.
func aged(m *dns.Msg, ttl func(uint32) uint32) *dns.Msg {
	m = m.Copy()
	for _, part := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range part {
			rr.Header().Ttl = ttl(rr.Header().Ttl)
		}
	}
	return m
}

func (c *cache) put(k key, m *dns.Msg, now time.Time) {
	strip(m)
	life := lifetime(m)
	size := m.Len()
	if names.Single(k.name) {
		life = min(life, maxSingle)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[k]; e != nil {
		c.drop(k, e)
	}
	if life <= 0 || size > maxMessage {
		return
	}
	for other, e := range c.entries { // in no order
		if len(c.entries) < maxEntries && c.bytes+size <= maxBytes {
			break
		}
		c.drop(other, e)
	}
	c.entries[k] = &entry{m, size, now, now.Add(life)}
	c.bytes += size
}

func (c *cache) drop(k key, e *entry) {
	delete(c.entries, k)
	c.bytes -= e.size
}

// strip takes out of an answer what is between two servers alone.
func strip(m *dns.Msg) {
	kept := m.Extra[:0]
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			kept = append(kept, rr)
		}
	}
	m.Extra = kept
}

// lifetime returns for how long an answer may be remembered.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated {
		return 0
	}
	denied := m.Rcode == dns.RcodeNameError || len(m.Answer) == 0
	life, most := maxTTL, maxTTL
	if denied {
		most = 0 // without a SOA nobody said for how long (RFC 2308, 5)
	}
	for _, part := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range part {
			life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
			if soa, ok := rr.(*dns.SOA); ok && denied {
				most = min(maxDenied, time.Duration(soa.Minttl)*time.Second)
			}
		}
	}
	return min(life, most)
}
