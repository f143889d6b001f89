package network

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/sdk/network"
)

// TestClaimed has an address of Swarm at the host that has it: a host that is lost, and who had it earlier, do not count.
func TestClaimed(t *testing.T) {
	a, b, c := record.Host{1}, record.Host{2}, record.Host{3}
	at := netip.MustParseAddr("10.0.1.4")
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	claim := func(h record.Host, since time.Duration) record.Record {
		body, err := json.Marshal(record.Claim{Network: "n", Address: at, Since: noon.Add(since)})
		if err != nil {
			t.Fatal(err)
		}
		return record.Record{Key: record.Key{Writer: h, Kind: record.KindClaim, Name: "id 10.0.1.4"}, Body: body}
	}
	broken := record.Record{Key: record.Key{Writer: c, Kind: record.KindClaim, Name: "id x"}, Body: []byte("{")}
	for _, tt := range []struct {
		name   string
		claims []record.Record
		lost   record.Host
		want   record.Host
	}{
		{"one", []record.Record{claim(a, 0), broken}, record.Host{}, a},
		{"the later one", []record.Record{claim(b, time.Hour), claim(a, 0)}, record.Host{}, b},
		{"the later one, the other way round", []record.Record{claim(a, 0), claim(b, time.Hour)}, record.Host{}, b},
		{"the later one is lost", []record.Record{claim(a, 0), claim(b, time.Hour)}, b, a},
		{"the only one is lost", []record.Record{claim(b, 0)}, b, b},
	} {
		got := claimed(tt.claims, map[string]record.Swarm{"n": {}}, func(h record.Host) bool { return h != tt.lost })
		want := []plan.Block{{Network: "n", Prefix: netip.PrefixFrom(at, 32), Host: tt.want}}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	if got := claimed([]record.Record{claim(a, 0)}, map[string]record.Swarm{"other": {}}, func(record.Host) bool { return true }); len(got) != 0 {
		t.Errorf("an address of a network that is not there: %v", got)
	}
}

// TestMadeAnew: a network that Swarm has made anew while a host was lost counts on who has it, and not the former one, of which the
// lost host tells still; nor does that keep others from it.
func TestMadeAnew(t *testing.T) {
	here, lost, third := record.Host{1}, record.Host{2}, record.Host{3}
	subnet, other := netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("10.78.0.0/24")
	told := func(h record.Host, id string, p netip.Prefix) record.Record {
		body, err := json.Marshal(record.Swarm{Network: record.Network{ID: id, Subnets: []netip.Prefix{p}}})
		if err != nil {
			t.Fatal(err)
		}
		return record.Record{Key: record.Key{Writer: h, Kind: record.KindSwarm, Name: id}, Body: body}
	}
	broken := record.Record{Key: record.Key{Writer: third, Kind: record.KindSwarm, Name: "x"}, Body: []byte("{")}
	former, apart := told(lost, "former", subnet), told(lost, "apart", other)
	all := []record.Record{former, apart, told(here, "new", subnet), told(third, "new", subnet), broken}
	for _, tt := range []struct {
		name string
		self record.Host
		all  []record.Record
		want []record.Record
	}{
		{"who has the new one", here, all, []record.Record{apart, all[2], all[3], broken}},
		{"who has the former one", lost, all, []record.Record{former, apart, broken}},
		{"who has none", record.Host{4}, all, all},
		{"alone", here, []record.Record{former, apart}, []record.Record{former, apart}},
	} {
		if diff := cmp.Diff(tt.want, current(slices.Clone(tt.all), tt.self), cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	reachable := func(h record.Host) bool { return h != lost }
	if got := taken(all[:2], "new", reachable); len(got) != 0 {
		t.Errorf("a host that is lost keeps %v", got)
	}
	want := map[netip.Prefix]record.Host{subnet: lost, other: lost}
	if diff := cmp.Diff(want, taken(all, "new", func(record.Host) bool { return true }), cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Errorf("when it is back: %s", diff)
	}
}

// TestSwarmID is the same on all hosts, and fit for names of links.
func TestSwarmID(t *testing.T) {
	const id = "lrt6ngktxg98km5stjtgzt359"
	if got := swarmID(id); got != swarmID(id) || len(got) != 16 || got == swarmID(id[:24]) {
		t.Errorf("%q", got)
	}
}

// TestScope is what engines are told.
func TestScope(t *testing.T) {
	for asked, want := range map[network.Scope]network.Scope{"": network.Local, network.Local: network.Local, network.Global: network.Global} {
		scope, reach := driver{&Service{o: Options{Scope: asked}}}.Scope()
		if scope != want || reach != network.Global {
			t.Errorf("%q: %q, %q", asked, scope, reach)
		}
	}
}
