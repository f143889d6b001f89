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
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/run"
)

// Where an engine or a firewall has set the policy of iptables' chains to drop, no rule in a table of ours can let
// a packet pass: each table has a veto. So a few rules of ours stand in those chains, and they are all that we have
// among what is others': what our own table has let through passes FORWARD, and containers may ask their bridge for names. In
// FORWARD they come after the jump to DOCKER-USER, where people keep the rules that are to hold for all containers.
type foreign struct {
	chain string
	rules []exprs
	// legacy are the same for the iptables that does not stand on nftables.
	legacy []string
}

// userChain is where people keep rules that come before an engine's.
const userChain = "DOCKER-USER"

// guests are our rules in the chains of others, as iptables would write them itself.
func guests() []foreign {
	return []foreign{
		{
			"FORWARD",
			[]exprs{all(isLink(in, ours), counted(accept())), all(isLink(out, ours), counted(accept()))},
			[]string{"-i rm-+", "-o rm-+"},
		},
		{
			"INPUT",
			[]exprs{
				all(isLink(in, ours), destPort(53), counted(accept())),
				all(isLink(in, ours), portOf(unix.IPPROTO_TCP, 2, 53), counted(accept())),
			},
			[]string{"-i rm-+ -p udp --dport 53", "-i rm-+ -p tcp --dport 53"},
		},
	}
}

// filters are the tables of iptables.
func filters() []*nftables.Table {
	return []*nftables.Table{{Name: "filter", Family: nftables.TableFamilyIPv4}, {Name: "filter", Family: nftables.TableFamilyIPv6}}
}

func (k *work) forward(ctx context.Context) error {
	c, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range filters() {
		for _, f := range guests() {
			chain, rules, err := chainOf(c, t, f.chain)
			if err != nil {
				return err
			}
			if chain == nil {
				continue
			}
			after := jumpTo(rules, userChain)
			for _, want := range f.rules {
				if slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return sameRule(r.Exprs, want) }) {
					continue
				}
				r := &nftables.Rule{Table: t, Chain: chain, Exprs: want, Position: after}
				if after != 0 {
					c.AddRule(r)
				} else {
					c.InsertRule(r)
				}
				k.did("chain "+f.chain, c.Flush())
			}
		}
	}
	k.legacy(ctx, "-I")
	return nil
}

// jumpTo returns the handle of the rule that jumps to a chain, or none.
func jumpTo(rules []*nftables.Rule, chain string) (handle uint64) {
	for _, r := range rules {
		for _, e := range r.Exprs {
			if v, ok := e.(*expr.Verdict); ok && v.Kind == expr.VerdictJump && v.Chain == chain {
				handle = r.Handle
			}
		}
	}
	return handle
}

// chainOf returns a base chain and its rules, or none.
func chainOf(c *nftables.Conn, t *nftables.Table, name string) (*nftables.Chain, []*nftables.Rule, error) {
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, nil, fmt.Errorf("nftables: %w", err)
	}
	for _, chain := range chains {
		if chain.Table.Name != t.Name || chain.Name != name || chain.Hooknum == nil {
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
			case *expr.Payload:
				fmt.Fprintf(&b, "payload %d %d %d %d ", e.Base, e.Offset, e.Len, e.DestRegister)
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

func (k *work) noForward(ctx context.Context) error {
	c, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range filters() {
		for _, f := range guests() {
			_, rules, err := chainOf(c, t, f.chain)
			if err != nil {
				return err
			}
			for _, r := range rules {
				if !slices.ContainsFunc(f.rules, func(own exprs) bool { return sameRule(r.Exprs, own) }) {
					continue
				}
				r.Table = t
				if err := c.DelRule(r); err != nil {
					return fmt.Errorf("nftables: %w", err)
				}
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	k.legacy(ctx, "-D")
	return nil
}

// legacyWithin is how long the program may take, which waits for others of its kind.
const legacyWithin = 10 * time.Second

// legacy is for the iptables that does not stand on nftables. It has no interface but its program.
func (k *work) legacy(ctx context.Context, verb string) {
	ctx, cancel := context.WithTimeout(ctx, legacyWithin)
	defer cancel()
	for names, program := range map[string]string{"/proc/net/ip_tables_names": "iptables-legacy", "/proc/net/ip6_tables_names": "ip6tables-legacy"} {
		text, err := os.ReadFile(names)
		if err != nil || !slices.Contains(strings.Fields(string(text)), "filter") {
			continue
		}
		for _, f := range guests() {
			for _, rule := range f.legacy {
				args := func(verb string) []string {
					return slices.Concat([]string{"-w", "5", verb, f.chain}, strings.Fields(rule), []string{"-j", "ACCEPT"})
				}
				_, err := run.Output(ctx, nil, program, args("-C")...)
				if (err == nil) == (verb == "-I") {
					continue
				}
				_, err = run.Output(ctx, nil, program, args(verb)...)
				k.did("chain "+f.chain+" of "+program, err)
			}
		}
	}
}
