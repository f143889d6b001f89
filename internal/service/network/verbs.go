package network

import (
	"context"
	"errors"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/password"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// firstNetwork is the network that each cluster has.
const firstNetwork = "remora"

// joinTime is how long a launch waits to have joined.
const joinTime = 5 * time.Second

// Launch implements [control.Networks].
func (s *Service) Launch(ctx context.Context, r control.NetworkLaunchRequest) (control.NetworkLaunched, error) {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	var launched control.NetworkLaunched
	s.mu.Lock()
	next, running := s.saved, s.up != nil
	s.mu.Unlock()
	if err := next.take(r); err != nil {
		return launched, err
	}
	generated, err := next.takePassword(r)
	if err != nil {
		return launched, err
	}
	if next.TunnelKey == (tunnel.Key{}) {
		if next.TunnelKey, err = newTunnelKey(); err != nil {
			return launched, err
		}
	}
	next.Launched, next.Once = true, true
	if running {
		if err := s.takeDown(); err != nil { //nolint:contextcheck // an end is not cut short
			return launched, err
		}
	}
	if err := next.write(s.root); err != nil {
		return launched, err
	}
	if err := s.root.RemoveAll(refusedName); err != nil { // who launches again wants them all
		return launched, state.Classify(err)
	}
	s.mu.Lock()
	s.saved = next
	s.mu.Unlock()
	if err := s.bringUp(ctx); err != nil {
		return launched, err
	}
	u, err := s.running()
	if err != nil {
		return launched, err
	}
	if launched.Founded, err = u.join(ctx, r.Peers); errors.Is(err, errdefs.ErrUnavailable) && !launched.Founded {
		launched.Warnings = append(launched.Warnings, errdefs.OneLine(err.Error())+"; it is tried on")
	} else if err != nil {
		return launched, err
	}
	if id := u.cluster.ID(); id != (record.Cluster{}) {
		launched.Cluster = id.String()
	}
	launched.Password = generated
	launched.Listen = u.conf.listening(u)
	return launched, nil
}

// takePassword makes what is to be the password of what was asked for, and returns one that was generated.
func (s *saved) takePassword(r control.NetworkLaunchRequest) (generated string, err error) {
	text := r.Password
	switch {
	case r.NoPassword:
		s.Password = nil
		return "", nil
	case text != "":
	case s.Once:
		return "", nil // as before
	case len(r.Peers) > 0:
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "password: to join others it takes theirs"),
			"give it by --password-file or REMORA_NETWORK_PASSWORD; --no-password joins a cluster that has none")
	default:
		generated = password.Generate()
		text = generated
	}
	key, err := password.Derive(text)
	debug.FreeOSMemory() // to make the key took 64 MiB, on purpose, which are of no use any more
	if err != nil {
		return "", err
	}
	s.Password = &key
	return generated, nil
}

// join founds a cluster, or joins that of the peers.
func (u *up) join(ctx context.Context, peers []string) (founded bool, err error) {
	in := u.cluster.ID() != record.Cluster{}
	switch {
	case in && len(peers) == 0:
		return false, nil
	case in:
		return false, u.cluster.Connect(peers, false) //nolint:contextcheck // hosts are dialled for as long as it runs
	case len(peers) > 0 || len(u.cluster.Targets()) > 0:
		ctx, cancel := context.WithTimeout(ctx, joinTime)
		defer cancel()
		return false, u.cluster.Join(ctx, peers)
	}
	if err := u.cluster.Found(); err != nil {
		return false, err
	}
	rooms, err := u.s.inside()
	if err != nil {
		return true, errors.Join(err, u.problem())
	}
	return true, rooms.found(ctx)
}

// Connect implements [control.Networks].
func (s *Service) Connect(_ context.Context, r control.NetworkConnectRequest) error {
	u, err := s.running()
	if err != nil {
		return err
	}
	return u.cluster.Connect(r.Peers, r.Replace) //nolint:contextcheck // hosts are dialled for as long as it runs
}

// Forget implements [control.Networks].
func (s *Service) Forget(_ context.Context, r control.NetworkPeersRequest) error {
	u, err := s.running()
	if err != nil {
		return err
	}
	return u.cluster.Forget(r.Peers) //nolint:contextcheck // hosts are dialled for as long as it runs
}

// Stop implements [control.Networks].
func (s *Service) Stop(context.Context) error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	s.mu.Lock()
	next := s.saved
	s.mu.Unlock()
	if !next.Launched {
		return nil
	}
	next.Launched = false
	if err := next.write(s.root); err != nil {
		return err
	}
	s.mu.Lock()
	s.saved = next
	s.mu.Unlock()
	return s.takeDown() //nolint:contextcheck // an end is not cut short
}

// RemovePeer implements [control.Networks].
func (s *Service) RemovePeer(_ context.Context, r control.NetworkPeersRequest) (control.NetworkRemoved, error) {
	removed := control.NetworkRemoved{Peers: map[string]uint64{}}
	in, err := s.inside()
	if err != nil {
		return removed, err
	}
	hosts := map[string]record.Host{}
	for _, name := range r.Peers { // all are found, or none is removed
		m, err := in.u.cluster.Find(name)
		if err != nil {
			return removed, err
		}
		if m.Self {
			return removed, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "peer %q: it is this host", name), `to leave the cluster there is "remora network reset"`)
		}
		hosts[m.Nickname] = m.Host
	}
	owned := in.owned()
	for name, h := range hosts {
		if err := in.u.cluster.Remove(h); err != nil {
			return removed, err
		}
		removed.Peers[name] = owned[h]
	}
	return removed, nil
}

// Create implements [control.Networks].
func (s *Service) Create(ctx context.Context, r control.NetworkCreateRequest) (control.NetworkInfo, error) {
	in, err := s.inside()
	if err != nil {
		return control.NetworkInfo{}, err
	}
	if r.Name == "" {
		return control.NetworkInfo{}, errdefs.Errorf(errdefs.ErrInvalid, "network: want a name")
	}
	c, err := s.o.Network.Choose(network.Network{Options: r.Options, Internal: r.Internal})
	if err != nil {
		return control.NetworkInfo{}, err
	}
	n := record.Network{Subnets: r.Subnets, Range: r.Range}
	chosen(&n, c)
	v6 := r.IPv6 && !slices.ContainsFunc(r.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
	space, err := in.alloc.CreateNetwork(ctx, address.NewNetwork{Name: r.Name, Network: n, V4: len(r.Subnets) == 0, V6: v6})
	if err != nil {
		return control.NetworkInfo{}, err
	}
	return in.info(space, in.nicknames()), nil
}

// AddName implements [control.Networks].
func (s *Service) AddName(_ context.Context, r control.NetworkNameRequest) error {
	in, err := s.inside()
	if err != nil {
		return err
	}
	return in.hand.Add(r.Name, r.Addresses)
}

// RemoveName implements [control.Networks].
func (s *Service) RemoveName(_ context.Context, r control.NetworkNameRequest) error {
	in, err := s.inside()
	if err != nil {
		return err
	}
	return in.hand.Remove(r.Name, r.Addresses...)
}
