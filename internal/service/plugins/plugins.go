// Package plugins answers the control API's questions about managed plugins, and has the engine's API answered for
// them and for volumes.
package plugins

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/managed"
	"github.com/remora-plugins/remora/internal/managed/engineapi"
	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/managed/volumes"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Options are what the service stands on.
type Options struct {
	// Dir is where plugins lie, RunDir what ends with the host's run.
	Dir, RunDir string
	// Discovery is where engines look for plugins.
	Discovery string
	// Socket has owner and mode of what they find there.
	Socket sdk.UnixSocket
	// Insecure are registries that may be spoken to without TLS.
	Insecure []string
	Pools    *pool.Set
	Version  string
	// Life ends when the daemon stops.
	Life context.Context //nolint:containedctx // that of the daemon
	Log  *slog.Logger
}

// Service answers about managed plugins. Where there can be none it says why.
type Service struct {
	o       Options
	manager *managed.Manager
	volumes *volumes.Service
	engine  *engineapi.Server
	err     error
	closers []func() error
	started sync.WaitGroup

	mu sync.Mutex
	// restarts is how often each plugin ended by itself or could not be started again, by its ID.
	restarts map[string]uint64
}

// Open returns a service. It does not fail: pools do not depend on it.
func Open(o Options) *Service {
	s := &Service{o: o, restarts: map[string]uint64{}}
	if err := s.open(); err != nil {
		s.err = errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "mend that, and restart the daemon")
		o.Log.Error("no managed plugins", slog.Any("error", err))
	}
	return s
}

func (s *Service) open() error {
	st, err := store.Open(s.o.Dir, s.o.Log)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, st.Close)
	rt, err := runtime.Open(runtime.Options{Dir: filepath.Join(s.o.Dir, "logs"), RunDir: s.o.RunDir, Discovery: s.o.Discovery, Logger: s.o.Log, Changed: s.changed})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, rt.Close)
	reg, err := registry.New(registry.Options{Insecure: s.o.Insecure, UserAgent: "remora/" + s.o.Version})
	if err != nil {
		return err
	}
	s.manager = managed.New(managed.Options{
		Store: st, Registry: reg, Runtime: rt, Discovery: s.o.Discovery, Socket: s.o.Socket, Log: s.o.Log,
		Uses:   func(name string) []string { return s.volumes.Of(name) },
		Forget: func(name string) error { return s.volumes.Forget(name) },
	})
	s.closers = append(s.closers, func() error { s.manager.Close(); return nil })
	s.volumes, err = volumes.Open(filepath.Join(s.o.Dir, "volumes"), drivers{s.o.Pools, s.manager}, s.o.Log)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.volumes.Close)
	s.engine = engineapi.New(engineapi.Options{
		Plugins: s.manager, Volumes: s.volumes, Remora: s.o.Version, Root: s.o.Dir, Life: s.o.Life, Log: s.o.Log,
		Drivers: func() []string {
			names := []string{}
			for _, p := range s.o.Pools.All() {
				names = append(names, p.Name())
			}
			return names
		},
	})
	return nil
}

// Start takes over the plugins that run and starts those that are enabled, beside everything else: one that does
// not start keeps no pool waiting.
func (s *Service) Start(ctx context.Context) {
	if s.err != nil {
		return
	}
	s.started.Go(func() { s.manager.Start(ctx) })
}

// Engine answers the engine's API; nil where there are no managed plugins.
func (s *Service) Engine() *engineapi.Server { return s.engine }

// Close lets go of plugins, which run on.
func (s *Service) Close() error {
	s.started.Wait()
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c())
	}
	return errdefs.Join(errs...)
}

