package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	// compareEvery is how often an engine's networks are compared though nothing was heard of it.
	compareEvery = time.Minute
	// compareTime bounds one comparison, and soon is how long after the first failure the next one is.
	compareTime = 30 * time.Second
	soon        = 2 * time.Second
)

// spaces are the networks of the cluster.
type spaces interface {
	Networks() []address.Space
	// Rename gives a network that this host made another name.
	Rename(id, name string) error
	// Tell says that the engine has made a network that it asked addresses for.
	Tell(id string, labels map[string]string) error
	// DeleteNetwork makes a network unknown, once nobody has a part in it.
	DeleteNetwork(ctx context.Context, name string) error
	// Disown lets an engine have a network anew of which no engine of this host has its part any more.
	Disown(id string)
}

// follower keeps the networks of one engine as those of the cluster: what another host made is made here, with the
// same name and subnets; what is gone there goes here, when no container is on it.
type follower struct {
	engine  engine.Engine
	driver  string // as which engines know Remora
	spaces  spaces
	changed <-chan struct{} // a value after the networks of the cluster have changed
	refused *refused
	// followed is called after the engine's networks were compared.
	followed func()
	// lost tells of a network that an engine of this host had, and that none has any more though nobody was told so; leave takes this
	// host's part in it away.
	lost  func(id string) bool
	leave func(context.Context, address.Space) error
	log   *slog.Logger

	comparing sync.Mutex // held for a comparison; taken before mu

	mu       sync.Mutex
	leaving  bool                 // this host leaves the cluster: nothing is made here any more
	away     error                // why the engine did not answer when it was last asked; nil if it did
	problems map[string]string    // by the network's name
	compared bool                 // onEngine is what the engine has
	onEngine map[string]string    // the engine's ID of a network, by that of the cluster's
	seen     map[string]time.Time // when a network that is in the making was first seen; for compare alone
	missed   map[string]time.Time // when a network that is lost was first found to be; likewise
}

// run compares until ctx ends.
func (f *follower) run(ctx context.Context) {
	events := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { f.listen(ctx, events) })
	pause := soon
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.changed:
		case <-events:
		case <-wait.C:
		}
		again := compareEvery
		if err := f.compare(ctx); err == nil {
			pause = soon
		} else if errors.Is(err, errWaits) {
			again = soon
		} else if ctx.Err() == nil {
			again, pause = pause, min(2*pause, compareEvery) // each try takes an address, which then rests
			f.log.DebugContext(ctx, "networks of the engine", slog.Any("error", err))
		}
		wait.Reset(again)
	}
}

// listen hears of networks that come and go in the engine.
func (f *follower) listen(ctx context.Context, events chan<- struct{}) {
	poke := func() {
		select {
		case events <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		_ = f.engine.Events(ctx, []string{"network"}, poke, func(ev engine.Event) {
			switch ev.Action {
			case "create", "destroy", "disconnect":
				poke()
			}
		}) // it always ends with an error, and begins again
		select {
		case <-ctx.Done():
		case <-time.After(soon):
		}
	}
}

// compare makes the engine's networks those of the cluster.
func (f *follower) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	f.comparing.Lock()
	defer f.comparing.Unlock()
	if f.leaving {
		return nil
	}
	all, err := f.engine.Networks(ctx)
	f.mu.Lock()
	f.away = err
	f.mu.Unlock()
	if err != nil {
		return err
	}
	wanted := map[string]address.Space{}
	for _, s := range f.spaces.Networks() {
		wanted[s.ID] = s
	}
	problems, on, waits := map[string]string{}, map[string]string{}, false
	for _, n := range all {
		if n.Driver != f.driver {
			continue
		}
		s, ok := spaceOf(wanted, n)
		if !ok || s.Record().Going {
			f.remove(ctx, n, problems)
			continue
		}
		on[s.ID] = n.ID
		f.refused.drop(s.ID)
		f.rename(s, n.Name, problems)
		f.tell(s, n)
	}
	f.mu.Lock()
	before := f.onEngine
	f.onEngine, f.compared = maps.Clone(on), true
	f.mu.Unlock()
	for id := range before {
		if s, ok := wanted[id]; ok && on[id] == "" && !s.Record().Going {
			f.refused.add(id) // a person removed it here
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		s := wanted[id]
		switch {
		case on[id] == "" && !f.settled(ctx, s, problems):
			waits = true
		case on[id] != "" || s.Record().Going || unnamed(s) || f.refused.has(id):
		case f.inTheMaking(s):
			waits = true
		default:
			f.create(ctx, s, problems)
		}
	}
	for _, s := range wanted {
		if s.Record().Going {
			_ = f.spaces.DeleteNetwork(ctx, s.Name) // not ours, or somebody has a part in it still
		}
	}
	f.mu.Lock()
	f.problems = problems
	f.mu.Unlock()
	if f.followed != nil && !maps.Equal(before, on) {
		f.followed()
	}
	switch {
	case len(problems) > 0:
		return errors.New("not as they should be")
	case waits:
		return errWaits
	}
	return nil
}

// errWaits is that nothing is wrong, and something is to be looked at again soon.
var errWaits = errors.New("a network is in the making, or found to be lost")

// settled tells whether what this host has of a network that the engine does not have is as it should be. What an engine had, and
// removed while nobody listened or lost with all that it had, is free for it to take anew, or goes with the network. One look may err.
func (f *follower) settled(ctx context.Context, s address.Space, problems map[string]string) bool {
	if f.lost == nil || !f.lost(s.ID) {
		delete(f.missed, s.ID)
		return true
	}
	first, ok := f.missed[s.ID]
	switch {
	case !ok:
		if f.missed == nil {
			f.missed = map[string]time.Time{}
		}
		f.missed[s.ID] = time.Now()
		return false
	case time.Since(first) < soon/2:
		return false
	case !s.Record().Going:
		f.spaces.Disown(s.ID)
		delete(f.missed, s.ID)
		return true
	}
	if err := f.leave(ctx, s); err != nil {
		problems[s.Name] = err.Error()
	}
	return false
}

// lacks tells whether the engine is known not to have a network.
func (f *follower) lacks(space string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away == nil && f.compared && f.onEngine[space] == ""
}

// unnamed tells whether a network has only its subnet for a name: the engine in which it was made has told no other yet,
// and may not have made it after all.
func unnamed(s address.Space) bool {
	return slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.String() == s.Name })
}

