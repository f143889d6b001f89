package managed

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/plugin"
	"github.com/opencontainers/go-digest"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// read checks what was given of a source.
func (s Source) read() (ref reference.Reference, auth registry.Auth, pin digest.Digest, err error) {
	if ref, err = reference.Parse(s.Reference); err != nil {
		return ref, auth, "", err
	}
	if auth, err = registry.DecodeAuth(s.Auth); err != nil {
		return ref, auth, "", err
	}
	pin = digest.Digest(s.Pin)
	if s.Pin != "" {
		if err := pin.Validate(); err != nil || !strings.HasPrefix(s.Pin, "sha256:") {
			return ref, auth, "", errdefs.Errorf(errdefs.ErrInvalid, "digest %q: want sha256: and 64 hexadecimal digits", s.Pin)
		}
	}
	return ref, auth, pin, nil
}

// Privileges returns what a plugin in a registry asks for.
func (m *Manager) Privileges(ctx context.Context, from Source) (plugin.Privileges, error) {
	ref, auth, _, err := from.read()
	if err != nil {
		return nil, err
	}
	return m.o.Registry.Privileges(ctx, ref, auth)
}

// pull brings a plugin to the store, where the caller holds it. It is refused, before any layer comes, where it asks for
// anything else than what was granted.
func (m *Manager) pull(ctx context.Context, o InstallOptions, progress ProgressFunc) (from string, pulled registry.Pulled, err error) {
	ref, auth, pin, err := o.read()
	if err != nil {
		return "", pulled, err
	}
	pulled, err = m.o.Registry.Pull(ctx, ref, m.o.Store, registry.Pull{
		Auth: auth, Pin: pin, Progress: tell(progress),
		Grant: func(required plugin.Privileges) error { return settings.Granted(required, o.Granted) },
		// A wrong setting is told before a hundred megabytes have come.
		Check: func(c plugin.Config) error {
			return o.change(&store.Record{Plugin: plugin.Plugin{Config: c, Settings: settings.Defaults(c)}})
		},
	})
	return ref.String(), pulled, err
}

// tell makes the progress of the store and the registry ours.
func tell(progress ProgressFunc) store.Progress {
	return func(id, status string, current, total int64) {
		progress(Progress{ID: id, Status: status, Current: current, Total: total})
	}
}

// Pushed is the last progress of a push, in the form of an engine's stream.
type Pushed struct {
	Tag, Digest string
	Size        int64
}

// Push sends a plugin to the registry of its name.
func (m *Manager) Push(ctx context.Context, name, credentials string, progress ProgressFunc) error {
	defer m.o.Store.Hold()() // before it is looked at: an upgrade takes away what the old version had
	r, err := m.o.Store.Get(name)
	if err != nil {
		return err
	}
	auth, err := registry.DecodeAuth(credentials)
	if err != nil {
		return err
	}
	ref, err := reference.ParseName(r.Plugin.Name)
	if err != nil {
		return err
	}
	p, err := m.o.Registry.Push(ctx, ref, m.o.Store, r, auth, tell(progress))
	if err != nil {
		return err
	}
	progress(Progress{Status: p.Tag + ": digest: " + p.Digest.String(), Aux: Pushed{p.Tag, p.Digest.String(), p.Size}})
	return nil
}
