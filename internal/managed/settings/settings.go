// Package settings reads the config.json of a managed plugin and knows what follows from it:
// which privileges the plugin asks for, and which of its settings a user may change. It does
// nothing but compute.
//
// Messages are the engine's own where it has any, because scripts look for them.
package settings

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// MaxSize is the size in bytes over which a config.json is refused. The engine knows no bound; the
// longest of the plugins that people use has a few thousand.
const MaxSize = 256 << 10

// Parse decodes a config.json. As the engine it takes keys in any case, passes over fields that it
// does not know, and does not mind what is missing: that shows when the plugin is enabled.
func Parse(raw []byte) (plugin.Config, error) {
	var c plugin.Config
	if len(raw) > MaxSize {
		return c, errdefs.Errorf(errdefs.ErrInvalid, "failed to parse config: it is larger than %d KiB", MaxSize>>10)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return plugin.Config{}, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("failed to parse config: %w", err))
	}
	return c, nil
}

// Defaults returns the settings of a plugin that nobody has set anything of. They share no memory
// with the config.
func Defaults(c plugin.Config) plugin.Settings {
	s := plugin.Settings{
		Mounts:  make([]plugin.Mount, 0, len(c.Mounts)),
		Devices: make([]plugin.Device, 0, len(c.Linux.Devices)),
		Env:     make([]string, 0, len(c.Env)),
		Args:    append(make([]string, 0, len(c.Args.Value)), c.Args.Value...),
	}
	for _, m := range c.Mounts {
		s.Mounts = append(s.Mounts, cloneMount(m))
	}
	for _, d := range c.Linux.Devices {
		s.Devices = append(s.Devices, cloneDevice(d))
	}
	for _, e := range c.Env {
		if e.Value != nil { // a variable with no value is not there until it is set
			s.Env = append(s.Env, e.Name+"="+*e.Value)
		}
	}
	return s
}

// Clone returns copies that share no memory with what they were copied from.
func Clone(c plugin.Config, s plugin.Settings) (plugin.Config, plugin.Settings) {
	c.Interface.Types = slices.Clone(c.Interface.Types)
	c.Entrypoint = slices.Clone(c.Entrypoint)
	c.Linux.Capabilities = slices.Clone(c.Linux.Capabilities)
	c.Linux.Devices = cloneEach(c.Linux.Devices, cloneDevice)
	c.Mounts = cloneEach(c.Mounts, cloneMount)
	c.Env = cloneEach(c.Env, func(e plugin.Env) plugin.Env {
		e.Settable, e.Value = slices.Clone(e.Settable), clonePointer(e.Value)
		return e
	})
	c.Args.Settable, c.Args.Value = slices.Clone(c.Args.Settable), slices.Clone(c.Args.Value)
	if c.Rootfs = clonePointer(c.Rootfs); c.Rootfs != nil {
		c.Rootfs.DiffIds = slices.Clone(c.Rootfs.DiffIds)
	}
	s.Mounts = cloneEach(s.Mounts, cloneMount)
	s.Devices = cloneEach(s.Devices, cloneDevice)
	s.Env, s.Args = slices.Clone(s.Env), slices.Clone(s.Args)
	return c, s
}

func cloneMount(m plugin.Mount) plugin.Mount {
	m.Settable, m.Options, m.Source = slices.Clone(m.Settable), slices.Clone(m.Options), clonePointer(m.Source)
	return m
}

func cloneDevice(d plugin.Device) plugin.Device {
	d.Settable, d.Path = slices.Clone(d.Settable), clonePointer(d.Path)
	return d
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// cloneEach keeps the difference between no list and an empty one, which JSON shows.
func cloneEach[T any](list []T, clone func(T) T) []T {
	if list == nil {
		return nil
	}
	out := make([]T, 0, len(list))
	for _, v := range list {
		out = append(out, clone(v))
	}
	return out
}
