package ipam

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestRangesAgainstAMap compares the set with the plainest one there is.
func TestRangesAgainstAMap(t *testing.T) {
	for _, pool := range []string{"10.0.0.0/26", "fd00::/122", "255.255.255.192/26"} {
		p := netip.MustParsePrefix(pool)
		rng := rand.New(rand.NewPCG(1, 2))
		var r ranges
		plain := map[netip.Addr]bool{}
		for range 5000 {
			a := p.Addr()
			for range rng.IntN(64) {
				a = a.Next()
			}
			before, _ := json.Marshal(r)
			if old := r; rng.IntN(2) == 0 {
				r = r.with(a)
				plain[a] = true
				if after, _ := json.Marshal(old); string(after) != string(before) {
					t.Fatalf("with changed the set it was called on from %s to %s", before, after)
				}
			} else {
				r = r.without(a)
				delete(plain, a)
				if after, _ := json.Marshal(old); string(after) != string(before) {
					t.Fatalf("without changed the set it was called on from %s to %s", before, after)
				}
			}
			if err := r.check(p); err != nil {
				t.Fatal(err)
			}
			var free netip.Addr
			for a, n := p.Addr(), 0; n < 64; a, n = a.Next(), n+1 {
				if r.has(a) != plain[a] {
					t.Fatalf("has(%s) = %t, want %t", a, r.has(a), plain[a])
				}
				if !plain[a] && !free.IsValid() {
					free = a
				}
			}
			if got, _ := r.firstFree(p.Addr(), last(p)); got != free {
				t.Fatalf("firstFree = %s, want %s of %v", got, free, r)
			}
		}
	}
}

func TestRangesAsText(t *testing.T) {
	var r ranges
	for _, s := range []string{"10.0.0.1", "10.0.0.3", "10.0.0.2", "10.0.0.9"} {
		r = r.with(netip.MustParseAddr(s))
	}
	text, err := json.Marshal(r)
	if want := `["10.0.0.1-10.0.0.3","10.0.0.9"]`; err != nil || string(text) != want {
		t.Errorf("text %s, %v; want %s", text, err, want)
	}
	for _, bad := range []string{`["x"]`, `["10.0.0.2-10.0.0.1"]`, `["10.0.0.2-fd00::"]`, `["10.0.0.1-"]`, `["-"]`} {
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
