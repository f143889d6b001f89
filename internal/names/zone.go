package names

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Zone is what can be looked up at one moment. It never changes.
type Zone struct {
	domains       []string // in lower case, with a dot behind: "remora.local."
	ttl, negative uint32
	serial        uint32
	names         *table[string, *node]
	reverse       *table[netip.Addr, []string]
	subnets       []subnet
	reachable     []bool // by the number of a host
}

// node is all that there is about one name, without a domain.
type node struct {
	addresses []address
	services  []service
	parent    bool // there are names below it
	gone      bool // it was there a short while ago
}

// there reports whether the name itself can be looked up.
func (n *node) there() bool { return n != nil && (len(n.addresses) > 0 || len(n.services) > 0) }

type address struct {
	netip.Addr
	ip net.IP
	place
}

// service is where something listens: at a port of the addresses of a name.
type service struct {
	port   uint16
	target string
	place
}

// place is where an address is: in a network, 0 is every one, and at a host.
type place struct{ network, host int32 }

type subnet struct {
	netip.Prefix
	network int32
}

// Len is the number of names, without those that only have others below them.
func (z *Zone) Len() (n int) {
	for _, s := range z.names.shards {
		for _, one := range s {
			if one.there() {
				n++
			}
		}
	}
	return n
}

// Contains reports whether an address lies in one of the cluster's networks.
func (z *Zone) Contains(a netip.Addr) bool { return z.network(a) != 0 }

// network returns the number of the network in which an address lies, 0 is none.
func (z *Zone) network(a netip.Addr) int32 {
	for i := range z.subnets {
		if z.subnets[i].Contains(a) {
			return z.subnets[i].network
		}
	}
	return 0
}

// Answer fills m with what the zone knows about q. It returns false, and leaves m alone, if this is a matter of
// others: a name outside the domains that no record has. In the domains a name that is not there does not
// exist, and one that was there a short while ago does not exist without a domain either, since those who still
// ask for it mean ours.
func (z *Zone) Answer(m *dns.Msg, q dns.Question, asker netip.Addr) bool {
	name := strings.ToLower(q.Name)
	if strings.HasSuffix(name, ".arpa.") {
		if a, ok := ReverseAddr(name); ok {
			return z.answerReverse(m, q, a)
		}
		return false
	}
	rel, domain := z.split(name)
	network := z.network(asker)
	if domain == "" {
		n := z.names.get(rel)
		dotted := strings.Contains(rel, ".")
		switch {
		case n.there() && (!dotted || n.certain(network)):
			z.answerNode(m, q, n, network, ".")
			return true
		case n != nil && n.gone && !dotted:
			z.denied(m, dns.RcodeNameError, ".")
			return true
		}
		return false
	}
	n := z.names.get(rel)
	switch {
	case rel == "":
		z.answerApex(m, q, domain)
	case n.there():
		z.answerNode(m, q, n, network, domain)
	case n != nil && n.parent:
		z.denied(m, dns.RcodeSuccess, domain)
	default:
		z.denied(m, dns.RcodeNameError, domain)
	}
	return true
}

// Single reports whether a name has one label only, as it is, and so may be that of a container.
func Single(name string) bool { return name != "." && strings.IndexByte(name, '.') == len(name)-1 }

// split takes the domain off a name. It is empty if the name is in none.
func (z *Zone) split(name string) (rel, domain string) {
	for _, d := range z.domains {
		if under, ok := strings.CutSuffix(name, d); ok {
			if under == "" {
				return "", d
			}
			if rel, ok := strings.CutSuffix(under, "."); ok {
				return rel, d
			}
		}
	}
	return strings.TrimSuffix(name, "."), ""
}

// certain reports whether n is meant by somebody in a network who asks for a name with dots, which may as well be
// one of the world's: a container of another network must not take www.example.org away from this one.
func (n *node) certain(network int32) bool {
	for i := range n.addresses {
		if at := n.addresses[i].network; at == 0 || at == network {
			return true
		}
	}
	for _, s := range n.services {
		if s.network == 0 || s.network == network {
			return true
		}
	}
	return false
}

func (z *Zone) answerNode(m *dns.Msg, q dns.Question, n *node, network int32, domain string) {
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY:
		m.Answer = z.addresses(q.Name, q.Qtype, n, network)
	}
	if q.Qtype == dns.TypeSRV || q.Qtype == dns.TypeANY {
		z.answerServices(m, q, n, network)
	}
	if len(m.Answer) == 0 {
		z.denied(m, dns.RcodeSuccess, domain)
		return
	}
	m.Rcode, m.Authoritative = dns.RcodeSuccess, true
}

