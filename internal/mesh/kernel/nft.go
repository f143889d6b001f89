package kernel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// rules puts our table in place.
func (k *work) rules(p plan.Rules) error { return k.put(build(p)) }

// shortcuts puts that of the shortcuts in place, after the bridges are there.
func (k *work) shortcuts(list []plan.Shortcut) error {
	if len(list) == 0 {
		return noTable(nftables.TableFamilyNetdev)
	}
	if err := k.refresh(); err != nil {
		return err
	}
	return k.put(buildShortcuts(list, func(link string) uint32 {
		if l := k.byName[link]; l != nil {
			return uint32(l.Attrs().Index)
		}
		return 0
	}))
}

// put puts a table in place, whole and in one transaction, unless it is there as it has to be. Rules that pass packets
// on come in a second one: without them packets go their usual way.
func (k *work) put(r *ruleset) error {
	fingerprint := r.fingerprint()
	c, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	ok, err := r.stands(c, fingerprint)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if ok {
		return nil
	}
	// Added first, so that there is one to delete.
	c.AddTable(r.table)
	c.DelTable(r.table)
	c.AddTable(r.table)
	for _, chain := range r.chains {
		c.AddChain(chain)
	}
	for _, s := range r.sets {
		if err := c.AddSet(s.Set, s.elements); err != nil {
			return fmt.Errorf("nftables: set %s: %w", s.Name, err)
		}
	}
	var later []mdnetlink.Message
	for i, rule := range r.rules {
		data := userdata.AppendString(nil, userdata.TypeComment, r.comment(fingerprint, i))
		if rule.last == nil {
			c.AddRule(&nftables.Rule{Table: r.table, Chain: rule.chain, Exprs: rule.exprs, UserData: data})
			continue
		}
		m, err := rule.message(r.table, data)
		if err != nil {
			return fmt.Errorf("nftables: chain %s: %w", rule.chain.Name, err)
		}
		later = append(later, m)
	}
	err = c.Flush()
	if err == nil && len(later) > 0 {
		err = send(later)
	}
	k.did("nftables", err)
	return nil
}

func (r *ruleset) fingerprint() string {
	var b bytes.Buffer
	for _, c := range r.chains {
		fmt.Fprintf(&b, "chain %s\n", c.Name)
	}
	for _, s := range r.sets {
		fmt.Fprintf(&b, "set %s %q\n", s.Name, keys(s.elements))
		for _, e := range s.elements {
			if e.VerdictData != nil {
				fmt.Fprintf(&b, "goes to %s\n", e.VerdictData.Chain)
			}
			if len(e.Val) > 0 {
				fmt.Fprintf(&b, "is %x\n", e.Val)
			}
		}
	}
	for _, rule := range r.rules {
		fmt.Fprintf(&b, "rule %s", rule.chain.Name)
		for _, e := range rule.exprs {
			fmt.Fprintf(&b, " %T%+v", e, e)
		}
		if rule.last != nil {
			fmt.Fprintf(&b, " is passed on: %+v", *rule.last)
		}
		b.WriteByte('\n')
	}
	return fmt.Sprintf("%x", sha256.Sum256(b.Bytes()))[:16]
}

// stands reports whether the kernel has the table with all its chains, rules and elements, and nothing else
// in it.
func (r *ruleset) stands(c *nftables.Conn, fingerprint string) (bool, error) {
	tables, err := c.ListTablesOfFamily(r.table.Family)
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == TableName }) {
		return false, nil
	}
	var have []string
	chains, err := c.ListChainsOfTableFamily(r.table.Family)
	if err != nil {
		return false, err
	}
	for _, chain := range chains {
		if chain.Table.Name == TableName {
			have = append(have, chain.Name)
		}
	}
	var want []string
	for _, chain := range r.chains {
		want = append(want, chain.Name)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		return false, nil
	}
	for _, chain := range r.chains {
		rules, err := c.GetRules(r.table, chain)
		if err != nil {
			return gone(err)
		}
		for i, rule := range r.rules {
			if rule.chain != chain {
				continue
			}
			if len(rules) == 0 {
				return false, nil
			}
			if text, _ := userdata.GetString(rules[0].UserData, userdata.TypeComment); text != r.comment(fingerprint, i) {
				return false, nil
			}
			rules = rules[1:]
		}
		if len(rules) > 0 {
			return false, nil
		}
	}
	for _, s := range r.sets {
		elements, err := c.GetSetElements(s.Set)
		if err != nil {
			return gone(err)
		}
		if !slices.Equal(keys(elements), keys(s.elements)) {
			return false, nil
		}
	}
	return true, nil
}

// gone is how what was there a moment ago is not.
func gone(err error) (bool, error) {
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return false, err
}

func keys(elements []nftables.SetElement) (list []string) {
	for _, e := range elements {
		list = append(list, fmt.Sprintf("%x %v", e.Key, e.IntervalEnd))
	}
	slices.Sort(list)
	return list
}

// noTable takes our table of a family away, if it is there.
func noTable(family nftables.TableFamily) error {
	c, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(family)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range tables {
		if t.Name == TableName {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}
