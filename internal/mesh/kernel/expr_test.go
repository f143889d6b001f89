package kernel

import (
	"fmt"
	"net/netip"
	"strings"
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

// TestNoRuleInVain: what no packet can match costs none of them a look, and what one prefix says is looked up nowhere.
func TestNoRuleInVain(t *testing.T) {
	one := []netip.Prefix{netip.MustParsePrefix("10.40.1.0/24")}
	two := append(one, netip.MustParsePrefix("10.40.3.0/26"))
	n := plan.Net{Name: "b1", Bridge: "rm-b1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.40.0.0/16")}, Plain: one}
	of := func(n plan.Net) *ruleset { return build(plan.Rules{VXLANPort: 6785, Nets: []plan.Net{n}}) }
	if plain := of(n); len(plain.sets) != 0 {
		t.Errorf("%d sets for one prefix each, the first is %s", len(plain.sets), plain.sets[0].Name)
	}
	looks := func(r *ruleset, name string) (n int) {
		for _, rule := range r.rules {
			for _, e := range rule.exprs {
				if l, ok := e.(*expr.Lookup); ok && l.SetName == name {
					n++
				}
			}
		}
		return n
	}
	n.Plain = two
	plain := of(n)
	for _, s := range plain.sets {
		if len(s.elements) == 0 || looks(plain, s.Name) == 0 {
			t.Errorf("set %s has %d elements and is looked into by %d rules", s.Name, len(s.elements), looks(plain, s.Name))
		}
	}
	if n := looks(plain, "set-b1-plain4"); n != 2 {
		t.Errorf("%d rules look where plain packets come from and go", n)
	}
	n.Plain, n.Sealed = one, two
	if n := looks(of(n), "set-b1-sealed4"); n != 2 {
		t.Errorf("%d rules look where encrypted packets come from and go", n)
	}
}

// TestAddr: a prefix of whole bytes is compared as it is, another behind its mask, several are a set, none is never.
func TestAddr(t *testing.T) {
	for _, c := range []struct {
		prefixes []string
		want     string
	}{
		{[]string{"10.40.0.0/16"}, "@16,2 == 0a28"},
		{[]string{"10.40.0.0/16", "10.40.3.0/24"}, "@16,2 == 0a28"},
		{[]string{"10.40.128.0/17"}, "@16,4 &ffff8000 == 0a288000"},
		{[]string{"10.40.0.7/32"}, "@16,4 == 0a280007"},
		{[]string{"0.0.0.0/0"}, "@16,4 &00000000 == 00000000"},
		{[]string{"10.40.0.0/16", "10.42.0.0/16"}, "@16,4 in set-x4"},
		{nil, "never"},
	} {
		var in []netip.Prefix
		for _, p := range c.prefixes {
			in = append(in, netip.MustParsePrefix(p))
		}
		var words []string
		for _, e := range addr(to, new(ruleset).pair("x", in)[0]) {
			switch e := e.(type) {
			case *expr.Payload:
				words = append(words, fmt.Sprintf("@%d,%d", e.Offset, e.Len))
			case *expr.Bitwise:
				words = append(words, fmt.Sprintf("&%x", e.Mask))
			case *expr.Lookup:
				words = append(words, "in "+e.SetName)
			case *expr.Cmp:
				switch {
				case e == never:
					words = append(words, "never")
				case len(words) > 0:
					words = append(words, fmt.Sprintf("== %x", e.Data))
				}
			}
		}
		if got := strings.Join(words, " "); got != c.want {
			t.Errorf("%q: %s, want %s", c.prefixes, got, c.want)
		}
	}
}
