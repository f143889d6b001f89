package network

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// usesTime bounds the question who uses a network.
const usesTime = 5 * time.Second

// Remove implements [control.Networks]. Any member may remove a network on which nobody is.
func (s *Service) Remove(ctx context.Context, r control.NetworkRequest) error {
	in, err := s.inside()
	if err != nil {
		return err
	}
	space, ok := in.find(r.Name)
	switch {
	case !ok:
		return errdefs.Errorf(errdefs.ErrNotFound, "network %q: the cluster has none of that name", r.Name)
	case space.Record().Going:
		return nil
	}
	if who := in.uses(ctx, space); len(who) > 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "network %q: in use by %s", r.Name, strings.Join(who, ", ")),
			"remove or disconnect these containers first")
	}
	return in.alloc.EndNetwork(ctx, r.Name)
}

// find returns the network of a name.
func (in *inside) find(name string) (address.Space, bool) {
	for _, s := range in.alloc.Networks() {
		if s.Name == name {
			return s, true
		}
	}
	return address.Space{}, false
}

// uses says who uses a network, on every host. Hosts that have a part in it are asked; of those that cannot be reached it is
// known what they have told of their containers.
func (in *inside) uses(ctx context.Context, space address.Space) []string {
	ctx, cancel := context.WithTimeout(ctx, usesTime)
	defer cancel()
	by := map[record.Host][]string{in.records.Self(): in.usedHere(space.ID)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	asked := map[record.Host]bool{in.records.Self(): true}
	for _, o := range in.alloc.Owned(space.ID) {
		if asked[o.Owner] {
			continue
		}
		asked[o.Owner] = true
		wg.Go(func() {
			who, err := in.u.askUses(ctx, o.Owner, space.ID)
			if err != nil { // down, or of a version that does not know the question
				who = in.told(space.ID, o.Owner)
			}
			mu.Lock()
			defer mu.Unlock()
			by[o.Owner] = who
		})
	}
	wg.Wait()
	nick := in.nicknames()
	var all []string
	for _, h := range slices.SortedFunc(maps.Keys(by), record.Host.Compare) {
		for _, who := range by[h] {
			all = append(all, fmt.Sprintf("%s on %s", who, nick.of(h)))
		}
	}
	slices.Sort(all)
	return all
}

// usedHere says which of this host's containers are on a network, by their name, or by their address.
func (in *inside) usedHere(space string) []string {
	names := map[netip.Addr]string{}
	for _, r := range in.records.Records(record.KindName) {
		var n record.Name
		if r.Writer != in.records.Self() || json.Unmarshal(r.Body, &n) != nil || n.Container == "" || n.Network != space || len(n.Names) == 0 {
			continue
		}
		for _, ip := range n.Addresses {
			names[ip] = n.Names[0]
		}
	}
	var who []string
	for _, a := range in.alloc.Addresses() {
		if a.Network != space || gatewayKey(a.Key) || a.Key == address.AuxKey {
			continue
		}
		name := names[a.Address]
		if name == "" {
			name = a.Address.String()
		}
		if !slices.Contains(who, name) {
			who = append(who, name)
		}
	}
	return who
}

// told are the containers on a network of which a host has told.
func (in *inside) told(space string, of record.Host) []string {
	var who []string
	for _, r := range in.records.Records(record.KindName) {
		var n record.Name
		if r.Writer == of && json.Unmarshal(r.Body, &n) == nil && n.Container != "" && n.Network == space && len(n.Names) > 0 {
			who = append(who, n.Names[0])
		}
	}
	return who
}

// living are the records as the data plane and names need them: without networks that are gone although the
// record of the host that made them, or had them, is there.
type living struct{ *store.Store }

func (l living) Records(kind string) []record.Record {
	all := l.Store.Records(kind)
	switch kind {
	case record.KindNetwork:
	case record.KindSwarm:
		return current(all, l.Self())
	default:
		return all
	}
	gone := map[string]bool{}
	for _, r := range l.Store.Records(record.KindEnding) {
		var e record.Ending
		if json.Unmarshal(r.Body, &e) == nil && e.Gone {
			gone[r.Name] = true
		}
	}
	if len(gone) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(r record.Record) bool {
		var n record.Network
		return json.Unmarshal(r.Body, &n) == nil && gone[n.ID]
	})
}

func (l living) Watch(kinds ...string) (changed <-chan struct{}, stop func()) {
	if slices.Contains(kinds, record.KindNetwork) {
		kinds = append(slices.Clone(kinds), record.KindEnding)
	}
	return l.Store.Watch(kinds...)
}
