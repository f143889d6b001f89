package kernel

import (
	"fmt"

	"github.com/google/nftables"
)

// Vetoes are the chains of others that drop what this host forwards, unless a rule of theirs lets it pass: no rule of
// ours can. The chain FORWARD of iptables, in which we have rules, is none.
func Vetoes() ([]string, error) {
	c, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	var out []string
	for _, chain := range chains {
		if chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookForward || chain.Policy == nil || *chain.Policy != nftables.ChainPolicyDrop {
			continue
		}
		if chain.Table.Name == TableName || chain.Table.Name == "filter" && chain.Name == "FORWARD" {
			continue
		}
		out = append(out, fmt.Sprintf("chain %q of the nftables table %q", chain.Name, chain.Table.Name))
	}
	return out, nil
}
