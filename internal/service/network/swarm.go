package network

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// A network of a Swarm is Swarm's: its manager chooses the subnet, gives out every address of it, also of tasks on other
// hosts, and has each host make the network under one ID. So there is nothing to agree on. Each host says in records of its own
// which of these networks it has and which addresses its tasks have, and the packets follow.

// swarmIDLength is that of Swarm's IDs; networks that an engine keeps for itself have 64 digits.
const swarmIDLength = 25

// swarmID is the ID in the cluster of a network of Swarm, the same on all hosts.
func swarmID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// ofSwarm tells whether engines are given networks of Swarm.
func (s *Service) ofSwarm() bool { return s.o.Scope == network.Global }

// decoded returns the records of a kind that can be read.
func decoded[T any](all []record.Record, f func(record.Record, T)) {
	for _, r := range all {
		var body T
		if json.Unmarshal(r.Body, &body) == nil {
			f(r, body)
		}
	}
}

// swarmNetworks are the networks of Swarm by their IDs in the cluster, and whether this host has them.
func (in *inside) swarmNetworks() (all map[string]record.Swarm, here map[string]bool) {
	all, here = map[string]record.Swarm{}, map[string]bool{}
	decoded(current(in.records.Records(record.KindSwarm), in.records.Self()), func(r record.Record, s record.Swarm) {
		all[s.ID] = s // all hosts say the same
		if r.Writer == in.records.Self() {
			here[s.ID] = true
		}
	})
	return all, here
}

// swarmOf finds the network of Swarm with a subnet.
func (in *inside) swarmOf(p netip.Prefix) (record.Swarm, bool) {
	all, _ := in.swarmNetworks()
	for _, s := range all {
		if slices.Contains(s.Subnets, p) {
			return s, true
		}
	}
	return record.Swarm{}, false
}

// takeSwarm says that this host has a network of Swarm.
func (in *inside) takeSwarm(n network.Network) error {
	if len(n.ID) != swarmIDLength {
		return errdefs.Errorf(errdefs.ErrUnsupported, "networks of this plugin are of a Swarm, and this one is not: this engine is in no Swarm")
	}
	c, err := in.u.s.o.Network.Choose(n)
	if err != nil {
		return err
	}
	s := record.Swarm{Network: record.Network{ID: swarmID(n.ID), Internal: n.Internal}}
	chosen(&s.Network, c)
	for _, p := range pools(n) {
		if !p.Gateway.IsValid() {
			return errdefs.Errorf(errdefs.ErrUnsupported, "subnet %s: without a gateway, whose address the bridge has", p.Prefix)
		}
		s.Subnets = append(s.Subnets, p.Prefix)
		s.Gateways = append(s.Gateways, netip.PrefixFrom(p.Gateway.Addr(), p.Prefix.Bits()))
	}
	if _, here := in.swarmNetworks(); !here[s.ID] {
		if err := in.overlaps(s); err != nil {
			return err
		}
	}
	return in.records.Put(record.KindSwarm, n.ID, s)
}

// leaveSwarm says that this host has a network of Swarm no more, by the ID that Swarm has for it.
func (in *inside) leaveSwarm(id string) error {
	var errs []error
	in.ownClaims(func(r record.Record, c record.Claim) {
		if c.Network == swarmID(id) {
			errs = append(errs, in.records.Delete(record.KindClaim, r.Name))
		}
	})
	return errdefs.Join(append(errs, in.records.Delete(record.KindSwarm, id))...)
}

