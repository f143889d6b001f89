package address

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

const (
	stepEvery  = 10 * time.Second
	stepAtMost = 100 * time.Millisecond // between two
	fetchLimit = 30 * time.Second
)

// Run does what is to be done besides answering: it looks after the addresses of hosts that were removed, gives back what
// this host needs no more, and fetches more before it runs out. It returns when ctx ends.
func (a *Allocator) Run(ctx context.Context) {
	changed, stop := a.config.Store.Watch(kinds...)
	defer stop()
	tick := time.NewTicker(stepEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := a.Step(ctx); err != nil {
			a.config.Log.WarnContext(ctx, "addresses cannot be looked after", slog.Any("error", err))
		}
		a.fetch(ctx)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-a.wake:
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
		case <-time.After(stepAtMost):
		}
	}
}

// fetch asks for more of what is 75 % full.
func (a *Allocator) fetch(ctx context.Context) {
	a.mu.Lock()
	low := a.low
	a.low = map[wanted]bool{}
	a.mu.Unlock()
	for w := range low {
		asking, cancel := context.WithTimeout(ctx, fetchLimit)
		if err := a.acquire(asking, w); err != nil {
			a.config.Log.InfoContext(ctx, "three quarters of the addresses are out and there are no more",
				slog.String("subnet", w.subnet.String()), slog.Any("error", err))
		}
		cancel()
	}
}

// Step does once what Run does, but for what takes other hosts.
func (a *Allocator) Step(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = nil
	return errors.Join(a.settle(), a.giveBack(), a.sweep())
}

// settle looks after what removed hosts owned. Each host tells what it knows of that; once all that are alive
// say the same, the one that takes over does so.
func (a *Allocator) settle() error {
	var errs []error
	for victim, r := range a.look().removals {
		v := a.look()
		if victim == v.self && r.by != v.self || v.done(r) || v.removed(v.self) {
			continue // a host that came back may be the heir of who removed it
		}
		own, had := v.settled[victim][v.self]
		now := record.Settled{Incarnation: r.incarnation, By: r.by, Known: v.known(victim)}
		if had && own.Incarnation == now.Incarnation {
			now.Late = own.Late || own.Known != now.Known
		}
		if own != now {
			a.view = nil
			if err := a.config.Store.Put(record.KindSettled, victim.String(), now); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		if now.By == v.self && len(v.undecided(r, now)) == 0 {
			errs = append(errs, a.takeOver(r, now))
		}
	}
	return errors.Join(errs...)
}

// undecided returns the living hosts that have not said the same as now about a removal.
func (v *view) undecided(r removal, now record.Settled) (hosts []record.Host) {
	for h := range v.members {
		if h == v.self || h == r.victim || v.removed(h) {
			continue
		}
		if s := v.settled[r.victim][h]; s.Incarnation != now.Incarnation || s.By != now.By || s.Known != now.Known {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// takeOver makes this host's what a removed one owned.
func (a *Allocator) takeOver(r removal, now record.Settled) error {
	v := a.look()
	taken := 0
	for _, grants := range v.grants {
		for _, g := range grants {
			if g.writer == v.self && g.From == r.victim {
				taken++
			}
		}
	}
	for space := range v.spaces {
		for _, h := range v.owners(space) {
			if h.to != r.victim || h.life > r.incarnation {
				continue
			}
			g := record.Grant{
				Space: space, Prefix: h.prefix, Serial: h.serial + 1, To: v.self, Life: v.members[v.self].life,
				From: r.victim, Rank: r.rank,
			}
			if err := a.write(g); err != nil {
				return err // what is left is taken at the next step
			}
			taken++
		}
	}
	now.Known, now.Taken = a.look().known(r.victim), &taken
	a.view = nil
	return a.config.Store.Put(record.KindSettled, r.victim.String(), now)
}

// giveBack gives what this host owns of the networks that it left, or that are to go, to where it came from. A network
// that was made by an engine's request for a pool is gone when nobody else has a part of it.
func (a *Allocator) giveBack() error {
	var errs []error
	leaving := maps.Clone(a.left)
	for space, s := range a.look().spaces {
		if a.unused(s) {
			leaving[space] = true
		}
	}
	for space := range leaving {
		v := a.look()
		s, ok := v.spaces[space]
		if !ok || space == clusterRange {
			if a.gone(v, space) {
				delete(a.left, space)
			}
			continue
		}
		heir := v.closer(s)
		if heir == v.self {
			if (s.Creator == v.self && s.network.Engine || a.unused(s)) && v.alone(space) && v.whole(s) {
				errs = append(errs, a.bury(s))
			}
			continue
		}
		m, ok := v.members[heir]
		if !ok {
			continue
		}
		mine := v.mine(space)
		var keep []netip.Prefix
		if !a.unused(s) {
			keep = a.blocks(s, netip.Prefix{}, false)
		}
		for _, p := range minus(prefixesOf(mine), keep) {
			errs = append(errs, a.give(mine, s, p, heir, m.life))
		}
	}
	return errors.Join(errs...)
}

// heir returns who has what h owned, if h was removed.
func (v *view) heir(h record.Host) record.Host {
	for range v.removals {
		if !v.removed(h) {
			break
		}
		h = v.removals[h].by
	}
	return h
}

// alone reports whether nobody but this host owns any of a space.
func (v *view) alone(space string) bool {
	for _, h := range v.owners(space) {
		if h.to != v.self {
			return false
		}
	}
	return true
}

// sweep deletes this host's records about networks that are gone. What it took over from a removed host stays: by the
// number of these grants the others see that all was taken.
func (a *Allocator) sweep() error {
	v := a.look()
	var errs []error
	for _, s := range v.buried {
		if s.Creator == v.self {
			a.view = nil
			errs = append(errs, a.config.Store.Delete(record.KindNetwork, s.Name))
		}
	}
	for _, id := range v.ended {
		a.view = nil
		errs = append(errs, a.config.Store.Delete(record.KindEnding, id))
	}
	for space, grants := range v.grants {
		if !a.gone(v, space) {
			continue
		}
		for _, g := range grants {
			if g.writer == v.self && g.From.IsZero() {
				a.view = nil
				errs = append(errs, a.config.Store.Delete(record.KindGrant, grantName(g.Grant)))
			}
		}
	}
	a.spent = slices.DeleteFunc(a.spent, func(f freed) bool { return time.Since(f.at) >= Rest && a.gone(v, f.space) })
	maps.DeleteFunc(a.unknown, func(space string, _ time.Time) bool { return a.gone(v, space) })
	return errors.Join(errs...)
}

// unknownFor is how long a network must have been unknown to count as gone, unless it is said that it is. Its record may not
// have come yet, or was lost with the power while those of this host lasted: what this host has given of it to others stays theirs.
const unknownFor = time.Hour

// gone reports whether a network is no more.
func (a *Allocator) gone(v *view, space string) bool {
	if _, there := v.spaces[space]; there || space == clusterRange {
		delete(a.unknown, space)
		return false
	}
	if _, buried := v.buried[space]; buried {
		return true
	}
	if a.unknown[space].IsZero() {
		a.unknown[space] = time.Now()
	}
	return time.Since(a.unknown[space]) >= unknownFor
}
