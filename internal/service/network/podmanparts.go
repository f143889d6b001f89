package network

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// partID is what the driver knows Podman's part in a network by, as it knows that of an engine by the engine's ID.
func partID(space string) string { return "podman" + space }

// part makes the network on this host for Podman's containers, or finds it: one of another engine is the same bridge.
func (p *podman) part(ctx context.Context, space address.Space) (network.Network, error) {
	r := space.Record()
	n := network.Network{ID: partID(space.ID), Options: map[string]string{}, Internal: r.Internal, EnableIPv4: true}
	if r.Multicast {
		n.Options["multicast"] = "true"
	}
	for _, subnet := range space.Prefixes {
		gateway, err := p.in.alloc.Allocate(ctx, address.Want{Space: space.ID, Subnet: subnet, Key: address.PodmanGatewayKey})
		if err != nil {
			return n, err
		}
		pool := network.Pool{AddressSpace: address.AddressSpace, Prefix: subnet, Gateway: gateway}
		if subnet.Addr().Is4() {
			n.IPv4 = append(n.IPv4, pool)
		} else {
			n.IPv6, n.EnableIPv6 = append(n.IPv6, pool), true
		}
	}
	return n, p.in.overlay.CreateNetwork(ctx, n)
}

// containers are those of Podman that are in a network.
func (p *podman) containers(space string) []string {
	var all []string
	for _, a := range p.in.alloc.Addresses() {
		container, ours := strings.CutPrefix(a.Key, address.PodmanKey)
		if ours && a.Network == space && a.Key != address.PodmanGatewayKey && !slices.Contains(all, container) {
			all = append(all, container)
		}
	}
	return all
}

// giveWay has Podman leave a network that an engine of this host removes: it goes with its bridge. It is refused while
// Podman's containers are on it.
func (p *podman) giveWay(ctx context.Context, n network.Network) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	for _, pool := range pools(n) {
		space, ok := p.in.alloc.Find(pool.Prefix)
		if !ok {
			continue
		}
		if on := p.containers(space.ID); len(on) > 0 {
			return errdefs.Errorf(errdefs.ErrInUse, "network %q: %d containers of Podman are on it, such as %.12s", space.Name, len(on), on[0])
		}
		if err := p.drop(ctx, space.ID); err != nil {
			return err
		}
	}
	return nil
}

// drop takes Podman's part in a network away.
func (p *podman) drop(ctx context.Context, space string) error {
	err := p.in.overlay.DeleteNetwork(ctx, network.Network{ID: partID(space)})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	for _, a := range p.in.alloc.Addresses() {
		if a.Network == space && a.Key == address.PodmanGatewayKey {
			if err := p.in.alloc.Release(ctx, space, a.Address); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// leave takes Podman's part in a network away, and with it this host's, unless containers are on it.
func (p *podman) leave(ctx context.Context, space address.Space) error {
	mine := false
	for _, a := range p.in.alloc.Addresses() {
		switch {
		case a.Network != space.ID:
		case a.Key == address.PodmanGatewayKey:
			mine = true
		default:
			return nil // Podman's, or an engine has the network too, and leaves by itself
		}
	}
	if !mine {
		return nil
	}
	if err := p.drop(ctx, space.ID); err != nil {
		return err
	}
	for _, subnet := range space.Prefixes {
		if err := p.in.alloc.Leave(ctx, space.ID, subnet); err != nil {
			return err
		}
	}
	return nil
}

// leaveAll takes all parts away, for a host that leaves the cluster. It is refused while containers are on them.
func (p *podman) leaveAll(ctx context.Context) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	if err := p.clean(ctx); err != nil {
		return err
	}
	for _, space := range p.in.alloc.Networks() {
		if on := p.containers(space.ID); len(on) > 0 {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "reset: network %q stays: %d containers of Podman are on it, such as %.12s", space.Name, len(on), on[0]),
				"remove or disconnect the containers that are on it, then reset again")
		}
	}
	for _, space := range p.in.alloc.Networks() {
		if err := p.leave(ctx, space); err != nil {
			return err
		}
	}
	return nil
}

// run looks after what Podman does not say, until ctx ends.
func (p *podman) run(ctx context.Context) {
	changed, stop := p.in.records.Watch(record.KindNetwork, record.KindGrant)
	defer stop()
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for {
		if err := p.look(ctx); err != nil && ctx.Err() == nil {
			p.in.log.WarnContext(ctx, "what Podman's containers had is not taken back, which is tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

func (p *podman) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	errs := []error{p.clean(ctx)}
	for _, space := range p.in.alloc.Networks() {
		if space.Record().Going {
			errs = append(errs, p.leave(ctx, space))
			_ = p.in.alloc.DeleteNetwork(ctx, space.Name) // not ours, or somebody has a part in it still
		}
	}
	return errdefs.Join(errs...)
}

// clean takes back what containers had that are gone: with its namespace an interface goes in both its ends, and after a
// reboot, or where Podman was killed, nobody says so.
func (p *podman) clean(ctx context.Context) error {
	driver, ok := p.in.overlay.(catalog.Joined)
	if !ok {
		return nil
	}
	type place struct{ space, container string }
	places := map[place]bool{}
	for _, a := range p.in.alloc.Addresses() {
		if container, ours := strings.CutPrefix(a.Key, address.PodmanKey); ours && a.Key != address.PodmanGatewayKey {
			places[place{a.Network, container}] = true
		}
	}
	for _, r := range p.in.records.Records(record.KindName) {
		if key, ours := strings.CutPrefix(r.Name, namePrefix); ours && r.Writer == p.in.records.Self() {
			container, space, _ := strings.Cut(key, "/")
			places[place{space, container}] = true
		}
	}
	var errs []error
	for at := range places {
		there, err := driver.Joined(network.Endpoint{ID: endpointID(at.space, at.container)})
		if err == nil && !there {
			if err = p.disconnect(ctx, at.space, at.container); err == nil {
				p.in.log.InfoContext(ctx, "what a container of Podman had is taken back", slog.String("container", at.container))
			}
		}
		errs = append(errs, err)
	}
	return errdefs.Join(errs...)
}
