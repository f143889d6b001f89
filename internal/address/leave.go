package address

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// GiveAll gives all that this host owns to another one, for it leaves the cluster. It is ErrInUse while an address is out.
func (a *Allocator) GiveAll(to record.Host) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = nil
	v := a.look()
	m, ok := v.members[to]
	if !ok || to == v.self {
		return errdefs.Errorf(errdefs.ErrNotFound, "host %s: no other member of the cluster", to.Short())
	}
	for at, u := range a.used {
		return errdefs.Errorf(errdefs.ErrInUse, "address %s: %s has it", at.address, u.key)
	}
	var errs []error
	for space, s := range v.spaces {
		mine := v.mine(space)
		for _, p := range minus(prefixesOf(mine), []netip.Prefix{}) {
			errs = append(errs, a.give(mine, s, p, to, m.life))
		}
	}
	return errors.Join(errs...)
}

// Leave takes back all addresses of a subnet: the engine has no part in it any more. What Podman has stays. What this host owns of
// a network that it has left altogether goes back to where it came from.
func (a *Allocator) Leave(ctx context.Context, space string, subnet netip.Prefix) error {
	a.mu.Lock()
	delete(a.making, space)
	delete(a.nobodys, space)
	var lines strings.Builder
	others := false
	for at, u := range a.used {
		switch {
		case at.space != space:
		case strings.HasPrefix(u.key, PodmanKey):
			others = true
		case subnet.Contains(at.address):
			lines.WriteString(freeLine(a.free(at)))
		default:
			others = true
		}
	}
	if !others {
		a.left[space] = true
		lines.WriteString(leftLine(space))
	}
	last := a.ledger.enter([]byte(lines.String()))
	a.mu.Unlock()
	if err := last(); err != nil {
		return err
	}
	return a.Step(ctx)
}
