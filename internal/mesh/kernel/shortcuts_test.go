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

// TestShortcutRules: each looks at all that sends a packet its usual way instead, also at what some kernels see to by themselves.
func TestShortcutRules(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	list := []plan.Shortcut{
		{Bridge: "rm-b1", Link: "eth0", Own: []netip.Prefix{prefix("10.40.1.0/24")}, Host: []netip.Addr{addr("10.40.1.1")}, Ways: []plan.Way{{Dst: prefix("10.40.2.0/24"), Via: addr("10.9.0.2")}}},
		{Bridge: "rm-b1", Link: "eth0", Own: []netip.Prefix{prefix("fd40::1:0/112")}, Host: []netip.Addr{addr("fd40::1:1")}, Ways: []plan.Way{
			{Dst: prefix("fd40::2:0/112"), Via: addr("2001:db8::2")}, {Dst: prefix("fd40::3:0/112"), Via: addr("2001:db8::3")},
		}},
	}
	var got []string
	for _, rule := range buildShortcuts(list, func(link string) uint32 { return uint32(len(link)) }).rules {
		got = append(got, rule.chain.Name+":"+words(rule.exprs)+fmt.Sprintf(" fwd v6=%v", rule.last.v6))
	}
	const host, hops4, hops6 = "pkttype =00", "n0+1 =45 n8+1 >01", "n7+1 >01"
	want := []string{
		"from-rm-b1: protocol =0800 n16+3 =0a2802 n12+3 =0a2801 " + host + " l12+2 =0800 " + hops4 + " 0a090002 04000000 fwd v6=false",
		"from-eth0: protocol =0800 n12+3 =0a2802 n16+3 =0a2801 n16+4 !0a280101 " + host + " l12+2 =0800 " + hops4 + " n16+4 05000000 fwd v6=false",
	}
	if len(got) != 4 {
		t.Fatalf("%d rules: %q", len(got), got)
	}
	if diff := cmp.Diff(want, got[:2]); diff != "" {
		t.Errorf("IPv4 (-want +got):\n%s", diff)
	}
	for _, rule := range got[2:] {
		if !strings.Contains(rule, "protocol =86dd") || !strings.Contains(rule, host+" l12+2 =86dd "+hops6) || !strings.HasSuffix(rule, "fwd v6=true") {
			t.Errorf("IPv6: %s", rule)
		}
	}
}

// words are the parts of a rule, in short.
func words(list exprs) string {
	var b strings.Builder
	for _, e := range list {
		switch e := e.(type) {
		case *expr.Meta:
			b.WriteString(map[expr.MetaKey]string{expr.MetaKeyPKTTYPE: " pkttype", expr.MetaKeyPROTOCOL: " protocol"}[e.Key])
		case *expr.Payload:
			fmt.Fprintf(&b, " %s%d+%d", map[expr.PayloadBase]string{expr.PayloadBaseLLHeader: "l", expr.PayloadBaseNetworkHeader: "n"}[e.Base], e.Offset, e.Len)
		case *expr.Cmp:
			fmt.Fprintf(&b, " %s%x", map[expr.CmpOp]string{expr.CmpOpEq: "=", expr.CmpOpNeq: "!", expr.CmpOpGt: ">"}[e.Op], e.Data)
		case *expr.Lookup:
			b.WriteString(" in " + e.SetName)
		case *expr.Immediate:
			fmt.Fprintf(&b, " %x", e.Data)
		}
	}
	return b.String()
}
