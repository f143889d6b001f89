package config

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// typeCommand is a list of words.
const typeCommand = "command"

// hookKey is a key of a hook. It has no variable: what the daemon runs is in a file of root's
// alone.
type hookKey struct {
	Key
	setHook func(h *hook.Hook, v any) error
}

func hookKeys() []hookKey {
	names := func(name, help string, at func(*hook.Hook) *[]string) hookKey {
		return hookKey{Key{Name: name, Type: typeList, Help: help}, func(h *hook.Hook, v any) error {
			text, ok := joinList(v).(string)
			if !ok {
				return errdefs.Errorf(errdefs.ErrInvalid, `want names such as ["db*"]`)
			}
			for _, word := range words(text) {
				if err := schedule.CheckPattern(word); err != nil {
					return err
				}
				*at(h) = append(*at(h), word)
			}
			return nil
		}}
	}
	word := func(name, typ, def, help string, set func(h *hook.Hook, s string) error) hookKey {
		return hookKey{Key{Name: name, Type: typ, Default: def, Help: help}, func(h *hook.Hook, v any) error {
			s, ok := v.(string)
			if !ok || s == "" {
				return errdefs.Errorf(errdefs.ErrInvalid, "want a text")
			}
			return set(h, s)
		}}
	}
	command := func(name, help string, at func(*hook.Hook) *[]string) hookKey {
		return hookKey{Key{Name: name, Type: typeCommand, Help: help}, func(h *hook.Hook, v any) error {
			list, ok := v.([]any)
			for _, x := range list {
				s, isText := x.(string)
				ok = ok && isText
				*at(h) = append(*at(h), s)
			}
			if !ok || len(list) == 0 || (*at(h))[0] == "" {
				return errdefs.Errorf(errdefs.ErrInvalid, `want a program and its arguments, such as ["sync"] or ["sh", "-c", "sync; sync"]`)
			}
			return nil
		}}
	}
	return []hookKey{
		names("pools", "for volumes of which pools, by names or patterns; empty is all", func(h *hook.Hook) *[]string { return &h.Pools }),
		names("volumes", "for which volumes, by names or patterns; empty is all", func(h *hook.Hook) *[]string { return &h.Volumes }),
		names("schedules", "for the snapshots and backups of which schedules; empty is all, and those of people too", func(h *hook.Hook) *[]string { return &h.Schedules }),
		word("container", typeText, "", "where the commands run: a container's name, or a label `KEY=VALUE` of the containers that have the volume; empty is the host", func(h *hook.Hook, s string) error {
			h.Container = s
			return nil
		}),
		word("user", typeText, "", "who runs them in the container; empty is the container's own user", func(h *hook.Hook, s string) error {
			h.User = s
			return nil
		}),
		command("before", "program and arguments; when it fails there is no snapshot", func(h *hook.Hook) *[]string { return &h.Before }),
		command("after", "program and arguments; it runs whatever came of the snapshot, and of `before`", func(h *hook.Hook) *[]string { return &h.After }),
		word("timeout", typeDuration, "1m0s", "how long each may take", func(h *hook.Hook, s string) (err error) {
			h.Timeout, err = parseDuration(s, time.Millisecond)
			return err
		}),
	}
}

// HookKeys returns the keys of a hook.
func HookKeys() []Key {
	var keys []Key
	for _, k := range hookKeys() {
		keys = append(keys, k.Key)
	}
	return keys
}

// hooks reads the tables of the hooks.
func (b *builder) hooks(raw any) error {
	tables, err := b.tables("hook", "[hook.flush]", "", raw)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		at := b.where("hook." + name)
		if err := checkName("hook", name); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if err := b.trusted(name); err != nil {
			return err
		}
		h, err := b.hook(name, tables[name])
		if err != nil {
			return err
		}
		switch {
		case len(h.Before)+len(h.After) == 0:
			return errdefs.Errorf(errdefs.ErrInvalid, `%s: hook %q: it runs nothing: give it "before" or "after"`, at, name)
		case h.User != "" && h.Container == "":
			return errdefs.Errorf(errdefs.ErrInvalid, `%s: hook %q: "user" is for commands in a container`, at, name)
		}
		if err := b.known("hook."+name+".pools", "pool", h.Pools, b.poolNames()); err != nil {
			return err
		}
		if err := b.known("hook."+name+".schedules", "schedule", h.Schedules, b.scheduleNames()); err != nil {
			return err
		}
		b.config.Hooks = append(b.config.Hooks, h)
	}
	return nil
}

func (b *builder) scheduleNames() (names []string) {
	for _, s := range b.config.Schedules {
		names = append(names, s.Name)
	}
	return names
}

// hook reads one hook.
func (b *builder) hook(name string, table map[string]any) (hook.Hook, error) {
	h := hook.Hook{Name: name, Timeout: time.Minute}
	prefix := "hook." + name + "."
	keys := hookKeys()
	full := map[string]any{}
	for key, v := range table {
		full[prefix+key] = v
	}
	for _, at := range b.inOrder(full) {
		key := strings.TrimPrefix(at, prefix)
		i := slices.IndexFunc(keys, func(k hookKey) bool { return k.Name == key })
		if i < 0 {
			var known []string
			for _, k := range keys {
				known = append(known, k.Name)
			}
			return h, errdefs.Errorf(errdefs.ErrInvalid, "%s: hook %q: unknown key %q%s", b.where(at), name, key, near(key, known))
		}
		if err := keys[i].setHook(&h, full[at]); err != nil {
			return h, b.wrong(at, b.line(at), err)
		}
		b.config.values = append(b.config.values, Value{Key: at, Value: fmt.Sprint(joinList(full[at])), Source: b.line(at)})
	}
	return h, nil
}

// trusted refuses a hook in a file that others than root and the daemon's own user could have
// written: it would be run as the daemon.
func (b *builder) trusted(name string) error {
	const othersWrite fs.FileMode = 0o022
	wrong := func(format string, args ...any) error {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: hook %q: the daemon runs it, and "+format, append([]any{b.where("hook." + name), name}, args...)...)
	}
	if b.mode&othersWrite != 0 {
		return wrong("others may write to this file (mode %04o): chmod go-w %s", b.mode, b.at)
	}
	if b.owner != 0 && b.owner != os.Geteuid() {
		return wrong("this file belongs to the user %d: chown root %s", b.owner, b.at)
	}
	return nil
}
