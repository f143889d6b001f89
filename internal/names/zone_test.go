package names

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// cluster is what all hosts hold: signed records, in memory.
type cluster struct {
	mu       sync.Mutex
	records  map[record.Key]record.Record
	counter  uint64
	away     map[record.Host]bool
	watchers []chan struct{}
}

func newCluster() *cluster {
	return &cluster{records: map[record.Key]record.Record{}, away: map[record.Host]bool{}}
}

func (c *cluster) Records(kind string) (all []record.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.records {
		if r.Kind == kind && !r.Deleted {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b record.Record) int {
		if o := strings.Compare(a.Name, b.Name); o != 0 {
			return o
		}
		return a.Writer.Compare(b.Writer)
	})
	return all
}

func (c *cluster) Watch(...string) (<-chan struct{}, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := make(chan struct{}, 1)
	c.watchers = append(c.watchers, w)
	return w, func() {}
}

// reach tells who of a cluster can be reached.
type reach struct{ c *cluster }

func (h reach) Watch() (<-chan struct{}, func()) { return h.c.Watch() }

func (h reach) Reachable(o record.Host) bool {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	return !h.c.away[o]
}

func (c *cluster) cut(h record.Host, away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away[h] = away
	c.tell()
}

func (c *cluster) tell() {
	for _, w := range c.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// host writes records of its own.
type host struct {
	*cluster
	key ed25519.PrivateKey
}

func (c *cluster) host(n byte) *host {
	return &host{c, ed25519.NewKeyFromSeed(slices.Repeat([]byte{n}, ed25519.SeedSize))}
}

func (h *host) Self() record.Host { return record.Host(h.key.Public().(ed25519.PublicKey)) }

func (h *host) Put(kind, name string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return h.write(record.Record{Key: record.Key{Kind: kind, Name: name}, Body: text})
}

func (h *host) Delete(kind, name string) error {
	return h.write(record.Record{Key: record.Key{Kind: kind, Name: name}, Deleted: true})
}

func (h *host) write(r record.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counter++
	r.Cluster, r.Version, r.Written = record.Cluster{1}, record.Version{Incarnation: 1, Counter: h.counter}, time.Now()
	r, err := record.Sign(r, h.key)
	if err == nil {
		h.records[r.Key] = r
		h.tell()
	}
	return err
}

func (h *host) container(t testing.TB, id, network string, addresses string, names ...string) {
	t.Helper()
	body := record.Name{Network: network, Names: names, Addresses: addrs(addresses), Container: id}
	if err := h.Put(record.KindName, "docker/"+id+"/"+network, body); err != nil {
		t.Fatal(err)
	}
}

func (h *host) network(t testing.TB, name, id string, subnets ...string) {
	t.Helper()
	n := record.Network{ID: id, Created: time.Unix(1, 0)}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	if err := h.Put(record.KindNetwork, name, n); err != nil {
		t.Fatal(err)
	}
}

func addrs(text string) (all []netip.Addr) {
	for f := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParseAddr(f))
	}
	return all
}

// look asks a zone, and returns the answer in a line: rcode, or "?" if it is for others, and the data in order.
func look(z *Zone, asker, name, qtype string) string {
	m := new(dns.Msg)
	q := dns.Question{Name: dns.Fqdn(name), Qtype: dns.StringToType[qtype], Qclass: dns.ClassINET}
	if !z.Answer(m, q, netip.MustParseAddr(asker)) {
		return "?"
	}
	var data []string
	for _, rr := range m.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(data)
	return strings.Join(append([]string{dns.RcodeToString[m.Rcode]}, data...), " ")
}

const (
	inBlue = "10.32.0.9"
	inRed  = "10.33.0.9"
	local  = "127.0.0.1"
)