// spaceOf finds the cluster's network that is the engine's.
func spaceOf(all map[string]address.Space, n engine.Network) (address.Space, bool) {
	for _, s := range all {
		if slices.ContainsFunc(n.IPAM.Config, func(c engine.Subnet) bool { return slices.Contains(s.Prefixes, c.Subnet) }) {
			return s, true
		}
	}
	return address.Space{}, false
}

// rename gives a network the name that it has in the engine in which it was made: the driver is never told.
func (f *follower) rename(s address.Space, name string, problems map[string]string) {
	if s.Name == name || !unnamed(s) {
		return
	}
	if err := f.spaces.Rename(s.ID, name); err != nil && !errors.Is(err, errdefs.ErrDenied) { // who made it does it
		problems[name] = err.Error()
	}
}

// tellTime is how long an engine may take to make a network that it has asked addresses for.
const tellTime = 5 * time.Second

// inTheMaking tells whether an engine, this one or that of another host, has asked for the addresses of a network and may
// still be making it: whoever made it here as well would come between, and its labels are not known yet.
func (f *follower) inTheMaking(s address.Space) bool {
	if r := s.Record(); !r.Engine || r.Told {
		delete(f.seen, s.ID)
		return false
	}
	if _, ok := f.seen[s.ID]; !ok {
		if f.seen == nil {
			f.seen = map[string]time.Time{}
		}
		f.seen[s.ID] = time.Now()
	}
	return time.Since(f.seen[s.ID]) < tellTime
}

// composeLabels are those by which Compose knows a network for its own.
const composeLabels = "com.docker.compose."

// tell tells the other hosts of a network that this engine has made for a person.
func (f *follower) tell(s address.Space, n engine.Network) {
	r := s.Record()
	if !r.Engine || r.Told || unnamed(s) || n.Labels[labelNetwork] != "" {
		return
	}
	labels := map[string]string{}
	for k, v := range n.Labels {
		if strings.HasPrefix(k, composeLabels) {
			labels[k] = v
		}
	}
	if err := f.spaces.Tell(s.ID, labels); err != nil && !errors.Is(err, errdefs.ErrDenied) { // who made it does it
		f.log.Debug("network is not told of", slog.String("network", s.Name), slog.Any("error", err))
	}
}

// remove removes a network from the engine that is no network of the cluster any more.
func (f *follower) remove(ctx context.Context, n engine.Network, problems map[string]string) {
	if err := f.engine.RemoveNetwork(ctx, n.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		problems[n.Name] = fmt.Sprintf("it was removed from the cluster, and stays on this host: %v", err)
		return
	}
	f.log.InfoContext(ctx, "network removed from the engine", slog.String("network", n.Name))
}

// create makes a network of the cluster in the engine.
func (f *follower) create(ctx context.Context, s address.Space, problems map[string]string) {
	r := s.Record()
	n := engine.Network{
		Name: s.Name, Driver: f.driver, Internal: r.Internal,
		IPAM:    engine.IPAM{Driver: f.driver, Options: map[string]string{address.OptionNet: s.Name}},
		Options: optionsOf(r), Labels: map[string]string{},
	}
	if len(r.Labels) == 0 { // Compose takes a network with a label more for one that has to be made anew
		n.Labels[labelNetwork] = s.ID
	}
	for _, p := range s.Prefixes {
		n.IPAM.Config = append(n.IPAM.Config, engine.Subnet{Subnet: p})
		n.IPv6 = n.IPv6 || p.Addr().Is6()
	}
	maps.Copy(n.Labels, r.Labels)
	id, err := f.engine.CreateNetwork(ctx, n)
	if err != nil {
		problems[s.Name] = fmt.Sprintf("it is not made in the engine: %v", err)
		return
	}
	f.mu.Lock()
	f.onEngine[s.ID] = id
	f.mu.Unlock()
	f.log.InfoContext(ctx, "network made in the engine", slog.String("network", s.Name))
}

// labelNetwork is the label of networks that were made here for the cluster.
const labelNetwork = "remora.network"

// rest has nothing made in the engine any more, or again after all. What is under way ends first.
func (f *follower) rest(is bool) {
	f.comparing.Lock()
	defer f.comparing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = is
}

// problem says what is wrong with a network in the engine; empty is nothing.
func (f *follower) problem(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problems[name]
}

// spaceIn finds the cluster's network that one of the engine's is, without asking anybody.
func (f *follower) spaceIn(n engine.Network) (id string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, known := range f.onEngine {
		if known == n.ID {
			return id, true
		}
	}
	return "", false
}
