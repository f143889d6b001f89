package names

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestHand(t *testing.T) {
	c, zones, hosts := example(t)
	here, there := NewHand(hosts[0], []string{"remora.local", "corp.example"}), NewHand(hosts[1], nil)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		zones.Refresh()
	}
	check := func(want string) {
		t.Helper()
		if got := look(zones.Zone(), inRed, "printer", "A"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	ok(here.Add("Printer.Remora.Local.", addrs("192.0.2.1 ::ffff:192.0.2.2")))
	check("NOERROR 192.0.2.1 192.0.2.2")
	ok(here.Add("printer", addrs("192.0.2.3 192.0.2.1"))) // again
	ok(there.Add("printer", addrs("192.0.2.9")))
	check("NOERROR 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.9")
	ok(here.Remove("printer.corp.example", addrs("192.0.2.1 192.0.2.250")...))
	check("NOERROR 192.0.2.2 192.0.2.3 192.0.2.9")
	ok(here.Remove("printer"))
	check("NOERROR 192.0.2.9")

	err := here.Remove("printer")
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(strings.Join(errdefs.Hints(err), " "), hosts[1].Self().Short()) {
		t.Errorf("removed at the wrong host: %v, %q", err, errdefs.Hints(err))
	}
	if err := here.Remove("nyc"); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != `name "nyc": was not given by hand` {
		t.Errorf("a container's name: %v", err)
	}
	for _, tt := range []struct {
		name, addresses string
	}{
		{"", "192.0.2.1"},
		{"remora.local", ""},
		{"a..b", "192.0.2.1"},
		{"x", ""},
		{"x", "0.0.0.0"},
		{"x", "224.0.0.1"},
		{"x", "fe80::1%eth0"},
		{"a b", "192.0.2.1"},
		{"-a", "192.0.2.1"},
		{strings.Repeat("a", 64), "192.0.2.1"},
		{strings.Repeat("a.", 100), "192.0.2.1"},
		{"über", "192.0.2.1"},
	} {
		if err := here.Add(tt.name, addrs(tt.addresses)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q %s: %v", tt.name, tt.addresses, err)
		}
	}
	var many []netip.Addr
	for i := range maxByHand + 1 {
		many = append(many, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
	}
	if err := here.Add("many", many); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	ok(here.Add("many", many[:maxByHand])) // it fits into a record

	all, err := List(c.Records(record.KindName))
	ok(err)
	i := slices.IndexFunc(all, func(k Known) bool { return k.Name == "printer" })
	if diff := cmp.Diff(Known{Name: "printer", Addresses: addrs("192.0.2.9"), Host: hosts[1].Self(), ByHand: true}, all[i], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestDNSArgs(t *testing.T) {
	got := strings.Join(DNSArgs(addrs("10.32.0.1 fd00::1"), Search("remora.local", []string{"LAN.", "remora.local", "bad..one"})), " ")
	if want := "--dns=10.32.0.1 --dns=fd00::1 --dns-search=remora.local --dns-search=lan"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClean(t *testing.T) {
	if d, err := Clean(".Weave.Local."); err != nil || d != "weave.local" {
		t.Errorf("%q, %v", d, err)
	}
	for _, d := range []string{"", ".", "a..b", "a b", strings.Repeat("a.", 50) + "a"} {
		if _, err := Clean(d); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

func FuzzReverseAddr(f *testing.F) {
	f.Add("2.0.32.10.in-addr.arpa.")
	f.Add("02.0.32.10.in-addr.arpa.")
	f.Add("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.d.f.ip6.arpa.")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := ReverseAddr(name)
		if !ok {
			return
		}
		back := ""
		for _, b := range a.AsSlice() {
			if a.Is4() {
				back = fmt.Sprintf("%d.", b) + back
			} else {
				back = fmt.Sprintf("%x.%x.", b&15, b>>4) + back
			}
		}
		if back += map[bool]string{true: "in-addr.arpa.", false: "ip6.arpa."}[a.Is4()]; back != name {
			t.Errorf("%q is %s, whose name is %q", name, a, back)
		}
	})
}

func FuzzServices(f *testing.F) {
	f.Add("_http._tcp 80, _metrics._tcp 9090")
	f.Add("_._tcp 1,,")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range Services(text) {
			if s.Port == 0 || !strings.HasPrefix(s.Name, "_") || !valid(s.Name) {
				t.Errorf("%q has %v", text, s)
			}
		}
	})
}

func large(b *testing.B, n int) (*cluster, *host) {
	c := newCluster()
	h := c.host(1)
	h.network(b, "blue", "b1", "10.32.0.0/16")
	for i := range n {
		h.container(b, fmt.Sprintf("%064d", i), "b1", fmt.Sprintf("10.32.%d.%d", i>>8, i&255), fmt.Sprint("name", i), fmt.Sprint("service", i%100), fmt.Sprintf("%012d", i))
	}
	return c, h
}

// BenchmarkFirstZone reads 10,000 records that nobody has read.
func BenchmarkFirstZone(b *testing.B) {
	c, _ := large(b, 10_000)
	names, networks := c.Records(record.KindName), c.Records(record.KindNetwork)
	for b.Loop() {
		newBuilder(Config{}, c.start()).update(names, networks, reach{c}.Reachable, c.start())
	}
}

// BenchmarkNextZone makes the next zone of 10,000 when one has changed.
func BenchmarkNextZone(b *testing.B) {
	c, h := large(b, 10_000)
	build := newBuilder(Config{}, c.start())
	build.update(c.Records(record.KindName), c.Records(record.KindNetwork), reach{c}.Reachable, c.start())
	var sets [2][]record.Record
	for i := range sets {
		h.container(b, fmt.Sprintf("%064d", 77), "b1", fmt.Sprintf("10.32.200.%d", i), "name77", "changing")
		sets[i] = c.Records(record.KindName)
	}
	networks, i := c.Records(record.KindNetwork), 0
	for b.Loop() {
		build.update(sets[i%2], networks, reach{c}.Reachable, c.start())
		i++
	}
}

func BenchmarkAnswer(b *testing.B) {
	c, _ := large(b, 10_000)
	z := New(Config{}, c, reach{c}).Zone()
	b.ReportAllocs()
	for b.Loop() {
		if got := look(z, inBlue, "name4711.remora.local", "A"); got == "" {
			b.Fatal(got)
		}
	}
}
