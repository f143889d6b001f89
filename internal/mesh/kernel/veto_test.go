package kernel

import (
	"runtime"
	"slices"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestVetoes tells firewalls that drop what is forwarded from those that do not, and from where rules of ours stand.
func TestVetoes(t *testing.T) {
	testenv.Require(t, testenv.Root)
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	c, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	drop, pass := nftables.ChainPolicyDrop, nftables.ChainPolicyAccept
	for _, one := range []struct {
		table, chain string
		hook         *nftables.ChainHook
		policy       *nftables.ChainPolicy
	}{
		{"strict", "fwd", nftables.ChainHookForward, &drop},
		{"strict", "in", nftables.ChainHookInput, &drop},
		{"lax", "fwd", nftables.ChainHookForward, &pass},
		{"filter", "FORWARD", nftables.ChainHookForward, &drop},
		{TableName, "forward", nftables.ChainHookForward, &drop},
	} {
		table := c.AddTable(&nftables.Table{Name: one.table, Family: nftables.TableFamilyIPv4})
		c.AddChain(&nftables.Chain{Name: one.chain, Table: table, Type: nftables.ChainTypeFilter, Hooknum: one.hook, Priority: nftables.ChainPriorityFilter, Policy: one.policy})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := Vetoes()
	if want := []string{`chain "fwd" of the nftables table "strict"`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
