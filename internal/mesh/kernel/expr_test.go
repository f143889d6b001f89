package kernel

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"

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

// TestNoRuleInVain: what no packet can match costs none of them a look.
func TestNoRuleInVain(t *testing.T) {
	n := plan.Net{Name: "b1", Bridge: "rm-b1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.40.0.0/16")}, Plain: []netip.Prefix{netip.MustParsePrefix("10.40.1.0/24")}}
	plain := build(plan.Rules{VXLANPort: 6785, Nets: []plan.Net{n}})
	for _, rule := range plain.rules {
		for _, e := range rule.exprs {
			if l, ok := e.(*expr.Lookup); ok && !l.Invert && plain.never(l) {
				t.Errorf("chain %s looks into %s, which is empty", rule.chain.Name, l.SetName)
			}
		}
	}
	looks := func(r *ruleset, set string) (n int) {
		for _, rule := range r.rules {
			for _, e := range rule.exprs {
				if l, ok := e.(*expr.Lookup); ok && l.SetName == set {
					n++
				}
			}
		}
		return n
	}
	if n := looks(plain, "set-b1-plain4"); n != 3 {
		t.Errorf("%d rules look where plain packets come from and go", n)
	}
	n.Sealed = []netip.Prefix{netip.MustParsePrefix("10.40.2.0/24")}
	if n := looks(build(plan.Rules{VXLANPort: 6785, Nets: []plan.Net{n}}), "set-b1-sealed4"); n != 3 {
		t.Errorf("%d rules look where encrypted packets come from and go", n)
	}
}