// claim says that the addresses of an endpoint are on this host, and unclaim that they are not.
func (in *inside) claim(n network.Network, ep network.Endpoint) error {
	for _, p := range []netip.Prefix{ep.IPv4, ep.IPv6} {
		if p.IsValid() {
			c := record.Claim{Network: swarmID(n.ID), Address: p.Addr(), Since: time.Now().UTC()}
			if err := in.records.Put(record.KindClaim, claimName(n.ID, p.Addr()), c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (in *inside) unclaim(n network.Network, ep network.Endpoint) error {
	var errs []error
	for _, p := range []netip.Prefix{ep.IPv4, ep.IPv6} {
		if p.IsValid() {
			errs = append(errs, in.records.Delete(record.KindClaim, claimName(n.ID, p.Addr())))
		}
	}
	return errdefs.Join(errs...)
}

func claimName(id string, at netip.Addr) string { return id + " " + at.String() }

// ownClaims calls f with the addresses of networks of Swarm that are on this host.
func (in *inside) ownClaims(f func(record.Record, record.Claim)) {
	decoded(in.records.Records(record.KindClaim), func(r record.Record, c record.Claim) {
		if r.Writer == in.records.Self() {
			f(r, c)
		}
	})
}

// swarmBlocks are which host has which addresses of networks of Swarm. Swarm gives an address to another task as soon as it takes
// the first one's host for lost. So of two hosts that have it, one that can be reached counts, then the later one.
func (in *inside) swarmBlocks() []plan.Block {
	all, _ := in.swarmNetworks()
	return claimed(in.records.Records(record.KindClaim), all, hosts{in.u}.Reachable)
}

func claimed(claims []record.Record, networks map[string]record.Swarm, reachable func(record.Host) bool) []plan.Block {
	type held struct {
		plan.Block
		reachable bool
		since     time.Time
	}
	best := map[netip.Addr]held{}
	decoded(claims, func(r record.Record, c record.Claim) {
		if _, ok := networks[c.Network]; !ok || !c.Address.IsValid() {
			return
		}
		h := held{plan.Block{Network: c.Network, Prefix: netip.PrefixFrom(c.Address, c.Address.BitLen()), Host: r.Writer}, reachable(r.Writer), c.Since}
		old, ok := best[c.Address]
		if !ok || cmp.Or(-boolOrder(h.reachable, old.reachable), h.since.Compare(old.since)) > 0 {
			best[c.Address] = h
		}
	})
	all := make([]plan.Block, 0, len(best))
	for _, h := range best {
		all = append(all, h.Block)
	}
	return all
}

// swarmIn finds the network of the cluster that one of the engine's is, for the names of its containers.
func (in *inside) swarmIn(n engine.Network) (id string, ok bool) {
	_, here := in.swarmNetworks()
	id = swarmID(n.ID)
	return id, here[id]
}

// swarmLook is how often networks and addresses of Swarm are compared with those that the engine has, and for how long it must
// have had one no more. After one has come or gone the look is soon.
const swarmLook = 30 * time.Second

// followSwarm takes back, until ctx ends, what the engine has no more: one that was killed never says so.
func (in *inside) followSwarm(ctx context.Context, e engine.Engine) {
	changed, stop := in.records.Watch(record.KindSwarm)
	defer stop()
	wait := time.NewTimer(0)
	defer wait.Stop()
	missing := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			wait.Reset(soon)
			continue
		case <-wait.C:
		}
		if err := in.compareSwarm(ctx, e, missing); err != nil && ctx.Err() == nil {
			in.log.DebugContext(ctx, "networks of Swarm are not compared", slog.Any("error", err))
		}
		wait.Reset(swarmLook)
	}
}

// compareSwarm takes back what the engine has not had for long; missing is since when, by the names of records.
func (in *inside) compareSwarm(ctx context.Context, e engine.Engine, missing map[string]time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	there, err := in.swarmThere(ctx, e)
	if err != nil {
		clear(missing)
		return err
	}
	now, before := time.Now(), maps.Clone(missing)
	clear(missing)
	gone := func(name string) bool {
		since, ok := before[name]
		if !ok {
			since = now
		}
		missing[name] = since
		return now.Sub(since) >= swarmLook
	}
	var errs []error
	in.ownClaims(func(r record.Record, c record.Claim) {
		id, _, _ := strings.Cut(r.Name, " ")
		if !slices.Contains(there[id], c.Address) && gone(r.Name) {
			errs = append(errs, in.records.Delete(record.KindClaim, r.Name))
			in.log.InfoContext(ctx, "address freed that no task has", slog.String("address", c.Address.String()))
		}
	})
	decoded(in.records.Records(record.KindSwarm), func(r record.Record, s record.Swarm) {
		if _, ok := there[r.Name]; !ok && r.Writer == in.records.Self() && gone(r.Name) {
			errs = append(errs, in.mesh.RemoveNetwork(ctx, s.ID), in.leaveSwarm(r.Name))
		}
	})
	return errdefs.Join(errs...)
}

// swarmThere returns the addresses that the engine has of the networks of Swarm that this host has, by their IDs in Swarm,
// and notes what they are called.
func (in *inside) swarmThere(ctx context.Context, e engine.Engine) (map[string][]netip.Addr, error) {
	networks, err := e.Networks(ctx)
	if err != nil {
		return nil, err
	}
	there, names := map[string][]netip.Addr{}, map[string]string{}
	_, here := in.swarmNetworks()
	for _, n := range networks {
		if !here[swarmID(n.ID)] {
			continue
		}
		at, err := e.Addresses(ctx, n.ID)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
		there[n.ID], names[swarmID(n.ID)] = at, n.Name
	}
	in.swarmNames.Store(&names)
	return there, nil
}
