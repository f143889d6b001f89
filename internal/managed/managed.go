// Package managed runs Docker's managed plugins: the verbs of "docker plugin" over what is on disk
// (store), in registries (registry), and running (runtime).
//
// Every verb may be repeated, and may be cut off between any two lines: a plugin is there whole or not at all, and
// its record says what a user wants, of which the next start makes what is. A verb holds the lock of its
// plugin, and nobody else's; no lock is held while a plugin is asked something. Lists and inspection wait for none.
//
// Errors have the texts of dockerd, as scripts look for them, with more behind them where more can be said.
package managed

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/managed/front"
	"github.com/remora-plugins/remora/internal/managed/lock"
	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Options is what a [Manager] is made of.
type Options struct {
	Store    *store.Store
	Registry *registry.Client
	Runtime  *runtime.Runtime
	// Discovery is where engines look for plugins; empty publishes none. Socket has owner and mode of what they find.
	Discovery string
	Socket    sdk.UnixSocket
	// Uses returns the volumes that are known of a plugin; nil knows none.
	Uses func(name string) []string
	// Forget has the volumes of a plugin forgotten, which is removed; nil does nothing.
	Forget func(name string) error
	Log    *slog.Logger
}

// Manager does what people ask of managed plugins. Its methods are safe for concurrent use.
type Manager struct {
	o      Options
	locks  lock.Keyed
	events Events

	mu sync.Mutex
	// limits is how long a call to a plugin may take, by its ID. As in an engine a restart forgets it.
	limits map[string]time.Duration
	// fronts are what engines find of plugins that have volumes, by ID.
	fronts map[string]*front.Front

	adopted chan struct{} // closed when Start is done
}

// New returns a manager. Nothing runs before [Manager.Start].
func New(o Options) *Manager {
	if o.Uses == nil {
		o.Uses = func(string) []string { return nil }
	}
	if o.Forget == nil {
		o.Forget = func(string) error { return nil }
	}
	return &Manager{o: o, limits: map[string]time.Duration{}, fronts: map[string]*front.Front{}, adopted: make(chan struct{})}
}

// Events are those of plugins, and whatever else is added.
func (m *Manager) Events() *Events { return &m.events }

func (m *Manager) toRun(r store.Record) runtime.Plugin {
	return runtime.Plugin{
		ID: r.Plugin.ID, Name: r.Plugin.Name, Rootfs: m.o.Store.Rootfs(r), Propagated: m.o.Store.PropagatedMount(r),
		Config: r.Plugin.Config, Settings: r.Plugin.Settings, Secrets: r.Secrets, Unpublished: fronted(r.Plugin.Config),
	}
}

// List returns all plugins, sorted by name.
func (m *Manager) List() []plugin.Plugin {
	all := []plugin.Plugin{}
	for _, r := range m.o.Store.Records() {
		all = append(all, r.Plugin)
	}
	return all
}

// Inspect returns one plugin.
func (m *Manager) Inspect(name string) (plugin.Plugin, error) {
	r, err := m.o.Store.Get(name)
	return r.Plugin, err
}

// Record returns all that is known of one plugin.
func (m *Manager) Record(name string) (store.Record, error) { return m.o.Store.Get(name) }

// State returns how a plugin is.
func (m *Manager) State(id string) runtime.State { return m.o.Runtime.State(id) }

// Socket returns where a plugin listens.
func (m *Manager) Socket(p plugin.Plugin) string {
	return m.o.Runtime.Socket(p.ID, p.Config.Interface.Socket)
}

// Runtime is what runs the plugins.
func (m *Manager) Runtime() *runtime.Runtime { return m.o.Runtime }

// Provides tells whether a plugin is of a kind, such as "volumedriver".
func Provides(c plugin.Config, capability string) bool {
	return slices.ContainsFunc(c.Interface.Types, func(t plugin.CapabilityID) bool {
		return t.Prefix == "docker" && t.Capability == strings.ToLower(capability)
	})
}

// LocalName is what a plugin of a reference is called here, which an alias changes.
func LocalName(ref, alias string) (string, error) {
	if alias != "" {
		r, err := reference.ParseName(alias)
		if err != nil {
			return "", err
		}
		return r.Name(), nil
	}
	r, err := reference.Parse(ref)
	if err != nil {
		return "", err
	}
	return r.Name(), nil
}

// locked finds a plugin, waits for its lock, and finds it again: it may have changed meanwhile.
func (m *Manager) locked(ctx context.Context, name string) (store.Record, func(), error) {
	r, err := m.o.Store.Get(name)
	if err != nil {
		return r, nil, err
	}
	unlock, err := m.locks.Lock(ctx, r.Plugin.ID)
	if err != nil {
		return r, nil, err
	}
	if r, err = m.o.Store.Get(r.Plugin.ID); err != nil {
		unlock()
		return r, nil, errdefs.Errorf(errdefs.ErrNotFound, "plugin %q not found", name)
	}
	return r, unlock, nil
}

// inPlugin makes of a path as a plugin sees it the one that it has on the host. As in the plugin, ".." ends at the top.
func (m *Manager) inPlugin(r store.Record, path string) string {
	if path == "" {
		return ""
	}
	path = filepath.Clean("/" + path)
	if at := filepath.Clean("/" + r.Plugin.Config.PropagatedMount); r.Plugin.Config.PropagatedMount != "" {
		if rest, ok := strings.CutPrefix(path, at); ok && (rest == "" || rest[0] == '/' || at == "/") {
			return filepath.Join(m.o.Store.PropagatedMount(r), rest)
		}
	}
	return filepath.Join(m.o.Store.Rootfs(r), path)
}

// ProgressFunc is told how far something long has come.
type ProgressFunc func(Progress)

// Progress is a line of an engine's stream, or a step of one thing.
type Progress struct {
	// ID is that of a layer, the tag, or empty.
	ID     string
	Status string
	// Current and Total are bytes.
	Current, Total int64
	// Aux is the result of a push.
	Aux any
}

// Source names a plugin in a registry.
type Source struct {
	Reference string
	// Auth is what the header X-Registry-Auth holds; empty is nobody.
	Auth string
	// Pin is the digest that it must have; empty is any.
	Pin string
}
