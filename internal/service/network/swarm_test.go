package network

import (
	"encoding/json"
	"net/netip"
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
		got := claimed(tt.claims, func(h record.Host) bool { return h != tt.lost })
		want := []plan.Block{{Network: "n", Prefix: netip.PrefixFrom(at, 32), Host: tt.want}}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
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
