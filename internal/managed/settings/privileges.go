package settings

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Privileges returns what a plugin asks for beyond a container's ordinary rights, in the order and
// words in which the engine shows it.
func Privileges(c plugin.Config) plugin.Privileges {
	var all plugin.Privileges
	add := func(name, description string, value ...string) {
		all = append(all, plugin.Privilege{Name: name, Description: description, Value: value})
	}
	if n := c.Network.Type; n != "" && n != "null" && n != "bridge" {
		add("network", "permissions to access a network", n)
	}
	if c.IpcHost {
		add("host ipc namespace", "allow access to host ipc namespace", "true")
	}
	if c.PidHost {
		add("host pid namespace", "allow access to host pid namespace", "true")
	}
	for _, m := range c.Mounts {
		if m.Source != nil {
			add("mount", "host path to mount", *m.Source)
		}
	}
	for _, d := range c.Linux.Devices {
		if d.Path != nil {
			add("device", "host device to access", *d.Path)
		}
	}
	if c.Linux.AllowAllDevices {
		add("allow-all-devices", "allow 'rwm' access to all devices", "true")
	}
	if len(c.Linux.Capabilities) > 0 {
		add("capabilities", "list of additional capabilities required", slices.Clone(c.Linux.Capabilities)...)
	}
	return all
}

// Granted returns nil where granted is exactly what is required: each privilege with its values, as
// often, and none more. Their order and descriptions do not count. The engine did not look at the
// first of them until 29.3.1 (CVE-2026-33997).
func Granted(required, granted plugin.Privileges) error {
	a, b := sorted(required), sorted(granted)
	same := slices.EqualFunc(a, b, func(x, y plugin.Privilege) bool { return compare(x, y) == 0 })
	if !same {
		return errdefs.Errorf(errdefs.ErrDenied, "incorrect privileges")
	}
	return nil
}

func sorted(p plugin.Privileges) plugin.Privileges {
	p = slices.Clone(p)
	slices.SortFunc(p, compare)
	return p
}

func compare(x, y plugin.Privilege) int {
	if c := strings.Compare(x.Name, y.Name); c != 0 {
		return c
	}
	return slices.Compare(x.Value, y.Value)
}
