package plan

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestShortcuts: there is one for each link and family on which plain packets go to a neighbour, and for no packet
// of which somebody may have to be told something.
func TestShortcuts(t *testing.T) {
	bridge := BridgeName(blue.ID)
	onLink := func(in *Input) {
		in.Facts.OnLink = map[netip.Addr]string{netip.MustParseAddr("10.9.0.2"): "eth0", netip.MustParseAddr("10.9.0.3"): "eth0"}
	}
	for what, c := range map[string]struct {
		change func(*Input)
		want   []string
	}{
		"neighbours":    {onLink, []string{bridge + " by eth0: 10.40.2.0/24 via 10.9.0.2, 10.40.3.0/24 via 10.9.0.3"}},
		"not wanted":    {func(in *Input) { onLink(in); in.FastPath = false }, nil},
		"not attached":  {func(in *Input) { onLink(in); in.Attached = nil }, nil},
		"behind others": {func(*Input) {}, []string{bridge + " by rm-vx4: 10.40.2.0/24 via 10.9.0.2, 10.40.3.0/24 via 10.9.0.3"}},
		"some of each": {func(in *Input) {
			in.Facts.OnLink = map[netip.Addr]string{netip.MustParseAddr("10.9.0.2"): "eth1"}
		}, []string{bridge + " by eth1: 10.40.2.0/24 via 10.9.0.2", bridge + " by rm-vx4: 10.40.3.0/24 via 10.9.0.3"}},
		"a narrow path":    {func(in *Input) { onLink(in); in.Facts.MTU = map[record.Host]int{host(2): 1300} }, []string{bridge + " by eth0: 10.40.3.0/24 via 10.9.0.3"}},
		"a larger network": {func(in *Input) { onLink(in); in.Networks[0].MTU = 1600 }, nil},
		"encrypted": {func(in *Input) {
			onLink(in)
			for i := byte(1); i <= 3; i++ {
				key := [32]byte{i}
				change(*in, i, func(m *record.Member) { m.TunnelKey = &key })
			}
		}, nil},
		"no addresses of our own": {func(in *Input) { onLink(in); in.Blocks = in.Blocks[1:] }, nil},
	} {
		in := cluster(3)
		in.Networks = []record.Network{blue}
		in.FastPath, in.Attached = true, []Attachment{{Network: blue.ID, Addresses: []netip.Prefix{prefix("10.40.1.1/16")}}}
		for i := byte(1); i <= 3; i++ {
			change(in, i, func(m *record.Member) { m.TunnelKey = nil })
		}
		c.change(&in)
		var got []string
		for _, s := range Compute(in).Shortcuts {
			text := s.Bridge + " by " + s.Link + ":"
			for i, w := range s.Ways {
				if i > 0 {
					text += ","
				}
				text += fmt.Sprintf(" %s via %s", w.Dst, w.Via)
			}
			got = append(got, text)
			if diff := cmp.Diff([]string{"10.40.1.0/24", "10.40.1.1"}, []string{fmt.Sprint(s.Own[0]), fmt.Sprint(s.Host[0])}); diff != "" {
				t.Errorf("%s: own (-want +got):\n%s", what, diff)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}
