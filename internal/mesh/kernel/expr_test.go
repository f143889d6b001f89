package kernel

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

func TestIntervals(t *testing.T) {
	for _, c := range []struct {
		prefixes, want []string
	}{
		{nil, nil},
		{[]string{"10.0.0.0/24"}, []string{"0a000000 false", "0a000100 true"}},
		{[]string{"10.0.1.0/24", "10.0.0.0/24"}, []string{"0a000000 false", "0a000200 true"}},
		{[]string{"10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/16"}, []string{"0a000000 false", "0a010000 true"}},
		{[]string{"10.0.0.0/24", "10.0.2.0/24"}, []string{"0a000000 false", "0a000100 true", "0a000200 false", "0a000300 true"}},
		{[]string{"fd00::/127"}, []string{"fd000000000000000000000000000000 false", "fd000000000000000000000000000002 true"}},
	} {
		var in []netip.Prefix
		for _, p := range c.prefixes {
			in = append(in, netip.MustParsePrefix(p))
		}
		if diff := cmp.Diff(c.want, keys(intervals(in))); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.prefixes, diff)
		}
	}
}

// TestFingerprint: it is that of what is meant, and so the same each time, and another for whatever differs.
func TestFingerprint(t *testing.T) {
	rules := func() plan.Rules {
		return plan.Rules{VXLANPort: 6785, Nets: []plan.Net{{
			Name: "b1000000b1", Bridge: "rm-b1000000b1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.40.0.0/16")}, Sealed: []netip.Prefix{netip.MustParsePrefix("10.40.1.0/24")},
		}}}
	}
	first := build(rules()).fingerprint()
	if again := build(rules()).fingerprint(); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	for what, change := range map[string]func(*plan.Rules){
		"port":     func(r *plan.Rules) { r.VXLANPort++ },
		"senders":  func(r *plan.Rules) { r.Senders = []netip.Addr{netip.MustParseAddr("10.9.0.1")} },
		"internal": func(r *plan.Rules) { r.Nets[0].Internal = true },
		"block":    func(r *plan.Rules) { r.Nets[0].Sealed[0] = netip.MustParsePrefix("10.40.2.0/24") },
		"plain":    func(r *plan.Rules) { r.Nets[0].Plain = r.Nets[0].Sealed },
		"bridge":   func(r *plan.Rules) { r.Nets[0].Bridge = "" },
	} {
		r := rules()
		if change(&r); build(r).fingerprint() == first {
			t.Errorf("another %s is not noticed", what)
		}
	}
}
