package managed

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Enable runs a plugin, now and after each start. limit bounds each later call to it; 0 is none.
func (m *Manager) Enable(ctx context.Context, name string, limit time.Duration) error {
	r, unlock, err := m.locked(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if r.Plugin.Enabled {
		return errdefs.Errorf(errdefs.ErrExists, "plugin already enabled: plugin %s is enabled", r.Plugin.Name)
	}
	// Who hangs up has it started or not at all, but not forgotten while it runs.
	ctx = context.WithoutCancel(ctx)
	if err := m.o.Runtime.Start(ctx, m.toRun(r)); err != nil {
		return err
	}
	was := r
	r.Plugin.Enabled, r.Volumes = true, nil
	// It is published last: a daemon that is killed between the two would leave a socket of a plugin that is disabled, at which
	// engines wait in vain.
	if err = m.o.Store.Save(r); err == nil {
		if err = m.publish(ctx, r); err != nil {
			err = errdefs.Join(err, m.o.Store.Save(was))
		}
	}
	if err != nil {
		return errdefs.Join(err, m.o.Runtime.Stop(ctx, r.Plugin.ID, 0))
	}
	m.limit(r.Plugin.ID, limit)
	m.told("enable", r, name)
	return nil
}

func (m *Manager) limit(id string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d > 0 {
		m.limits[id] = d
		return
	}
	delete(m.limits, id)
}

func (m *Manager) limitOf(id string) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.limits[id]
}

// told tells of an event of a plugin, with the name by which it was asked for.
func (m *Manager) told(action string, r store.Record, name string) {
	m.events.Add("plugin", action, r.Plugin.ID, map[string]string{"name": name})
	m.o.Log.Info("plugin changed", slog.String("action", action), slog.String("plugin", r.Plugin.Name), slog.String("id", r.Plugin.ID))
}

// Disable stops a plugin. One that is in use is not stopped without force.
func (m *Manager) Disable(ctx context.Context, name string, force bool) error {
	known, err := m.o.Store.Get(name)
	if err != nil {
		return err
	}
	var own, mounted []string
	if known.Plugin.Enabled {
		own, mounted = m.asked(ctx, known) // it is asked, so that no lock may be held
	}
	r, unlock, err := m.locked(ctx, known.Plugin.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if !r.Plugin.Enabled {
		return errdefs.Errorf(errdefs.ErrExists, "plugin is already disabled: plugin %s found but disabled", r.Plugin.Name)
	}
	if !force {
		if err := m.used(r, mounted, "remora plugin disable --force"); err != nil {
			return err
		}
	}
	r.Volumes = own
	if err := m.stop(context.WithoutCancel(ctx), r); err != nil {
		return err
	}
	m.told("disable", r, name)
	return nil
}

func (m *Manager) stop(ctx context.Context, r store.Record) error {
	m.withdraw(r.Plugin.ID)
	if err := m.o.Runtime.Stop(ctx, r.Plugin.ID, 0); err != nil {
		return err
	}
	r.Plugin.Enabled = false
	if err := m.o.Store.Save(r); err != nil {
		return err
	}
	m.limit(r.Plugin.ID, 0)
	return nil
}

// shownVolumes is how many volumes an error names.
const shownVolumes = 5

// used says what a plugin is in use for: the volumes that are known of it, and more.
func (m *Manager) used(r store.Record, more []string, force string) error {
	names := slices.Concat(m.o.Uses(r.Plugin.Name), more)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return nil
	}
	var quoted []string
	for i, n := range names {
		if i == shownVolumes {
			quoted = append(quoted, fmt.Sprintf("and %d more", len(names)-i))
			break
		}
		quoted = append(quoted, strconv.Quote(n))
	}
	what := "volume "
	if len(names) > 1 {
		what = "volumes "
	}
	err := errdefs.Errorf(errdefs.ErrInUse, "plugin %s is in use: it has the %s%s", r.Plugin.Name, what, strings.Join(quoted, ", "))
	return errdefs.Hint(err, "remove them first, or: "+force+" "+r.Plugin.Name)
}

// Set changes settings of a plugin that is disabled: all of args or none. Of secrets each value is a file; an empty
// one takes the secret back.
func (m *Manager) Set(ctx context.Context, name string, args []string, secrets map[string]string) error {
	r, unlock, err := m.locked(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if r.Plugin.Enabled {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "cannot set on an active plugin, disable plugin before setting"), "remora plugin disable "+r.Plugin.Name)
	}
	if r.Plugin.Config, r.Plugin.Settings, err = settings.Set(r.Plugin.Config, r.Plugin.Settings, args); err != nil {
		return err
	}
	if r.Secrets, err = withSecrets(r.Plugin.Config, r.Secrets, secrets); err != nil {
		return err
	}
	return m.o.Store.Save(r)
}

// withSecrets adds secrets to those there are, for variables that may be set.
func withSecrets(c plugin.Config, old, more map[string]string) (map[string]string, error) {
	all := maps.Clone(old)
	for name, file := range more {
		switch {
		case file == "":
			delete(all, name)
			continue
		case !filepath.IsAbs(file):
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "secret %q: %q is not an absolute path", name, file)
		}
		i := slices.IndexFunc(c.Env, func(e plugin.Env) bool { return e.Name == name })
		switch {
		case i < 0:
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "setting %q not found in the plugin configuration", name)
		case !slices.Contains(c.Env[i].Settable, "value"):
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "%q is not settable", name)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = file
	}
	return all, nil
}

// Remove removes a plugin with all that it keeps. By force it is stopped first, and its volumes are given up.
func (m *Manager) Remove(ctx context.Context, name string, force bool) error {
	r, unlock, err := m.locked(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if !force {
		if r.Plugin.Enabled {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "plugin %s is enabled", r.Plugin.Name), "disable it first, or: remora plugin rm --force "+r.Plugin.Name)
		}
		if err := m.used(r, r.Volumes, "remora plugin rm --force"); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx)
	if r.Plugin.Enabled {
		// That it is disabled is not written: on a disk that is full it could not be removed.
		m.withdraw(r.Plugin.ID)
		if err := m.o.Runtime.Stop(ctx, r.Plugin.ID, 0); err != nil {
			return err
		}
	}
	if err := m.o.Store.Remove(r.Plugin.ID); err != nil {
		if r.Plugin.Enabled { // it is stopped, and stays
			r.Plugin.Enabled = false
			err = errdefs.Join(err, m.o.Store.Save(r))
		}
		return err
	}
	m.limit(r.Plugin.ID, 0)
	if err := m.o.Forget(r.Plugin.Name); err != nil {
		m.o.Log.WarnContext(ctx, "volumes of a plugin that is removed not forgotten", slog.String("plugin", r.Plugin.Name), slog.Any("error", err))
	}
	if err := m.o.Runtime.Remove(ctx, r.Plugin.ID); err != nil {
		m.o.Log.WarnContext(ctx, "logs of a plugin not removed", slog.String("plugin", r.Plugin.Name), slog.Any("error", err))
	}
	m.told("remove", r, name)
	return nil
}
