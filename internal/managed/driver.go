package managed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// VolumeDriver is an enabled plugin that has volumes. Paths are those of the host.
type VolumeDriver struct {
	m *Manager
	r store.Record
}

// Name is the plugin's.
func (d VolumeDriver) Name() string { return d.r.Plugin.Name }

// VolumeDrivers returns the enabled plugins that have volumes, sorted by name.
func (m *Manager) VolumeDrivers() []VolumeDriver {
	var all []VolumeDriver
	for _, r := range m.o.Store.Records() {
		if r.Plugin.Enabled && Provides(r.Plugin.Config, "volumedriver") {
			all = append(all, VolumeDriver{m, r})
		}
	}
	return all
}

// VolumeDriver finds the plugin that has volumes under a name. Where there is none it is ErrNotFound.
func (m *Manager) VolumeDriver(name string) (VolumeDriver, error) {
	r, err := m.o.Store.Get(name)
	switch {
	case err != nil:
		return VolumeDriver{}, err
	case !r.Plugin.Enabled:
		return VolumeDriver{}, errdefs.Errorf(errdefs.ErrInUse, "plugin %s found but disabled", r.Plugin.Name)
	case !Provides(r.Plugin.Config, "volumedriver"):
		return VolumeDriver{}, errdefs.Errorf(errdefs.ErrUnsupported, "plugin %s: plugin does not provide \"volumedriver\" capability", r.Plugin.Name)
	}
	return VolumeDriver{m, r}, nil
}

// call has something asked of the plugin, with an engine's patience.
func (d VolumeDriver) call(do func(client.Volume) error) error {
	e := client.Endpoint{Name: d.r.Plugin.Name, Addr: "unix://" + d.m.Socket(d.r.Plugin)}
	c, err := client.New(e, client.Options{
		Timeout: d.m.limitOf(d.r.Plugin.ID), Retry: true, Logger: d.m.o.Log,
		// One that is being started again is waited for.
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.m.dial(ctx, d.r.Plugin.ID) },
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // it returns nil
	return said(do(c.Volume()))
}

// said gives what a plugin said the form that an engine gives it.
func said(err error) error {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return err
	}
	text := errors.New(e.Text)
	if e.Status != http.StatusOK {
		text = fmt.Errorf("%s: %s", e.Method, e.Text)
	}
	if class := errdefs.Class(err); class != nil {
		return errdefs.As(class, text)
	}
	return text
}

// Create makes a volume.
func (d VolumeDriver) Create(ctx context.Context, name string, opts map[string]string) error {
	return d.call(func(c client.Volume) error { return c.Create(ctx, name, opts) })
}

// Remove removes a volume.
func (d VolumeDriver) Remove(ctx context.Context, name string) error {
	return d.call(func(c client.Volume) error { return c.Remove(ctx, name) })
}

// Get returns what the plugin knows of a volume. To an engine any error that it answers says that there is none.
func (d VolumeDriver) Get(ctx context.Context, name string) (info volume.Info, err error) {
	err = d.call(func(c client.Volume) error { info, err = c.Get(ctx, name); return err })
	info.Mountpoint = d.m.inPlugin(d.r, info.Mountpoint)
	return info, err
}

// List returns the volumes of the plugin.
func (d VolumeDriver) List(ctx context.Context) (all []volume.Info, err error) {
	err = d.call(func(c client.Volume) error { all, err = c.List(ctx); return err })
	for i := range all {
		all[i].Mountpoint = d.m.inPlugin(d.r, all[i].Mountpoint)
	}
	return all, err
}

// Scope returns "local" or "global".
func (d VolumeDriver) Scope(ctx context.Context) string {
	scope := "local"
	_ = d.call(func(c client.Volume) error { // an error means local, as to an engine
		var err error
		scope, err = c.Scope(ctx)
		return err
	})
	return scope
}

// askTime bounds how long a plugin that is to be stopped may take to say what is mounted.
const askTime = 3 * time.Second

// keptVolumes is how many of a plugin's volumes are remembered while it is disabled: that there are any is what counts.
const keptVolumes = 100

// asked returns the volumes of a plugin, whoever made them: those that go with it, and those that are mounted. One that does
// not answer has none: it is to be stopped, perhaps for that. Global volumes stay where they are, whatever becomes of it.
func (m *Manager) asked(ctx context.Context, r store.Record) (own, mounted []string) {
	if !Provides(r.Plugin.Config, "volumedriver") || m.o.Runtime.State(r.Plugin.ID).Pid == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	d := VolumeDriver{m, r}
	all, err := d.List(ctx)
	if err != nil {
		return nil, nil
	}
	global := len(all) > 0 && d.Scope(ctx) == "global"
	there := mountpoints(m.o.Store.PropagatedMount(r))
	for _, v := range all {
		if !global && len(own) < keptVolumes {
			own = append(own, v.Name)
		}
		if there[filepath.Clean(v.Mountpoint)] {
			mounted = append(mounted, v.Name)
		}
	}
	return own, mounted
}

// mountpoints returns those below a directory, by paths that begin as it does. The kernel's list is read for that: a look
// at a file system whose server does not answer would not return.
func mountpoints(dir string) map[string]bool {
	there := map[string]bool{}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return there
	}
	mounts, err := mount.List(real)
	if err != nil {
		return there
	}
	for _, m := range mounts {
		there[filepath.Join(dir, strings.TrimPrefix(m.Mountpoint, real))] = true
	}
	return there
}
