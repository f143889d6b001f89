package address

import (
	"context"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Rename gives a network another name, by its ID. It is ErrDenied but for the host that created it, and ErrExists where
// another network has the name.
func (a *Allocator) Rename(id, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = nil
	s, err := a.created(id)
	if err != nil || s.Name == name {
		return err
	}
	if other, ok := a.look().named(name); ok {
		return errdefs.Errorf(errdefs.ErrExists, "network %q: there is one, of subnet %s", name, join(other.Prefixes))
	}
	a.view = nil
	if err := a.config.Store.Put(record.KindNetwork, name, s.network); err != nil {
		return err
	}
	return a.config.Store.Delete(record.KindNetwork, s.Name) // until then it has two names
}

// Tell says that the engine of this host has made a network that it asked addresses for, and with which labels. It is
// ErrDenied but for the host that created it.
func (a *Allocator) Tell(id string, labels map[string]string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = nil
	s, err := a.created(id)
	if err != nil || s.network.Told {
		return err
	}
	s.network.Told, s.network.Labels = true, labels
	a.view = nil
	return a.config.Store.Put(record.KindNetwork, s.Name, s.network)
}

// EndNetwork says that a network is to go: every host removes it from its engine, and when none has a part in it any
// more DeleteNetwork succeeds. Only the host that created it can say so; on any other it is ErrDenied.
func (a *Allocator) EndNetwork(_ context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = nil
	s, ok := a.look().named(name)
	if !ok {
		return errdefs.Errorf(errdefs.ErrNotFound, "network %q: not known", name)
	}
	s, err := a.created(s.ID)
	if err != nil || s.network.Going {
		return err
	}
	s.network.Going = true
	a.view = nil
	return a.config.Store.Put(record.KindNetwork, name, s.network)
}

// created returns a network that this host has created.
func (a *Allocator) created(id string) (Space, error) {
	v := a.look()
	s, ok := v.spaces[id]
	switch {
	case !ok || id == clusterRange:
		return s, errdefs.Errorf(errdefs.ErrNotFound, "network of ID %q: not known", id)
	case s.Creator != v.self:
		return s, errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "network %q: host %s created it", s.Name, v.nickname(s.Creator)), "do it there")
	}
	return s, nil
}
