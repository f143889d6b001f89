package address

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// endingAge is for how long an ending stays though no record of its network is there: that may come back.
const endingAge = time.Hour

// lookAtEndings has networks go, or be gone, as any member said.
func (v *view) lookAtEndings(s Store) {
	each(v, s, record.KindEnding, func(r record.Record, b record.Ending) {
		sp, ok := v.spaces[r.Name]
		_, buried := v.buried[r.Name]
		switch {
		case buried || r.Name == clusterRange:
		case !ok && r.Writer == v.self && !b.Gone && time.Since(r.Written) > endingAge:
			v.ended = append(v.ended, r.Name)
		case !ok:
		case b.Gone:
			v.buried[r.Name] = sp
			delete(v.spaces, r.Name)
		default:
			sp.network.Going = true
			v.spaces[r.Name] = sp
		}
	})
}

// EndNetwork says that a network is to go: every host removes it from its engine, and when none has a part in it any
// more DeleteNetwork succeeds on one of them. Any member can say so.
func (a *Allocator) EndNetwork(_ context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = nil
	v := a.look()
	s, ok := v.named(name)
	switch {
	case !ok:
		return errdefs.Errorf(errdefs.ErrNotFound, "network %q: not known", name)
	case s.network.Going:
		return nil
	}
	a.view = nil
	if s.Creator != v.self {
		return a.config.Store.Put(record.KindEnding, s.ID, record.Ending{})
	}
	s.network.Going = true
	return a.config.Store.Put(record.KindNetwork, name, s.network)
}

// DeleteNetwork makes a network unknown to all hosts, as long as no other has addresses of it, nor this one's
// containers. That is for who created it, or has what that owned; if that left, for the member of the lowest key. To it
// the others give what they own of a network that is to go.
func (a *Allocator) DeleteNetwork(_ context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = nil
	v := a.look()
	s, ok := v.named(name)
	if !ok {
		return errdefs.Errorf(errdefs.ErrNotFound, "network %q: not known", name)
	}
	if who := v.closer(s); who != v.self {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "network %q: host %s has to do that", name, v.nickname(who)), "remove it there")
	}
	var who []string
	for at, u := range a.used {
		if at.space == s.ID {
			who = append(who, fmt.Sprintf("%s (%s)", at.address, u.key))
		}
	}
	for _, h := range v.owners(s.ID) {
		if name := v.nickname(h.to); h.to != v.self && !slices.Contains(who, "host "+name) {
			who = append(who, "host "+name)
		}
	}
	switch {
	case len(who) > 0:
		slices.Sort(who)
		return errdefs.Errorf(errdefs.ErrInUse, "network %q: in use by %s", name, strings.Join(who, ", "))
	case !v.whole(s):
		return errdefs.Errorf(errdefs.ErrUnavailable, "network %q: not all hosts have said yet what they know of the one that made it", name)
	}
	return a.bury(s)
}

// whole reports whether nothing of a network can come to light any more of which nobody alive knows.
func (v *view) whole(s Space) bool {
	r, ok := v.removals[s.Creator]
	return !ok || s.life > r.incarnation || v.done(r)
}

// closer is the host that makes a network unknown in the end.
func (v *view) closer(s Space) record.Host {
	heir := v.heir(s.Creator)
	if _, there := v.members[heir]; there || !s.network.Going {
		return heir
	}
	lowest := v.self
	for h := range v.members {
		if !v.removed(h) && h.Compare(lowest) < 0 {
			lowest = h
		}
	}
	return lowest
}

// bury makes a network unknown that is all this host's.
func (a *Allocator) bury(s Space) error {
	a.view = nil
	if s.Creator == a.config.Store.Self() {
		return a.config.Store.Delete(record.KindNetwork, s.Name)
	}
	return a.config.Store.Put(record.KindEnding, s.ID, record.Ending{Gone: true})
}

// unused reports whether this host has no part in a network that is to go, but for what it owns.
func (a *Allocator) unused(s Space) bool {
	if !s.network.Going {
		return false
	}
	for at := range a.used {
		if at.space == s.ID {
			return false
		}
	}
	return true
}

// mayUse refuses a network that is to go.
func (s Space) mayUse() error {
	if s.network.Going {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: it is being removed from all hosts", s), "use another network; or make one of this name again once it is gone")
	}
	return nil
}
