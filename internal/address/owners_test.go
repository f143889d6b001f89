package address

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

func give(writer int, prefix string, serial uint64, to int) grant {
	return grant{record.Grant{Prefix: pfx(prefix), Serial: serial, To: hostNumber(to)}, hostNumber(writer)}
}

func TestOwners(t *testing.T) {
	taken := func(g grant, from, rank int) grant {
		g.From, g.Rank = hostNumber(from), rank
		return g
	}
	for name, tt := range map[string]struct {
		grants    []grant
		want      map[string]int
		conflicts int
	}{
		"nobody gave": {nil, map[string]int{"10.0.0.0/16": 0}, 0},
		"half, and half of that": {
			[]grant{give(0, "10.0.128.0/17", 1, 1), give(1, "10.0.192.0/18", 2, 2)},
			map[string]int{"10.0.0.0/17": 0, "10.0.128.0/18": 1, "10.0.192.0/18": 2},
			0,
		},
		"back and to another": {
			[]grant{give(0, "10.0.128.0/17", 1, 1), give(1, "10.0.128.0/17", 2, 0), give(0, "10.0.0.0/16", 3, 2)},
			map[string]int{"10.0.0.0/16": 2},
			0,
		},
		"not its own": {
			[]grant{give(1, "10.0.1.0/24", 1, 1), give(0, "10.0.2.0/24", 1, 2), give(0, "10.0.2.0/24", 2, 3)},
			map[string]int{"10.0.0.0/23": 0, "10.0.2.0/24": 2, "10.0.3.0/24": 0, "10.0.4.0/22": 0, "10.0.8.0/21": 0, "10.0.16.0/20": 0, "10.0.32.0/19": 0, "10.0.64.0/18": 0, "10.0.128.0/17": 0},
			2,
		},
		"a serial that is too low": {
			[]grant{give(0, "10.0.0.0/16", 1, 1), give(1, "10.0.0.0/16", 1, 2)},
			map[string]int{"10.0.0.0/16": 1},
			1,
		},
		"a step is missing": {
			[]grant{give(1, "10.0.128.0/17", 2, 2)}, map[string]int{"10.0.0.0/16": 0}, 1,
		},
		"takeover, and what the removed host gave comes late": {
			[]grant{give(0, "10.0.128.0/17", 1, 1), taken(give(2, "10.0.128.0/17", 2, 2), 1, 1), give(1, "10.0.128.0/18", 2, 3)},
			map[string]int{"10.0.0.0/17": 0, "10.0.128.0/17": 2},
			1,
		},
		"two take over": {
			[]grant{taken(give(2, "10.0.0.0/16", 1, 2), 0, 1), taken(give(3, "10.0.0.0/16", 1, 3), 0, 2)},
			map[string]int{"10.0.0.0/16": 3},
			1,
		},
		"outside": {[]grant{give(0, "10.1.0.0/24", 1, 1)}, map[string]int{"10.0.0.0/16": 0}, 0},
		"around":  {[]grant{give(0, "10.0.0.0/8", 1, 1)}, map[string]int{"10.0.0.0/16": 1}, 0},
	} {
		for range 20 { // the order does not matter
			rand.Shuffle(len(tt.grants), func(i, j int) { tt.grants[i], tt.grants[j] = tt.grants[j], tt.grants[i] })
			all, conflicts := owners([]netip.Prefix{pfx("10.0.0.0/16")}, &link{to: hostNumber(0)}, tt.grants)
			got := map[record.Host][]netip.Prefix{}
			for _, h := range all {
				got[h.to] = merged(append(got[h.to], h.prefix))
			}
			want := map[record.Host][]netip.Prefix{}
			for p, h := range tt.want {
				want[hostNumber(h)] = merged(append(want[hostNumber(h)], pfx(p)))
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" || conflicts != tt.conflicts {
				t.Fatalf("%s: %d conflicts, want %d (-want +got):\n%s", name, conflicts, tt.conflicts, diff)
			}
		}
	}
}

// TestPrefixes compares sets of prefixes with sets of addresses.
func TestPrefixes(t *testing.T) {
	addresses := func(list []netip.Prefix) (out []netip.Addr) {
		for _, p := range list {
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				out = append(out, a)
			}
		}
		slices.SortFunc(out, netip.Addr.Compare)
		return slices.Compact(out)
	}
	random := func() (list []netip.Prefix) {
		for range rand.IntN(6) {
			p, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(rand.IntN(256))}).Prefix(24 + rand.IntN(9))
			list = append(list, p)
		}
		return list
	}
	has := func(list []netip.Addr, a netip.Addr) bool { return slices.Contains(list, a) }
	for range 300 {
		a, b := random(), random()
		as, bs := addresses(a), addresses(b)
		for what, got := range map[string][]netip.Prefix{"minus": minus(slices.Clone(a), b), "common": common(a, b), "merged": merged(slices.Clone(a))} {
			var want []netip.Addr
			for _, x := range as {
				if what == "minus" && !has(bs, x) || what == "common" && has(bs, x) || what == "merged" {
					want = append(want, x)
				}
			}
			if !slices.Equal(addresses(got), want) {
				t.Fatalf("%s of %s and %s: %s", what, a, b, got)
			}
			for i := range got {
				if i > 0 && !last(got[i-1]).Less(got[i].Addr()) {
					t.Fatalf("%s of %s and %s: %s is not in order", what, a, b, got)
				}
			}
		}
	}
}

func TestBlockBits(t *testing.T) {
	for p, want := range map[string]int{
		"10.32.0.0/12": 24, "10.0.0.0/21": 24, "10.0.0.0/22": 25, "10.0.0.0/24": 27, "10.0.0.0/28": 29, "10.0.0.0/30": 30,
		"fd00::/48": 112, "fd00::/64": 112, "fd00::/110": 113, "fd00::/124": 125, "fd00::/127": 127,
	} {
		if got := blockBits(pfx(p)); got != want {
			t.Errorf("block of %s: /%d, want /%d", p, got, want)
		}
	}
	for p, want := range map[string]int{"10.32.0.0/12": 16, "10.0.0.0/8": 16, "10.5.0.0/16": 20, "10.5.5.0/24": 24, "fd00::/48": 64} {
		if got := subnetBits(pfx(p)); got != want {
			t.Errorf("subnet of %s: /%d, want /%d", p, got, want)
		}
	}
}
