package address

import (
	"errors"
	"net/netip"

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