// fits reports whether what is at p can be reached by somebody in a network. An asker in no network is the host
// itself or a container beside the cluster's networks, for whom each is as good.
func (z *Zone) fits(p place, network int32) bool {
	return z.reachable[p.host] && (p.network == 0 || network == 0 || p.network == network)
}

// addresses returns those of n in any order. If none fits the asker gets all: one that cannot be
// reached now may be in a moment.
func (z *Zone) addresses(name string, qtype uint16, n *node, network int32) []dns.RR {
	none := true
	for i := 0; none && i < len(n.addresses); i++ {
		none = !z.fits(n.addresses[i].place, network)
	}
	rrs := make([]dns.RR, 0, len(n.addresses))
	v4 := make([]dns.A, 0, len(n.addresses)) // in one piece, for speed
	var told netip.Addr                      // they are in order, and one may be of several networks, or given by hand at several hosts
	for i := range n.addresses {
		a := &n.addresses[i]
		switch {
		case a.Addr == told, !none && !z.fits(a.place, network):
			continue
		case a.Is4() && qtype != dns.TypeAAAA:
			v4 = append(v4, dns.A{Hdr: z.header(name, dns.TypeA), A: a.ip})
			rrs = append(rrs, &v4[len(v4)-1])
		case a.Is6() && qtype != dns.TypeA:
			rrs = append(rrs, &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: a.ip})
		}
		told = a.Addr
	}
	shuffle(rrs)
	return rrs
}

func shuffle(rrs []dns.RR) {
	rand.Shuffle(len(rrs), func(i, j int) { rrs[i], rrs[j] = rrs[j], rrs[i] })
}

func (z *Zone) answerServices(m *dns.Msg, q dns.Question, n *node, network int32) {
	none := true
	for _, s := range n.services {
		none = none && !z.fits(s.place, network)
	}
	type at struct {
		target string
		port   uint16
	}
	told, offered := map[string]bool{}, map[at]bool{}
	var rrs []dns.RR
	for _, s := range n.services {
		if !none && !z.fits(s.place, network) {
			continue
		}
		target := s.target + "." + z.domains[0]
		offer := at{target, s.port}
		if offered[offer] {
			continue // by a container in several networks
		}
		offered[offer] = true
		rrs = append(rrs, &dns.SRV{Hdr: z.header(q.Name, dns.TypeSRV), Weight: 1, Port: s.port, Target: target})
		if at := z.names.get(s.target); !told[target] && at.there() {
			told[target] = true
			m.Extra = append(m.Extra, z.addresses(target, dns.TypeANY, at, network)...)
		}
	}
	shuffle(rrs)
	m.Answer = append(m.Answer, rrs...)
}

func (z *Zone) answerReverse(m *dns.Msg, q dns.Question, a netip.Addr) bool {
	names := z.reverse.get(a)
	zone := "in-addr.arpa."
	if a.Is6() {
		zone = "ip6.arpa."
	}
	switch {
	case len(names) == 0 && !z.Contains(a):
		return false
	case len(names) == 0:
		z.denied(m, dns.RcodeNameError, zone)
	case q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY:
		z.denied(m, dns.RcodeSuccess, zone)
	default:
		for _, n := range names {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: z.header(q.Name, dns.TypePTR), Ptr: n + "." + z.domains[0]})
		}
		m.Rcode, m.Authoritative = dns.RcodeSuccess, true
	}
	return true
}

func (z *Zone) answerApex(m *dns.Msg, q dns.Question, domain string) {
	if q.Qtype != dns.TypeSOA && q.Qtype != dns.TypeANY {
		z.denied(m, dns.RcodeSuccess, domain)
		return
	}
	m.Answer = []dns.RR{z.soa(q.Name)}
	m.Rcode, m.Authoritative = dns.RcodeSuccess, true
}

// Denied fills m with the answer that a name does not exist, of which nobody but this zone knows.
func (z *Zone) Denied(m *dns.Msg) { z.denied(m, dns.RcodeNameError, ".") }

func (z *Zone) denied(m *dns.Msg, rcode int, zone string) {
	m.Rcode, m.Authoritative = rcode, true
	m.Ns = []dns.RR{z.soa(zone)}
}

// soa tells for how long a negative answer holds: the lesser of its own time to live and Minttl (RFC 2308, 5).
func (z *Zone) soa(zone string) dns.RR {
	ns := z.domains[0]
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: z.negative},
		Ns:  "ns." + ns, Mbox: "hostmaster." + ns, Serial: z.serial, Refresh: 60, Retry: 10, Expire: 600, Minttl: z.negative,
	}
}

func (z *Zone) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: z.ttl}
}