// changed counts what becomes of plugins.
func (s *Service) changed(st runtime.State) {
	if st.Status != runtime.Restarting {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarts[st.ID]++
}

func (s *Service) restarted(id string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts[id]
}

// Status returns the state of each plugin, or why there can be none.
func (s *Service) Status() ([]control.PluginStatus, error) {
	if s.err != nil {
		return nil, s.err
	}
	var all []control.PluginStatus
	for _, p := range s.manager.List() {
		st := s.state(p.ID, p.Enabled)
		all = append(all, control.PluginStatus{Name: p.Name, Enabled: p.Enabled, State: st.State, Error: st.Error, Restarts: s.restarted(p.ID)})
	}
	return all, nil
}

// state returns what a plugin does, in the fields of a [control.Plugin].
func (s *Service) state(id string, enabled bool) control.Plugin {
	st := s.manager.State(id)
	p := control.Plugin{State: string(st.Status), PID: st.Pid, Since: st.Since, Error: st.Error}
	if st.Status == "" {
		p.State = string(runtime.Stopped)
	}
	if st.Status == runtime.Restarting && st.Error == "" && st.Last != nil {
		p.Error = "ended with " + st.Last.String()
	}
	if enabled && p.State == string(runtime.Stopped) && p.Error == "" {
		p.Error = "it is enabled, and does not run"
	}
	return p
}

// List implements [control.Plugins].
func (s *Service) List(context.Context) (control.PluginList, error) {
	if s.err != nil {
		return control.PluginList{}, s.err
	}
	var l control.PluginList
	for _, p := range s.manager.List() {
		shown := s.state(p.ID, p.Enabled)
		shown.Plugin = p
		l.Plugins = append(l.Plugins, shown)
	}
	return l, nil
}

// Inspect implements [control.Plugins].
func (s *Service) Inspect(_ context.Context, req control.PluginRequest) (control.Plugin, error) {
	if s.err != nil {
		return control.Plugin{}, s.err
	}
	r, err := s.manager.Record(req.Name)
	if err != nil {
		return control.Plugin{}, err
	}
	p := s.state(r.Plugin.ID, r.Plugin.Enabled)
	p.Plugin, p.Secrets, p.Pinned = r.Plugin, r.Secrets, r.Pinned.String()
	p.Volumes = s.volumes.Of(r.Plugin.Name)
	if r.Plugin.Enabled {
		p.Socket = s.manager.Socket(r.Plugin)
	}
	return p, nil
}

func source(s control.PluginSource) managed.Source {
	return managed.Source{Reference: s.Reference, Auth: s.Auth, Pin: s.Pin}
}

// Privileges implements [control.Plugins].
func (s *Service) Privileges(ctx context.Context, req control.PluginSource) (control.PluginPrivileges, error) {
	if s.err != nil {
		return control.PluginPrivileges{}, s.err
	}
	p, err := s.manager.Privileges(ctx, source(req))
	return control.PluginPrivileges{Privileges: p}, err
}

// Create implements [control.Plugins].
func (s *Service) Create(ctx context.Context, name string, tar io.Reader) (control.Plugin, error) {
	if s.err != nil {
		return control.Plugin{}, s.err
	}
	if err := s.manager.Create(ctx, name, tar); err != nil {
		return control.Plugin{}, err
	}
	return s.Inspect(ctx, control.PluginRequest{Name: name})
}

// Install implements [control.Plugins].
func (s *Service) Install(ctx context.Context, req control.PluginInstallRequest, progress func(control.Progress)) (control.Plugin, error) {
	if s.err != nil {
		return control.Plugin{}, s.err
	}
	p, err := s.manager.Install(ctx, managed.InstallOptions{
		Source: source(req.PluginSource), Name: req.Alias, Granted: req.Granted, Settings: req.Settings, Secrets: req.Secrets,
	}, sum(req.Reference, progress))
	if err != nil {
		return control.Plugin{}, err
	}
	if !req.Disabled {
		if err := s.manager.Enable(ctx, p.ID, time.Duration(req.Timeout)*time.Second); err != nil {
			return control.Plugin{}, errdefs.Hint(err, "it is installed, and disabled: remora plugin enable "+p.Name)
		}
	}
	return s.Inspect(ctx, control.PluginRequest{Name: p.ID})
}

// Upgrade implements [control.Plugins].
func (s *Service) Upgrade(ctx context.Context, req control.PluginUpgradeRequest, progress func(control.Progress)) (control.Plugin, error) {
	if s.err != nil {
		return control.Plugin{}, s.err
	}
	err := s.manager.Upgrade(ctx, req.Name, managed.InstallOptions{Source: source(req.PluginSource), Granted: req.Granted}, sum(req.Name, progress))
	if err != nil {
		return control.Plugin{}, err
	}
	return s.Inspect(ctx, control.PluginRequest{Name: req.Name})
}

// Push implements [control.Plugins].
func (s *Service) Push(ctx context.Context, req control.PluginPushRequest, progress func(control.Progress)) (control.PluginPushed, error) {
	if s.err != nil {
		return control.PluginPushed{}, s.err
	}
	tell := sum(req.Name, progress)
	var pushed managed.Pushed
	err := s.manager.Push(ctx, req.Name, req.Auth, func(p managed.Progress) {
		if aux, ok := p.Aux.(managed.Pushed); ok {
			pushed = aux
		}
		tell(p)
	})
	if err != nil {
		return control.PluginPushed{}, err
	}
	p, err := s.manager.Inspect(req.Name)
	return control.PluginPushed{Name: p.Name, Digest: pushed.Digest}, err
}

// sum makes of the progress of several layers that of one thing.
func sum(object string, progress func(control.Progress)) managed.ProgressFunc {
	done, total := map[string]int64{}, map[string]int64{}
	var mu sync.Mutex
	return func(p managed.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Total == 0 {
			return
		}
		key := p.ID + p.Status // to download and to unpack are two
		done[key], total[key] = p.Current, p.Total
		all := control.Progress{Object: object}
		for k := range total {
			all.Done += done[k]
			all.Total += total[k]
		}
		progress(all)
	}
}

// Enable implements [control.Plugins].
func (s *Service) Enable(ctx context.Context, req control.PluginEnableRequest) error {
	if s.err != nil {
		return s.err
	}
	return s.manager.Enable(ctx, req.Name, time.Duration(req.Timeout)*time.Second)
}

// Disable implements [control.Plugins].
func (s *Service) Disable(ctx context.Context, req control.PluginForceRequest) error {
	if s.err != nil {
		return s.err
	}
	return s.manager.Disable(ctx, req.Name, req.Force)
}

// Set implements [control.Plugins].
func (s *Service) Set(ctx context.Context, req control.PluginSetRequest) error {
	if s.err != nil {
		return s.err
	}
	return s.manager.Set(ctx, req.Name, req.Settings, req.Secrets)
}

// Remove implements [control.Plugins].
func (s *Service) Remove(ctx context.Context, req control.PluginForceRequest) error {
	if s.err != nil {
		return s.err
	}
	return s.manager.Remove(ctx, req.Name, req.Force)
}
