package managed

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/managed/front"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// kinds are what an activation answers, by the capability in a config.
var kinds = map[string]string{
	"volumedriver": "VolumeDriver", "networkdriver": "NetworkDriver", "ipamdriver": "IpamDriver", "authz": "authz",
	"logdriver": "LogDriver", "metricscollector": "MetricsCollector", "graphdriver": "GraphDriver",
}

func implements(c plugin.Config) []string {
	all := []string{}
	for _, t := range c.Interface.Types {
		if kind := kinds[t.Capability]; kind != "" && t.Prefix == "docker" {
			all = append(all, kind)
		}
	}
	return all
}

// fronted tells whether a plugin has paths in its answers, so that engines are to find its front.
func fronted(c plugin.Config) bool { return Provides(c, "volumedriver") }

// publish has engines find a plugin that is not published by what runs it.
func (m *Manager) publish(ctx context.Context, r store.Record) error {
	if m.o.Discovery == "" || !fronted(r.Plugin.Config) {
		return nil
	}
	f, err := front.Open(ctx, front.Options{
		Dir: m.o.Discovery, Name: r.Plugin.Name, Socket: m.o.Socket, Implements: implements(r.Plugin.Config),
		Dial:     func(ctx context.Context) (net.Conn, error) { return m.dial(ctx, r.Plugin.ID) },
		HostPath: func(path string) string { return m.inPlugin(r, path) },
		Log:      m.o.Log,
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fronts[r.Plugin.ID] = f
	return nil
}

// withdraw takes away the name of a plugin.
func (m *Manager) withdraw(id string) {
	m.mu.Lock()
	f := m.fronts[id]
	delete(m.fronts, id)
	m.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// dial connects to a plugin. While plugins are taken over at the start, and while one is started again, it waits.
func (m *Manager) dial(ctx context.Context, id string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, runtime.HoldTime)
	defer cancel()
	for {
		c, err := m.o.Runtime.Dial(ctx, id)
		if err == nil {
			return c, nil
		}
		select {
		case <-m.adopted:
			return nil, err
		default:
		}
		select {
		case <-m.adopted:
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Start takes over the plugins that run, and starts those that are enabled and do not. What runs and is of no
// record ends. Engines find them from the begin, and wait.
func (m *Manager) Start(ctx context.Context) {
	defer close(m.adopted)
	var wanted []runtime.Plugin
	for _, r := range m.o.Store.Records() {
		if !r.Plugin.Enabled {
			continue // who enables it runs it; who upgrades it may take long
		}
		// Who disables or removes it meanwhile comes before, or waits until it is taken over: nothing runs that is not to.
		r, unlock, err := m.locked(ctx, r.Plugin.ID)
		if err != nil {
			continue // it was removed, or the daemon stops
		}
		if !r.Plugin.Enabled {
			unlock()
			continue
		}
		defer unlock()
		wanted = append(wanted, m.toRun(r))
		if err := m.publish(ctx, r); err != nil {
			m.o.Log.ErrorContext(ctx, "plugin not published", slog.String("plugin", r.Plugin.Name), slog.Any("error", err))
		}
	}
	if err := m.o.Runtime.Adopt(ctx, wanted); err != nil {
		m.o.Log.ErrorContext(ctx, "plugins not as they are to be", slog.String("error", errdefs.OneLine(err.Error())))
	}
}

// Close lets go of the plugins, which run on.
func (m *Manager) Close() {
	m.mu.Lock()
	all := m.fronts
	m.fronts = map[string]*front.Front{}
	m.mu.Unlock()
	for _, f := range all {
		f.Close()
	}
}
