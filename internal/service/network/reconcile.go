package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// reconcile compares the addresses that are out with those that the engines have, until ctx ends. An engine that was
// killed never gives one back.
func (in *inside) reconcile(ctx context.Context) {
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := time.Now()
		inUse, err := in.addresses(ctx)
		if err != nil {
			in.log.DebugContext(ctx, "addresses are not compared", slog.Any("error", err))
			continue
		}
		freed, err := in.alloc.Reconcile(ctx, asked, inUse, func(key string) bool {
			return key == address.GatewayKey || strings.HasPrefix(key, address.PodmanKey) // of which no engine knows
		})
		if err != nil {
			in.log.WarnContext(ctx, "addresses that nobody has are not freed", slog.Any("error", err))
		}
		for _, ip := range freed {
			in.log.InfoContext(ctx, "address freed that no container has", slog.String("address", ip.String()))
		}
	}
}

// makeTime is longer than an engine takes to make a network, once it has asked for its gateway.
const makeTime = 10 * time.Second

// lost tells whether an engine of this host had a network, by its addresses, and none has it now. An engine that is away may have
// it, and one that asked for a gateway a moment ago is making it. Podman's containers are on the same bridge.
func (in *inside) lost(id string) bool {
	had := false
	for _, a := range in.alloc.Addresses() {
		switch {
		case a.Network != id:
		case strings.HasPrefix(a.Key, address.PodmanKey):
			return false
		case a.Key != address.GatewayKey:
		case time.Since(a.Since) < makeTime:
			return false
		default:
			had = true
		}
	}
	return had && !slices.ContainsFunc(in.followers, func(f *follower) bool { return !f.lacks(id) })
}

// leaveLost takes this host's part in a network away, which no engine does any more.
func (in *inside) leaveLost(ctx context.Context, s address.Space) error {
	if err := in.mesh.RemoveNetwork(ctx, s.ID); err != nil {
		return err
	}
	for _, p := range s.Prefixes {
		if err := in.alloc.Leave(ctx, s.ID, p); err != nil {
			return err
		}
	}
	return nil
}

// addresses are those that the engines' containers have.
func (in *inside) addresses(ctx context.Context) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	var all []netip.Addr
	for _, f := range in.followers {
		networks, err := f.engine.Networks(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range networks {
			if n.Driver != f.driver {
				continue
			}
			some, err := f.engine.Addresses(ctx, n.ID)
			if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	return all, nil
}
