package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// State is that of a daemon with its pools.
type State int32

// The states of a daemon.
const (
	Starting State = iota
	Running
	Stopping
)

// Set is the pools that there are. The zero value has none, and is starting.
type Set struct {
	state atomic.Int32

	mu    sync.RWMutex
	pools map[string]*Pool
}

// State returns how far the daemon is.
func (s *Set) State() State { return State(s.state.Load()) }

// Become says how far the daemon is.
func (s *Set) Become(state State) { s.state.Store(int32(state)) }

// All returns the pools by name.
func (s *Set) All() []*Pool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	pools := make([]*Pool, 0, len(s.pools))
	for _, p := range s.pools {
		pools = append(pools, p)
	}
	slices.SortFunc(pools, func(a, b *Pool) int { return strings.Compare(a.Conf.Name, b.Conf.Name) })
	return pools
}

// Find returns the pool of a name, nil if there is none.
func (s *Set) Find(name string) *Pool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.pools[name]
}

// Put makes a pool known.
func (s *Set) Put(p *Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pools == nil {
		s.pools = map[string]*Pool{}
	}
	s.pools[p.Conf.Name] = p
}

// Forget makes a pool unknown, and lets those go on who wait for another in its place.
func (s *Set) Forget(p *Pool) {
	s.mu.Lock()
	if s.pools[p.Conf.Name] == p {
		delete(s.pools, p.Conf.Name)
	}
	s.mu.Unlock()
	p.Release()
}

// Enter returns the pool that a request means, and keeps it from being closed until its
// Leave is called. While a pool is changed by a reload it waits.
func (s *Set) Enter(ctx context.Context, name string) (*Pool, error) {
	for {
		pools := s.All()
		names := make([]string, 0, len(pools))
		for _, p := range pools {
			names = append(names, p.Conf.Name)
		}
		found, err := control.ResolvePool(name, names)
		switch state := s.State(); {
		case state == Stopping:
			return nil, ErrStopping
		case err != nil && state == Starting:
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "daemon: starting, its pools are not all there yet")
		case err != nil:
			return nil, err
		}
		p := pools[slices.Index(names, found)]
		if p.Enter() {
			return p, nil
		}
		select {
		case <-p.replaced:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// In does something in the pool that a request means, with a volume if it is given one. What is done
// ends when the pool does.
func In[T any](ctx context.Context, s *Set, name, of string, do func(context.Context, *Pool) (T, error)) (T, error) {
	p, err := s.Enter(ctx, name)
	if err != nil {
		var zero T
		return zero, err
	}
	defer p.Leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrStopping) })() //nolint:contextcheck // it ends with either
	t, err := do(ctx, p)
	return t, s.Elsewhere(ctx, err, name, of)
}

// known returns a volume from memory, empty where that has none, and whether the pool's volumes have been listed. A Get
// would ask storage that may not answer.
func (p *Pool) known(ctx context.Context, name string) (_ volume.Volume, listed bool) {
	for v, err := range p.Handler.List(ctx) {
		if err != nil {
			return volume.Volume{}, false
		}
		if v.Name == name {
			return v, true
		}
	}
	return volume.Volume{}, true
}

// byHand adds how the mount is taken back that somebody has made by "remora volume mount".
func (s *Set) byHand(ctx context.Context, err error, pool, name string) error {
	var all []string
	for _, p := range s.All() {
		all = append(all, p.Conf.Name)
	}
	meant, _ := control.ResolvePool(pool, all) // it is known already which
	p := s.Find(meant)
	if p == nil {
		return err
	}
	v, _ := p.known(ctx, name)
	if !slices.ContainsFunc(v.Mounts, func(m volume.MountRef) bool { return m.ID == control.ByHand }) {
		return err
	}
	where := ""
	if pool != "" {
		where = "--pool " + pool + " "
	}
	return errdefs.Hint(err, "it is mounted by hand; to take that back: remora volume unmount "+where+name)
}

// Elsewhere gives an error a hint where no pool was named, and the volume is in another one. What the driver of
// the pool that was meant cannot do is beside the point then, and where nobody has the volume.
func (s *Set) Elsewhere(ctx context.Context, err error, pool, name string) error {
	if name != "" && errors.Is(err, errdefs.ErrInUse) {
		return s.byHand(ctx, err, pool, name)
	}
	if pool != "" || name == "" || !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrUnsupported) {
		return err
	}
	var all, at []string
	for _, p := range s.All() {
		all = append(all, p.Conf.Name)
		if v, _ := p.known(ctx, name); v.Name == name {
			at = append(at, p.Conf.Name)
		}
	}
	meant, _ := control.ResolvePool(pool, all) // it is known already which
	if slices.Contains(at, meant) {
		return err
	}
	if p := s.Find(meant); p != nil && errors.Is(err, errdefs.ErrUnsupported) {
		if _, listed := p.known(ctx, name); listed {
			err = errdefs.Errorf(errdefs.ErrNotFound, "volume %q: no such volume", name)
		}
	}
	if len(at) == 0 {
		return err
	}
	return errdefs.Hint(err, fmt.Sprintf("pool %q has a volume of this name: --pool %s", at[0], at[0]))
}
