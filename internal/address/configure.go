package address

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Choices are those of a network that an engine tells of only after it has asked for addresses. nil is no choice.
type Choices struct {
	Plain, Multicast, Internal *bool
	MTU                        *int
}

// Configure settles the choices for a network, which an engine is making. Only the host that made it can change them, and no more once
// others have a part in it; there it is ErrExists unless all is as it is asked for.
func (a *Allocator) Configure(_ context.Context, id string, c Choices) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.making, id)
	v := a.look()
	s, err := v.space(id, netip.Prefix{})
	if err != nil {
		return err
	}
	n := s.network
	var other []string
	set := func(what string, have *bool, want *bool) {
		if want != nil && *want != *have {
			other = append(other, fmt.Sprintf("%s is %t", what, *have))
			*have = *want
		}
	}
	set("multicast", &n.Multicast, c.Multicast)
	set("internal", &n.Internal, c.Internal)
	if c.Plain != nil && *c.Plain != n.Plain {
		other = append(other, fmt.Sprintf("encrypted is %t", !n.Plain))
		n.Plain = *c.Plain
	}
	if c.MTU != nil && *c.MTU != n.MTU {
		other = append(other, fmt.Sprintf("mtu is %d", n.MTU))
		n.MTU = *c.MTU
	}
	switch {
	case other == nil:
		return nil
	case s.Creator != v.self || !v.alone(id):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "network %q: its option %s on the other hosts", s.Name, strings.Join(other, ", ")),
			"leave the option out, or remove the network on all hosts first")
	}
	a.view = nil
	return a.config.Store.Put(record.KindNetwork, s.Name, n)
}