// two networks, three hosts.
func example(t testing.TB) (*cluster, *Zones, [3]*host) {
	c := newCluster()
	three := [3]*host{c.host(1), c.host(2), c.host(3)}
	a, b := three[0], three[1]
	a.network(t, "blue", "b1", "10.32.0.0/16", "fd00:32::/64")
	a.network(t, "red", "r1", "10.33.0.0/16")
	a.container(t, "c1", "b1", "10.32.0.2 fd00:32::2", "nyc", "web", "web.shop")
	b.container(t, "c2", "b1", "10.32.1.2", "lon", "web")
	b.container(t, "c3", "r1", "10.33.1.3", "web", "www.example.org", "only-red")
	if err := three[2].Put(record.KindName, "hand/db.prod", record.Name{Names: []string{"db.prod"}, Addresses: addrs("192.0.2.7")}); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(record.KindName, "docker/c4/b1", record.Name{Network: "b1", Names: []string{"api-2", "api"}, Addresses: addrs("10.32.1.4"), Service: "_http._tcp 8080, _x 9, _http._tcp 0"}); err != nil {
		t.Fatal(err)
	}
	if err := a.Put(record.KindName, "docker/c5/b1", record.Name{Network: "b1", Names: []string{"api-1", "api"}, Addresses: addrs("10.32.0.5"), Service: "_http._tcp 80"}); err != nil {
		t.Fatal(err)
	}
	return c, New(Config{Domains: []string{"remora.local", "corp.example"}}, c, reach{c}), three
}

