package network

import (
	"context"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A host that is alone in its cluster, and has nothing in it but what a launch makes, may give it up for another.

// giveUpTime bounds how long the engines may take to let go of the network that a launch made.
const giveUpTime = 20 * time.Second

// spare says that this host has nothing that would be lost with its cluster, as far as is known without asking.
func (u *up) spare() bool {
	in := u.in()
	if in == nil {
		return true
	}
	_, here := in.swarmNetworks()
	return len(here) == 0 && len(in.records.Records(record.KindName)) == 0 &&
		!slices.ContainsFunc(in.alloc.Networks(), func(s address.Space) bool { return s.Name != firstNetwork }) &&
		!slices.ContainsFunc(in.alloc.Addresses(), func(a address.Address) bool { return !gatewayKey(a.Key) })
}

// giveUp takes what this host has of its cluster away, for another. It is refused where a container would be left without its
// network, one that is stopped too.
func (u *up) giveUp() error {
	in := u.in()
	if in == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(u.life, giveUpTime)
	defer cancel()
	err := in.nobodyOn(ctx)
	if err == nil {
		err = in.leaveEngines(ctx, false)
	}
	if err == nil {
		err = in.podman.leaveAll(ctx)
	}
	if err != nil {
		for _, f := range in.followers {
			f.rest(false)
		}
		return err
	}
	u.left()
	for _, name := range []string{"addresses", refusedName} {
		if err := u.s.root.RemoveAll(name); err != nil {
			return state.Classify(err)
		}
	}
	return nil
}

// nobodyOn is an error if an engine has a container on a network of the cluster, if only one that is stopped: an engine removes a
// network under those.
func (in *inside) nobodyOn(ctx context.Context) error {
	for _, f := range in.followers {
		all, err := f.engine.Networks(ctx)
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.Driver != f.driver {
				continue
			}
			on, err := f.engine.On(ctx, n.ID)
			if err != nil {
				return err
			}
			if len(on) > 0 {
				return errdefs.Errorf(errdefs.ErrInUse, "network %q: container %q is on it", n.Name, on[0])
			}
		}
	}
	return nil
}
