// Package network is the network across hosts as people and engines meet it: what is launched and remembered, and how
// the rooms below it are put together. The cluster's records come from internal/cluster, addresses from internal/address,
// the data plane from internal/mesh, names from internal/names; here they only meet.
//
// A host that launched nothing has the plugin all the same, because an engine asks a plugin what it is only once: it
// answers with what to do.
package network

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// DefaultDriver is the name of the driver for engines where nothing else was chosen.
const DefaultDriver = "remora"

// Options of a service.
type Options struct {
	// Dir keeps what outlives a reboot, RunDir what does not. Both are made.
	Dir, RunDir string
	// Driver is as which engines know it; empty is [DefaultDriver].
	Driver string
	// Scope is whose networks engines are given: their own, or with [network.Global] those of a Swarm.
	Scope network.Scope
	// Network is the driver of networks.
	Network catalog.Network
	// Engines returns the engines of this host, which are asked for names and given networks.
	Engines func() []engine.Engine
	// FastPath has plain packets between neighbours pass this host without its firewall.
	FastPath bool
	// Up, if it is not nil, is called each time the network has come up.
	Up func()
	// Tunnel is the command that carries encrypted packets where the kernel cannot.
	Tunnel []string
	// Podman is the command that Podman's network program starts as its plugin.
	Podman  []string
	Version string
	Log     *slog.Logger
}

// Service is the network of this host. Its methods may be called at the same time.
type Service struct {
	o    Options
	root *os.Root
	life context.Context //nolint:containedctx // that of the daemon
	end  context.CancelFunc
	// plugin answers engines.
	plugin *plugin

	verbs sync.Mutex // held by a verb that changes what runs
	mu    sync.Mutex
	saved saved
	up    *up // nil while nothing was launched, or it was stopped
}

// Open reads what is remembered. Nothing runs before Start.
func Open(ctx context.Context, o Options) (*Service, error) {
	o.Driver = cmp.Or(o.Driver, DefaultDriver)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{o.Dir, o.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, state.Classify(err)
		}
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, state.Classify(err)
	}
	s := &Service{o: o, root: root}
	if err := s.saved.read(root); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	if s.plugin, err = newPlugin(ctx, s); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// Start goes on with what was launched, if it was and was not stopped. What is wrong is in the status, and tried again
// by the next launch.
func (s *Service) Start(ctx context.Context) {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	if !s.saved.Launched {
		return
	}
	if err := s.bringUp(ctx); err != nil {
		s.o.Log.ErrorContext(ctx, "the network does not come up", slog.Any("error", err))
	}
}

// Close ends what runs, and leaves containers talking.
func (s *Service) Close(ctx context.Context) error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	err := s.takeDown() //nolint:contextcheck // an end is not cut short
	s.end()
	return errors.Join(err, s.plugin.close(ctx), s.root.Close())
}

// bringUp makes what was launched run. verbs is held.
func (s *Service) bringUp(ctx context.Context) error {
	u, err := newUp(ctx, s)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.up = u
	s.mu.Unlock()
	if in := u.in(); in != nil && in.unmade() {
		if err := in.found(ctx); err != nil { // a launch was cut off
			return err
		}
	}
	if s.o.Up != nil {
		s.o.Up()
	}
	return nil
}

// takeDown ends it. verbs is held.
func (s *Service) takeDown() error {
	s.mu.Lock()
	u := s.up
	s.up = nil
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	return u.close()
}

// running returns what runs, or what to do.
func (s *Service) running() (*up, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up == nil {
		// Who asked an engine sees no hint.
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, `network: it does not run on this host; start it with "remora network launch"`)
	}
	return s.up, nil
}

// inside returns what runs in a cluster, or that there is none yet.
func (s *Service) inside() (*inside, error) {
	u, err := s.running()
	if err != nil {
		return nil, err
	}
	if in := u.in(); in != nil {
		return in, nil
	}
	return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "network: this host is in no cluster yet"),
		`"remora network status" says what it waits for`)
}

// dir makes a directory of this host's state, and returns its path.
func (s *Service) dir(name string) (string, error) {
	if err := s.root.MkdirAll(name, 0o700); err != nil {
		return "", state.Classify(err)
	}
	return filepath.Join(s.o.Dir, name), nil
}
