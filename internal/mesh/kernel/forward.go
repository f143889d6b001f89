package kernel

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/remora-plugins/remora/internal/run"
)

// Where an engine or a firewall has set the policy of the chain FORWARD to drop, no rule in a table of ours
// can let a packet pass: each table has a veto. So two rules stand in that chain, and they are all that we have in
// a table of others. They come after the jump to DOCKER-USER, where people keep the rules that are to hold
// for all containers, and before everything else.

// inForward are our rules, as iptables writes them itself ("-i rm-+ -j ACCEPT").
func inForward() []exprs {
	return []exprs{
		all(isLink(in, ours), counted(accept())),
		all(isLink(out, ours), counted(accept())),
	}
}

var forwardTables = []*nftables.Table{
	{Name: "filter", Family: nftables.TableFamilyIPv4},
	{Name: "filter", Family: nftables.TableFamilyIPv6},
}

func (k *work) forward() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range forwardTables {
		chain, rules, err := forwardChain(c, t)
		if err != nil {
			return err
		}
		if chain == nil {
			continue
		}
		var after uint64
		for _, r := range rules {
			for _, e := range r.Exprs {
				if v, ok := e.(*expr.Verdict); ok && v.Kind == expr.VerdictJump && v.Chain == "DOCKER-USER" {
					after = r.Handle
				}
			}
		}
		for _, want := range inForward() {
			if slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return sameRule(r.Exprs, want) }) {
				continue
			}
			r := &nftables.Rule{Table: t, Chain: chain, Exprs: want}
			if after != 0 {
				r.Position = after
				c.AddRule(r)
			} else {
				c.InsertRule(r)
			}
			k.did("chain FORWARD", c.Flush())
		}
	}
	return k.legacyForward("-I")
}

func forwardChain(c *nftables.Conn, t *nftables.Table) (*nftables.Chain, []*nftables.Rule, error) {
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, nil, fmt.Errorf("nftables: %w", err)
	}
	for _, chain := range chains {
		if chain.Table.Name != t.Name || chain.Name != "FORWARD" || chain.Hooknum == nil {
			continue
		}
		rules, err := c.GetRules(t, chain)
		if err != nil {
			return nil, nil, fmt.Errorf("nftables: %w", err)
		}
		return chain, rules, nil
	}
	return nil, nil, nil
}

// sameRule compares what a rule does, not what it has counted.
func sameRule(have, want exprs) bool {
	text := func(list exprs) string {
		var b strings.Builder
		for _, e := range list {
			switch e := e.(type) {
			case *expr.Counter:
			case *expr.Cmp:
				fmt.Fprintf(&b, "cmp %d %d %q ", e.Op, e.Register, e.Data)
			case *expr.Meta:
				fmt.Fprintf(&b, "meta %d %d ", e.Key, e.Register)
			case *expr.Verdict:
				fmt.Fprintf(&b, "verdict %d %s ", e.Kind, e.Chain)
			default:
				fmt.Fprintf(&b, "%T ", e)
			}
		}
		return b.String()
	}
	return text(have) == text(want)
}

func (k *work) noForward() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range forwardTables {
		_, rules, err := forwardChain(c, t)
		if err != nil {
			return err
		}
		for _, r := range rules {
			for _, want := range inForward() {
				if sameRule(r.Exprs, want) {
					r.Table = t
					if err := c.DelRule(r); err != nil {
						return fmt.Errorf("nftables: %w", err)
					}
				}
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return k.legacyForward("-D")
}

// legacyForward is for the iptables that does not stand on nftables. It has no interface but its program.
func (k *work) legacyForward(verb string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for names, program := range map[string]string{"/proc/net/ip_tables_names": "iptables-legacy", "/proc/net/ip6_tables_names": "ip6tables-legacy"} {
		text, err := os.ReadFile(names)
		if err != nil || !slices.Contains(strings.Fields(string(text)), "filter") {
			continue
		}
		for _, flag := range []string{"-i", "-o"} {
			rule := []string{flag, strings.TrimSuffix(ours, "*") + "+", "-j", "ACCEPT"}
			_, err := run.Output(ctx, nil, program, append([]string{"-w", "5", "-C", "FORWARD"}, rule...)...)
			if (err == nil) == (verb == "-I") {
				continue
			}
			_, err = run.Output(ctx, nil, program, append([]string{"-w", "5", verb, "FORWARD"}, rule...)...)
			k.did("chain FORWARD of "+program, err)
		}
	}
	return nil
}
