package settings

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/plugin"
)

// Upgrade returns the config and settings of a plugin whose config was old, as its author wrote it,
// and becomes next. What was set to something else than the default, and may be set in next too,
// keeps its value; all else is as next has it. The engine leaves the settings alone, and so runs a
// new version with the defaults of the old one, and without the variables that the new one brought.
func Upgrade(old plugin.Config, s plugin.Settings, next plugin.Config) (plugin.Config, plugin.Settings) {
	c, out := Clone(next, Defaults(next))
	was := Defaults(old)
	for _, e := range c.Env {
		value, ok := lookup(s.Env, e.Name)
		before, had := lookup(was.Env, e.Name)
		if ok && slices.Contains(e.Settable, "value") && (!had || value != before) {
			assignment{name: e.Name, value: value}.env(&out)
		}
	}
	for i, m := range c.Mounts {
		named := func(o plugin.Mount) bool { return o.Name == m.Name }
		set, before := find(s.Mounts, named).Source, find(was.Mounts, named).Source
		if changed(set, before) && m.Source != nil && slices.Contains(m.Settable, "source") {
			c.Mounts[i].Source, out.Mounts[i].Source = clonePointer(set), clonePointer(set)
		}
	}
	for i, d := range c.Linux.Devices {
		named := func(o plugin.Device) bool { return o.Name == d.Name }
		set, before := find(s.Devices, named).Path, find(was.Devices, named).Path
		if changed(set, before) && d.Path != nil && slices.Contains(d.Settable, "path") {
			c.Linux.Devices[i].Path, out.Devices[i].Path = clonePointer(set), clonePointer(set)
		}
	}
	if slices.Contains(c.Args.Settable, "value") && !slices.Equal(s.Args, was.Args) {
		out.Args = slices.Clone(s.Args)
	}
	return c, out
}

func lookup(env []string, name string) (value string, ok bool) {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// find returns the first that is, or a zero value.
func find[T any](list []T, is func(T) bool) (found T) {
	if i := slices.IndexFunc(list, is); i >= 0 {
		found = list[i]
	}
	return found
}

func changed(set, before *string) bool { return set != nil && (before == nil || *set != *before) }
