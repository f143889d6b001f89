package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// poolsEnv names pools that are made by the environment alone.
const poolsEnv = "REMORA_POOLS"

// pools reads the tables of the pools.
func (b *builder) pools(raw any) error {
	tables, err := b.tables("pool", "[pool.fast]", poolsEnv, raw)
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		tables[DefaultPool] = map[string]any{}
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		if err := checkName("pool", name); err != nil {
			return fmt.Errorf("%s: %w", b.whereTable("pool."+name, poolsEnv), err)
		}
		p, err := b.pool(name, tables[name])
		if err != nil {
			return err
		}
		b.config.Pools = append(b.config.Pools, p)
	}
	return b.unknownFlags("pool")
}

// tables takes the tables of one kind out of the file, such as [pool.fast], and adds those that
// are named in a variable alone.
func (b *builder) tables(kind, example, env string, raw any) (map[string]map[string]any, error) {
	tables := map[string]map[string]any{}
	all, ok := raw.(map[string]any)
	if raw != nil && !ok {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: %s: want tables such as %s", b.where(kind), kind, example)
	}
	for name, v := range all {
		table, ok := v.(map[string]any)
		if !ok {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: %s.%s: want a table such as %s", b.where(kind+"."+name), kind, name, example)
		}
		tables[name] = table
	}
	for _, name := range words(b.env[env]) { // without one there are none
		b.used[env] = env
		if tables[name] == nil {
			tables[name] = map[string]any{}
		}
	}
	return tables, nil
}

// unknownFlags refuses flags for tables of one kind that are not there.
func (b *builder) unknownFlags(kind string) error {
	for _, key := range slices.Sorted(maps.Keys(b.source.Flags)) {
		if strings.HasPrefix(key, kind+".") && !slices.ContainsFunc(b.config.values, func(v Value) bool { return v.Key == key }) {
			return errdefs.Errorf(errdefs.ErrInvalid, "flag: %q is no key of a %s there is", key, kind)
		}
	}
	return nil
}

// words returns what stands in a text between commas and spaces.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// checkName keeps to what is a plugin's name for every engine: it is joined to a path, and a
// managed plugin's name has no upper case.
func checkName(kind, name string) error {
	ok := name != "" && len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == "" &&
		!strings.ContainsAny(name[:1], "_.-")
	if !ok {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s %q: want lower-case letters, digits, \"_\", \".\" or \"-\", the first a letter or digit, 64 at most", kind, name)
	}
	return nil
}

// whereTable returns where a table was made, such as that of a pool.
func (b *builder) whereTable(table, env string) string {
	if _, ok := b.positions[table]; !ok && b.env[env] != "" {
		return env
	}
	return b.where(table)
}

// pool reads one pool: its driver, what is common to all pools, and the driver's keys.
func (b *builder) pool(name string, table map[string]any) (Pool, error) {
	prefix := "pool." + name + "."
	file := map[string]any{}
	for key, v := range table {
		file[prefix+key] = v
	}
	p := Pool{Name: name, Volume: b.config.Volume, Options: map[string]any{}}
	v, err := b.resolve(Key{Name: prefix + "driver", Env: envName(prefix + "driver"), Default: DefaultDriver}, file)
	if err != nil {
		return p, b.wrong(v.Key, v.Source, err)
	}
	p.Driver = v.Value
	b.config.values = append(b.config.values, v)
	driver, ok := b.source.Drivers[p.Driver]
	if !ok {
		names := slices.Sorted(maps.Keys(b.source.Drivers))
		return p, b.wrong(v.Key, v.Source, errdefs.Errorf(errdefs.ErrInvalid, "no driver %q%s", p.Driver, near(p.Driver, names)))
	}
	delete(file, prefix+"driver")
	known := []string{"driver"}
	for _, k := range poolKeys() {
		known = append(known, k.Name)
		v, err := b.resolve(Key{Name: prefix + k.Name, Env: envName(prefix + k.Name)}, file)
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
			return p, b.wrongOption(p, prefix, err)
		}
	}
	return p, nil
}

// wrongOption says where it stands what a driver finds wrong. A driver is asked about all
// of a pool at once and quotes the key.
func (b *builder) wrongOption(p Pool, prefix string, err error) error {
	err = errdefs.As(errdefs.ErrInvalid, err)
	for _, v := range b.config.values {
		key, ok := strings.CutPrefix(v.Key, prefix)
		if ok && strings.HasPrefix(err.Error(), fmt.Sprintf("key %q", key)) {
			if v.Source == b.line(v.Key) {
				v.Source = b.where(v.Key)
			}
			return fmt.Errorf("%s: pool %q: %w", v.Source, p.Name, err)
		}
	}
	if at := b.whereTable("pool."+p.Name, poolsEnv); at != "" {
		return fmt.Errorf("%s: pool %q: %w", at, p.Name, err)
	}
	return fmt.Errorf("pool %q: %w", p.Name, err)
}

// options reads the keys of the driver itself. Lists and tables are the driver's matter.
func (b *builder) options(p *Pool, driver Driver, prefix string, file map[string]any, known []string) error {
	for _, key := range driver.Keys {
		full := prefix + key
		raw, source, ok, err := b.given(full, envName(full), file)
		if err != nil {
			return b.wrong(full, source, err)
		}
		delete(file, full)
		if !ok {
			continue
		}
		p.Options[key] = raw
		v := Value{Key: full, Value: fmt.Sprint(raw), Source: source}
		if driver.Secret[key] {
			v.Value = redacted
			b.secrets = b.secrets || source == b.line(full)
		}
		b.config.values = append(b.config.values, v)
	}
	for _, full := range b.inOrder(file) {
		key := strings.TrimPrefix(full, prefix)
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: pool %q: unknown key %q%s", b.where(full), p.Name, key, near(key, append(known, driver.Keys...)))
	}
	return nil
}
