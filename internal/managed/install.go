package managed

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/plugin"
	"github.com/opencontainers/go-digest"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Create makes a plugin of a tar, plain or compressed by gzip, with config.json and rootfs.
func (m *Manager) Create(ctx context.Context, name string, tar io.Reader) error {
	ref, err := reference.ParseName(name)
	if err != nil {
		return err
	}
	unlock, err := m.locks.Lock(ctx, nameLock+ref.Name())
	if err != nil {
		return err
	}
	defer unlock()
	r, err := m.o.Store.Create(ctx, ref.Name(), tar)
	if err != nil {
		return err
	}
	m.told("create", r, r.Plugin.Name)
	return nil
}

// nameLock begins the locks of names that plugins are made under; the others are of IDs.
const nameLock = "name "

// InstallOptions say what is installed, and how.
type InstallOptions struct {
	Source
	// Name is what it is called here; empty is the name of the reference.
	Name string
	// Granted has to be all that it asks for.
	Granted plugin.Privileges
	// Settings and Secrets are as for [Manager.Set].
	Settings []string
	Secrets  map[string]string
}

// Install takes a plugin from a registry. It is not enabled.
func (m *Manager) Install(ctx context.Context, o InstallOptions, progress ProgressFunc) (plugin.Plugin, error) {
	name, err := LocalName(o.Reference, o.Name)
	if err != nil {
		return plugin.Plugin{}, err
	}
	unlock, err := m.locks.Lock(ctx, nameLock+name)
	if err != nil {
		return plugin.Plugin{}, err
	}
	defer unlock()
	if err := m.o.Store.Free(name); err != nil {
		return plugin.Plugin{}, err
	}
	defer m.o.Store.Hold()()
	from, pulled, err := m.pull(ctx, o, progress)
	if err != nil {
		return plugin.Plugin{}, err
	}
	r, err := m.o.Store.Install(ctx, name, from, pulled.Image, o.change, tell(progress))
	if err != nil {
		return plugin.Plugin{}, err
	}
	m.events.Add("plugin", "pull", from, map[string]string{"name": name})
	return r.Plugin, nil
}

// change sets what the user gave.
func (o InstallOptions) change(r *store.Record) (err error) {
	r.Pinned = digest.Digest(o.Pin)
	if r.Plugin.Config, r.Plugin.Settings, err = settings.Set(r.Plugin.Config, r.Plugin.Settings, o.Settings); err != nil {
		return err
	}
	r.Secrets, err = withSecrets(r.Plugin.Config, r.Secrets, o.Secrets)
	return err
}

// Upgrade makes another version of a plugin that is disabled. Its ID, what was set, and what is below its propagated
// mount stay.
func (m *Manager) Upgrade(ctx context.Context, name string, o InstallOptions, progress ProgressFunc) error {
	r, unlock, err := m.locked(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if r.Plugin.Enabled {
		return errdefs.Errorf(errdefs.ErrInUse, "plugin must be disabled before upgrading: plugin %s is enabled", r.Plugin.Name)
	}
	if r.Pinned != "" && o.Pin == "" {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "plugin %s: it is pinned to %s, and no digest is given for what it is to become", r.Plugin.Name, r.Pinned),
			"look at the new version, and give its digest: remora plugin upgrade --pin sha256:…")
	}
	if o.Reference == "" {
		o.Reference = r.Plugin.PluginReference
	}
	defer m.o.Store.Hold()()
	from, pulled, err := m.pull(ctx, o, progress)
	if err != nil {
		return err
	}
	if r, err = m.o.Store.Upgrade(ctx, r.Plugin.ID, from, pulled.Image, o.change, tell(progress)); err != nil {
		return err
	}
	m.events.Add("plugin", "pull", from, map[string]string{"name": r.Plugin.Name})
	return nil
}