func TestAnswers(t *testing.T) {
	_, zones, _ := example(t)
	for _, tt := range []struct{ asker, name, qtype, want string }{
		{inBlue, "nyc", "A", "NOERROR 10.32.0.2"},
		{inBlue, "NYC.Remora.Local", "A", "NOERROR 10.32.0.2"},
		{inBlue, "nyc.corp.example", "AAAA", "NOERROR fd00:32::2"},
		{inBlue, "lon", "AAAA", "NOERROR"}, // never NXDOMAIN: Alpine would give up
		{inBlue, "lon", "MX", "NOERROR"},
		{inBlue, "lon", "HTTPS", "NOERROR"},
		{inBlue, "web", "A", "NOERROR 10.32.0.2 10.32.1.2"},
		{inRed, "web", "A", "NOERROR 10.33.1.3"},
		{local, "web", "A", "NOERROR 10.32.0.2 10.32.1.2 10.33.1.3"},
		{"fd00:32::9", "web", "A", "NOERROR 10.32.0.2 10.32.1.2"},
		{inRed, "nyc", "A", "NOERROR 10.32.0.2"}, // all rather than nothing
		{inRed, "nyc", "AAAA", "NOERROR fd00:32::2"},
		{inBlue, "web", "ANY", "NOERROR 10.32.0.2 10.32.1.2 fd00:32::2"},
		{inBlue, "web.shop", "A", "NOERROR 10.32.0.2"},
		{inBlue, "web.shop.remora.local", "A", "NOERROR 10.32.0.2"},
		{inBlue, "shop.remora.local", "A", "NOERROR"}, // there is a name below it
		{inBlue, "shop", "A", "?"},
		{inBlue, "prod.remora.local", "AAAA", "NOERROR"},
		{inBlue, "db.prod", "A", "NOERROR 192.0.2.7"},
		{local, "db.prod", "A", "NOERROR 192.0.2.7"},
		{inBlue, "db.prod.remora.local", "A", "NOERROR 192.0.2.7"},
		{inRed, "www.example.org", "A", "NOERROR 10.33.1.3"},
		{inBlue, "www.example.org", "A", "?"}, // an alias in red takes nothing away in blue
		{local, "www.example.org", "A", "?"},
		{inBlue, "www.example.org.remora.local", "A", "NOERROR 10.33.1.3"},
		{inBlue, "nothing.remora.local", "A", "NXDOMAIN"},
		{inBlue, "nothing.corp.example", "AAAA", "NXDOMAIN"},
		{inBlue, "nothing", "A", "?"},
		{inBlue, "remora.local", "A", "NOERROR"},
		{inBlue, "remora.local", "SOA", "NOERROR ns.remora.local. hostmaster.remora.local. SERIAL 60 10 600 1"},
		{inBlue, "xremora.local", "A", "?"},
		{inBlue, "example.org", "A", "?"},
		{inBlue, ".", "NS", "?"},
		{inBlue, "2.0.32.10.in-addr.arpa", "PTR", "NOERROR nyc.remora.local."},
		{inBlue, "2.0.32.10.in-addr.arpa", "A", "NOERROR"},
		{inBlue, "3.0.32.10.in-addr.arpa", "PTR", "NXDOMAIN"},
		{inBlue, "7.2.0.192.in-addr.arpa", "PTR", "NOERROR db.prod.remora.local."},
		{inBlue, "8.8.8.8.in-addr.arpa", "PTR", "?"},
		{inBlue, "32.10.in-addr.arpa", "PTR", "?"},
		{inBlue, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.d.f.ip6.arpa", "PTR", "NOERROR nyc.remora.local."},
		{inBlue, "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.d.f.ip6.arpa", "PTR", "NXDOMAIN"},
		{inBlue, "_http._tcp.api.remora.local", "SRV", "NOERROR 0 1 80 api-1.remora.local. 0 1 8080 api-2.remora.local."},
		{inBlue, "_http._tcp.api-1", "SRV", "NOERROR 0 1 80 api-1.remora.local."},
		{inBlue, "_http._tcp.remora.local", "SRV", "NOERROR 0 1 80 api-1.remora.local. 0 1 8080 api-2.remora.local."},
		{inBlue, "_tcp.api.remora.local", "SRV", "NOERROR"},
		{inBlue, "_http._tcp.nyc.remora.local", "SRV", "NXDOMAIN"},
		{inBlue, "_http._tcp.api.remora.local", "A", "NOERROR"},
	} {
		got := look(zones.Zone(), tt.asker, tt.name, tt.qtype)
		got = strings.Replace(got, fmt.Sprint(zones.Zone().serial), "SERIAL", 1)
		if got != tt.want {
			t.Errorf("%s asks for %s %s: %q, want %q", tt.asker, tt.name, tt.qtype, got, tt.want)
		}
	}
	if n := zones.Zone().Len(); n != 14 {
		t.Errorf("%d names", n)
	}
}

// What every answer has beside its data.
func TestTTLs(t *testing.T) {
	c, _, _ := example(t)
	z := New(Config{TTL: 3500 * time.Millisecond, Negative: time.Millisecond}, c, reach{c}).Zone()
	m := new(dns.Msg)
	z.Answer(m, dns.Question{Name: "_http._tcp.api.", Qtype: dns.TypeSRV, Qclass: dns.ClassINET}, netip.MustParseAddr(inBlue))
	if len(m.Answer) != 2 || len(m.Extra) != 2 || !m.Authoritative {
		t.Fatalf("answer is %s", m)
	}
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		if rr.Header().Ttl != 4 {
			t.Errorf("the time to live of %s is not 4", rr)
		}
	}
	m = new(dns.Msg)
	z.Answer(m, dns.Question{Name: "x.remora.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, netip.MustParseAddr(inBlue))
	if soa, ok := m.Ns[0].(*dns.SOA); !ok || soa.Minttl != 1 || soa.Hdr.Ttl != 1 || soa.Hdr.Name != "remora.local." {
		t.Errorf("the SOA is %s", m.Ns[0])
	}
}

// Of a host that cannot be reached nothing is told, unless nothing else is left.
func TestUnreachable(t *testing.T) {
	c, zones, hosts := example(t)
	c.cut(hosts[1].Self(), true)
	zones.Refresh()
	for name, want := range map[string]string{
		"web":            "NOERROR 10.32.0.2",
		"lon":            "NOERROR 10.32.1.2",
		"api":            "NOERROR 10.32.0.5",
		"_http._tcp.api": "NOERROR",
	} {
		if got := look(zones.Zone(), inBlue, name, "A"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := look(zones.Zone(), inBlue, "_http._tcp.api", "SRV"); got != "NOERROR 0 1 80 api-1.remora.local." {
		t.Errorf("services: %q", got)
	}
	// An address of the family asked for is not told if the name has one of the other that is right.
	hosts[1].container(t, "c9", "b1", "fd00:32::9", "nyc")
	zones.Refresh()
	c.cut(hosts[0].Self(), true)
	c.cut(hosts[1].Self(), false)
	zones.Refresh()
	if got := look(zones.Zone(), inBlue, "nyc", "A"); got != "NOERROR" {
		t.Errorf("nyc: %q", got)
	}
}

func TestShuffled(t *testing.T) {
	c := newCluster()
	h := c.host(1)
	for i := range 5 {
		h.container(t, fmt.Sprint("c", i), "b1", fmt.Sprint("10.32.0.", i), "web")
	}
	z, first := New(Config{}, c, reach{c}).Zone(), map[string]int{}
	for range 1000 {
		m := new(dns.Msg)
		z.Answer(m, dns.Question{Name: "web.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, netip.MustParseAddr(local))
		if len(m.Answer) != 5 {
			t.Fatalf("answer is %s", m)
		}
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	for a, n := range first {
		if n < 100 || n > 300 {
			t.Errorf("%s came first %d times of 1000", a, n)
		}
	}
	if len(first) != 5 {
		t.Errorf("first came only %v", first)
	}
}

// A name is gone the moment its record is, and for a while is not looked for elsewhere.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, zones, hosts := example(t)
		old := zones.Zone()
		if err := hosts[0].Delete(record.KindName, "docker/c1/b1"); err != nil {
			t.Fatal(err)
		}
		zones.Refresh()
		check := func(name, want string) {
			t.Helper()
			if got := look(zones.Zone(), inBlue, name, "A"); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		check("nyc", "NXDOMAIN")
		check("nyc.remora.local", "NXDOMAIN")
		check("web", "NOERROR 10.32.1.2")
		check("web.shop", "?")
		check("shop.remora.local", "NXDOMAIN")
		check("2.0.32.10.in-addr.arpa", "NXDOMAIN")
		if got := look(old, inBlue, "nyc", "A"); got != "NOERROR 10.32.0.2" {
			t.Errorf("the zone before has changed: %q", got)
		}
		hosts[1].container(t, "c1", "b1", "10.32.1.77", "nyc")
		zones.Refresh()
		check("nyc", "NOERROR 10.32.1.77")
		if err := hosts[1].Delete(record.KindName, "docker/c1/b1"); err != nil {
			t.Fatal(err)
		}
		zones.Refresh()
		time.Sleep(remembered - time.Second)
		zones.Refresh()
		check("nyc", "NXDOMAIN")
		time.Sleep(time.Second)
		zones.Refresh()
		check("nyc", "?")
		check("nyc.remora.local", "NXDOMAIN")
	})
}

// Run makes one zone of a burst, and is quick about one change.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, zones, hosts := example(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { zones.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		time.Sleep(time.Second)
		before := zones.Zone().serial
		hosts[0].container(t, "n0", "b1", "10.32.0.100", "new")
		synctest.Wait()
		if got := look(zones.Zone(), inBlue, "new", "A"); got != "NOERROR 10.32.0.100" {
			t.Errorf("at once after the record: %q", got)
		}
		for i := range 200 {
			hosts[0].container(t, fmt.Sprint("n", i), "b1", "10.32.0.100", fmt.Sprint("new", i))
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(2 * pause)
		if got := look(zones.Zone(), inBlue, "new199", "A"); got != "NOERROR 10.32.0.100" {
			t.Errorf("after a burst: %q", got)
		}
		if n := zones.Zone().serial - before; n > 4 {
			t.Errorf("%d zones were made of a burst of 20 ms", n)
		}
		c.cut(hosts[0].Self(), true)
		time.Sleep(2 * pause)
		if got := look(zones.Zone(), inBlue, "web", "A"); got != "NOERROR 10.32.1.2" {
			t.Errorf("after a host is away: %q", got)
		}
	})
}

// slow takes 5 ms to tell the records of a kind.
type slow struct{ *cluster }

func (s slow) Records(kind string) []record.Record {
	time.Sleep(5 * time.Millisecond)
	return s.cluster.Records(kind)
}

// However often something changes, zones take a twentieth of the time.
func TestRunIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, hosts := example(t)
		zones := New(Config{}, slow{c}, reach{c})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { zones.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		time.Sleep(time.Second)
		before := zones.Zone().serial
		for i := range 1000 {
			hosts[0].container(t, fmt.Sprint("n", i%10), "b1", fmt.Sprintf("10.32.100.%d", i%250), "new")
			time.Sleep(time.Millisecond)
		}
		if n := zones.Zone().serial - before; n < 4 || n > 6 {
			t.Errorf("%d zones of 10 ms were made within a second", n)
		}
	})
}

// A record that says nonsense harms nobody, and is counted once.
func TestBadRecords(t *testing.T) {
	_, zones, hosts := example(t)
	for i, body := range []any{"text", record.Name{Names: []string{"..", "-x", "fine"}, Addresses: addrs("10.32.0.9")}, map[string]any{"names": 5}} {
		if err := hosts[2].Put(record.KindName, fmt.Sprint("bad", i), body); err != nil {
			t.Fatal(err)
		}
	}
	zones.Refresh()
	zones.Refresh()
	if zones.Bad() != 3 {
		t.Errorf("%d bad records", zones.Bad())
	}
	if got := look(zones.Zone(), inBlue, "fine", "A"); got != "NOERROR 10.32.0.9" {
		t.Errorf("fine: %q", got)
	}
	for i := range 3 {
		if err := hosts[2].Delete(record.KindName, fmt.Sprint("bad", i)); err != nil {
			t.Fatal(err)
		}
	}
	zones.Refresh()
	if zones.Bad() != 0 {
		t.Errorf("%d bad records are left", zones.Bad())
	}
}

// However the records came about, the zone is that of the records that there are.
func TestIncremental(t *testing.T) {
	c, zones, hosts := example(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)).IntN
	for range 300 {
		h, id := hosts[random(3)], fmt.Sprint("c", random(6))
		if random(3) == 0 {
			if err := h.Delete(record.KindName, "docker/"+id+"/b1"); err != nil {
				t.Fatal(err)
			}
		} else {
			h.container(t, id, "b1", fmt.Sprint("10.32.0.", random(4)+1), fmt.Sprint("n", random(4)), fmt.Sprintf("n%d.m%d", random(3), random(3)))
		}
		if random(2) == 0 {
			zones.Refresh()
		}
	}
	zones.Refresh()
	fresh := New(Config{Domains: []string{"remora.local"}}, c, reach{c}).Zone()
	for i := range 4 {
		for _, name := range []string{"n%d", "m%d.remora.local", "n1.m%d", "%d.0.32.10.in-addr.arpa"} {
			name, qtype := fmt.Sprintf(name, i), "A"
			if strings.HasSuffix(name, "arpa") {
				qtype = "PTR"
			}
			got, want := look(zones.Zone(), inBlue, name+dotted(name), qtype), look(fresh, inBlue, name+dotted(name), qtype)
			if got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
	if diff := cmp.Diff(fresh.Len(), zones.Zone().Len()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// dotted keeps names that are gone out of the comparison: a fresh zone does not remember them.
func dotted(name string) string {
	if strings.Contains(name, ".") {
		return ""
	}
	return ".remora.local"
}

func (c *cluster) start() time.Time { return time.Unix(1_800_000_000, 0) }
