package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pools reads the tables of the pools. A pool may be made by the environment alone, if
// REMORA_POOLS names it.
func (b *builder) pools(raw any) error {
	tables := map[string]map[string]any{}
	if raw != nil {
		all, ok := raw.(map[string]any)
		if !ok {
			return errdefs.Errorf(errdefs.ErrInvalid, "%s: pool: want tables such as [pool.fast]", b.where("pool"))
		}
		for name, v := range all {
			table, ok := v.(map[string]any)
			if !ok {
				return errdefs.Errorf(errdefs.ErrInvalid, "%s: pool.%s: want a table: [pool.%s]", b.where("pool."+name), name, name)
			}
			tables[name] = table
		}
	}
	if list, ok := b.env["REMORA_POOLS"]; ok {
		b.used = append(b.used, "REMORA_POOLS")
		for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
			if tables[name] == nil {
				tables[name] = map[string]any{}
			}
		}
	}
	if len(tables) == 0 {
		tables[DefaultPool] = map[string]any{}
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		if err := checkPoolName(name); err != nil {
			return fmt.Errorf("%s: %w", b.where("pool."+name), err)
		}
		if other, ok := seen[envName(name)]; ok {
			return errdefs.Errorf(errdefs.ErrInvalid, "%s: pools %q and %q have the same variables in the environment", b.at, other, name)
		}
		seen[envName(name)] = name
		p, err := b.pool(name, tables[name])
		if err != nil {
			return err
		}
		b.config.Pools = append(b.config.Pools, p)
	}
	return nil
}

// checkPoolName keeps to what is a plugin's name for every engine: it is joined to a
// path, and a managed plugin's name has no upper case.
func checkPoolName(name string) error {
	ok := name != "" && len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == "" &&
		!strings.ContainsAny(name[:1], "_.-")
	if !ok {
		return errdefs.Errorf(errdefs.ErrInvalid, "pool %q: want lower-case letters, digits, \"_\", \".\" or \"-\", the first a letter or digit, 64 at most", name)
	}
	return nil
}

// pool reads one pool: its driver, what is common to all pools, and the driver's keys.
func (b *builder) pool(name string, table map[string]any) (Pool, error) {
	prefix := "pool." + name + "."
	file := map[string]any{}
	for key, v := range table {
		file[prefix+key] = v
	}
	p := Pool{Name: name, Volume: b.config.Volume, Options: map[string]any{}}
	v, err := b.resolve(prefix+"driver", envName(prefix+"driver"), DefaultDriver, file)
	if err != nil {
		return p, b.wrong(v.Key, v.Source, err)
	}
	p.Driver = v.Value
	b.config.values = append(b.config.values, v)
	driver, ok := b.source.Drivers[p.Driver]
	if !ok {
		names := slices.Sorted(maps.Keys(b.source.Drivers))
		return p, errdefs.Errorf(errdefs.ErrInvalid, "%s: pool %q: no driver %q%s", v.Source, name, p.Driver, near(p.Driver, names))
	}
	delete(file, prefix+"driver")
	known := []string{"driver"}
	for _, k := range poolKeys() {
		known = append(known, k.Name)
		v, err := b.resolve(prefix+k.Name, envName(prefix+k.Name), "", file)
		if err == nil && v.Source != "default" {
			err = k.setPool(&p.Volume, v.Value)
			b.config.values = append(b.config.values, v)
		}
		if err != nil {
			return p, b.wrong(v.Key, v.Source, err)
		}
		delete(file, prefix+k.Name)
	}
	if err := b.options(&p, driver, prefix, file, known); err != nil {
		return p, err
	}
	if driver.Check != nil {
		if err := driver.Check(p.Options); err != nil {
			return p, fmt.Errorf("%s: pool %q: %w", b.where("pool."+name), name, err)
		}
	}
	return p, nil
}

// options reads the keys of the driver itself. Lists and tables are the driver's matter.
func (b *builder) options(p *Pool, driver Driver, prefix string, file map[string]any, known []string) error {
	for _, key := range driver.Keys {
		full := prefix + key
		v := Value{Key: full, Source: "default"}
		raw, ok := file[full]
		if ok {
			v.Source = b.where(full)
		}
		if s, has := b.env[envName(full)]; has {
			raw, ok, v.Source = s, true, envName(full)
			b.used = append(b.used, v.Source)
		}
		if s, has := b.source.Flags[full]; has {
			raw, ok, v.Source = s, true, "flag"
		}
		delete(file, full)
		if !ok {
			continue
		}
		p.Options[key] = raw
		v.Value = fmt.Sprint(raw)
		if driver.Secret[key] {
			v.Value = "REDACTED"
		}
		b.config.values = append(b.config.values, v)
	}
	for _, full := range slices.Sorted(maps.Keys(file)) {
		key := strings.TrimPrefix(full, prefix)
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: pool %q: unknown key %q%s", b.where(full), p.Name, key, near(key, append(known, driver.Keys...)))
	}
	return nil
}
