package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

var (
	errFormat   = errors.New("invalid format, must be <name>[.<field>][=<value>]")
	errMultiple = errors.New("multiple fields are settable, one must be specified")
	errNoSource = errors.New("plugin config has no mount source")
	errNoPath   = errors.New("plugin config has no device path")
)

// Set applies what a user gave to "plugin set", each of args a name[.field][=value], and returns the
// config and settings that come of it. Where one of args is wrong nothing is set: what was given is
// left as it was in any case.
//
// The source of a mount and the path of a device stand in the config as well as in the settings, and
// are changed in both: the engine changes only the first once it was restarted, and then gives the
// plugin the old device. What was granted at the installation is not asked for again here, as
// whoever may set a plugin may install one.
func Set(c plugin.Config, s plugin.Settings, args []string) (plugin.Config, plugin.Settings, error) {
	nc, ns := Clone(c, s)
	for _, arg := range args {
		a, err := parse(arg)
		if err == nil {
			err = a.set(&nc, &ns)
		}
		if err != nil {
			if errdefs.Class(err) == nil {
				err = errdefs.As(errdefs.ErrInvalid, err)
			}
			return c, s, err
		}
	}
	return nc, ns, nil
}

type assignment struct{ name, field, value string }

func parse(arg string) (assignment, error) {
	left, value, _ := strings.Cut(arg, "=")
	if left == "" && arg != "" {
		return assignment{}, errFormat
	}
	a := assignment{name: left, value: value}
	if i := strings.LastIndex(left, "."); i > 0 {
		a.name, a.field = left[:i], left[i+1:]
	}
	return a, nil
}

// set finds the setting by its name in the order of the engine: the first that has it decides.
func (a assignment) set(c *plugin.Config, s *plugin.Settings) error {
	for _, e := range c.Env {
		if e.Name == a.name {
			if err := a.may("value", e.Settable); err != nil {
				return err
			}
			a.env(s)
			return nil
		}
	}
	for i := range c.Mounts {
		if m := &c.Mounts[i]; m.Name == a.name {
			if err := a.may("source", m.Settable); err != nil {
				return err
			}
			return a.mount(m, s)
		}
	}
	for i := range c.Linux.Devices {
		if d := &c.Linux.Devices[i]; d.Name == a.name {
			if err := a.may("path", d.Settable); err != nil {
				return err
			}
			return a.device(d, s)
		}
	}
	if c.Args.Name == a.name {
		if err := a.may("value", c.Args.Settable); err != nil {
			return err
		}
		s.Args = strings.Split(a.value, " ")
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrInvalid, "setting %q not found in the plugin configuration", a.name)
	if names := settable(*c); len(names) > 0 {
		err = errdefs.Hint(err, "settable are: "+strings.Join(names, ", "))
	}
	return err
}

// may says whether the field that is asked for, or the only one, is field and settable.
func (a assignment) may(field string, settable []string) error {
	if a.field == "" {
		if len(settable) > 1 {
			return errMultiple
		}
		if len(settable) == 1 {
			a.field = settable[0]
		}
	}
	if a.field != field || !slices.Contains(settable, field) {
		name := a.name
		if a.field != "" {
			name += "." + a.field
		}
		return fmt.Errorf("%q is not settable", name)
	}
	return nil
}

func (a assignment) env(s *plugin.Settings) {
	for i, e := range s.Env {
		if name, _, _ := strings.Cut(e, "="); name == a.name {
			s.Env[i] = a.name + "=" + a.value
			return
		}
	}
	s.Env = append(s.Env, a.name+"="+a.value)
}

func (a assignment) mount(m *plugin.Mount, s *plugin.Settings) error {
	if m.Source == nil {
		return errNoSource
	}
	m.Source = &a.value
	i := slices.IndexFunc(s.Mounts, func(m plugin.Mount) bool { return m.Name == a.name })
	if i < 0 { // the settings are those of an older version
		s.Mounts = append(s.Mounts, cloneMount(*m))
		return nil
	}
	s.Mounts[i].Source = clonePointer(m.Source)
	return nil
}

func (a assignment) device(d *plugin.Device, s *plugin.Settings) error {
	if d.Path == nil {
		return errNoPath
	}
	d.Path = &a.value
	i := slices.IndexFunc(s.Devices, func(d plugin.Device) bool { return d.Name == a.name })
	if i < 0 {
		s.Devices = append(s.Devices, cloneDevice(*d))
		return nil
	}
	s.Devices[i].Path = clonePointer(d.Path)
	return nil
}

// settable returns what Set would take, as a user writes it.
func settable(c plugin.Config) []string {
	var names []string
	for _, e := range c.Env {
		if slices.Contains(e.Settable, "value") {
			names = append(names, e.Name)
		}
	}
	for _, m := range c.Mounts {
		if slices.Contains(m.Settable, "source") && m.Source != nil {
			names = append(names, m.Name+".source")
		}
	}
	for _, d := range c.Linux.Devices {
		if slices.Contains(d.Settable, "path") && d.Path != nil {
			names = append(names, d.Name+".path")
		}
	}
	if slices.Contains(c.Args.Settable, "value") {
		names = append(names, c.Args.Name)
	}
	return names
}
