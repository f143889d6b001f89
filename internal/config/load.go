package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Driver tells what a configuration needs to know of a driver.
type Driver struct {
	// Keys are the keys of its pools.
	Keys []string
	// Secret tells of each key whose value is not shown.
	Secret map[string]bool
	// Check says what is wrong with the values; nil checks nothing.
	Check func(options map[string]any) error
}

// Source is where a configuration is read from.
type Source struct {
	// File is the path of the file. Empty reads [DefaultFile], if it is there; a file that
	// is named must be there.
	File string
	// Env are "KEY=VALUE" pairs, as from os.Environ.
	Env []string
	// Flags are values for keys, by their names, from the command line.
	Flags map[string]string
	// Drivers are the drivers there are, by name.
	Drivers map[string]Driver
}

// DefaultPool is the pool that there is where none is configured.
const DefaultPool = "remora"

// DefaultDriver is the driver of a pool that names none.
const DefaultDriver = "dir"

// Load reads and checks a configuration. Its errors are ErrInvalid, and say the file, line
// and column where there are such, and the right key where one is near.
func Load(s Source) (*Config, error) {
	c := &Config{}
	table, err := s.read(c)
	if err != nil {
		return nil, err
	}
	b := &builder{source: s, config: c, env: environment(s.Env), at: c.File}
	if err := b.version(table); err != nil {
		return nil, err
	}
	if err := b.keys(flatten(table)); err != nil {
		return nil, err
	}
	if err := b.pools(table["pool"]); err != nil {
		return nil, err
	}
	return c, b.leftover()
}

// read reads the file into a table, and says what is wrong with its form.
func (s Source) read(c *Config) (map[string]any, error) {
	name := cmp.Or(s.File, DefaultFile)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && s.File == "" {
		return map[string]any{}, nil
	}
	if err != nil {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "configuration: %w", err), "name another file with --config, or make this one")
	}
	c.File = name
	table, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if fi, err := os.Stat(name); err == nil && fi.Mode().Perm()&0o022 != 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s: others than its owner may write it (mode %04o): chmod 0644 %s", name, fi.Mode().Perm(), name))
	}
	return table, nil
}

// Decode reads the form of a file, without a look at its keys.
func Decode(data []byte) (map[string]any, error) {
	table := map[string]any{}
	err := toml.Unmarshal(data, &table)
	if d, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := d.Position()
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "line %d, column %d: %s", line, column, strings.TrimPrefix(d.Error(), "toml: "))
	}
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	return table, nil
}

// builder fills a Config from the tables it is given.
type builder struct {
	source Source
	config *Config
	env    map[string]string
	used   []string // variables that stood for a key
	at     string   // the file, in errors
}

func environment(pairs []string) map[string]string {
	env := map[string]string{}
	for _, pair := range pairs {
		if key, value, ok := strings.Cut(pair, "="); ok && strings.HasPrefix(key, "REMORA_") {
			env[key] = value
		}
	}
	return env
}

func (b *builder) version(table map[string]any) error {
	v, ok := table["version"]
	delete(table, "version")
	if n, isInt := v.(int64); ok && (!isInt || n != Version) {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: version: is %v, and this program reads version %d", b.at, v, Version)
	}
	return nil
}

// flatten gives the keys of a table their dotted names; pools are left out.
func flatten(table map[string]any) map[string]any {
	flat := map[string]any{}
	for key, v := range table {
		sub, isTable := v.(map[string]any)
		switch {
		case key == "pool":
		case isTable:
			for inner, w := range sub {
				flat[key+"."+inner] = w
			}
		default:
			flat[key] = v
		}
	}
	return flat
}

// keys sets every key outside the pools, from the last source that has it.
func (b *builder) keys(file map[string]any) error {
	known := Keys()
	names := make([]string, 0, len(known)+1)
	for _, k := range known {
		names = append(names, k.Name)
		v, err := b.resolve(k.Name, k.Env, k.Default, file)
		if err == nil {
			err = k.set(b.config, v.Value)
		}
		if err != nil {
			return b.wrong(k.Name, v.Source, err)
		}
		b.config.values = append(b.config.values, v)
		delete(file, k.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: unknown key %q%s", b.where(name), name, near(name, append(names, "version", "pool.NAME")))
	}
	return nil
}

// resolve finds the value of a key: flag, environment, file, default.
func (b *builder) resolve(name, env, otherwise string, file map[string]any) (Value, error) {
	v := Value{Key: name, Value: otherwise, Source: "default"}
	if raw, ok := file[name]; ok {
		s, err := scalar(raw)
		v.Value, v.Source = s, b.where(name)
		if err != nil {
			return v, err
		}
	}
	if s, ok := b.env[env]; ok {
		v.Value, v.Source = s, env
		b.used = append(b.used, env)
	}
	if s, ok := b.source.Flags[name]; ok {
		v.Value, v.Source = s, "flag"
	}
	return v, nil
}

func (b *builder) wrong(name, source string, err error) error {
	return fmt.Errorf("%s: %s: %w", source, name, errdefs.As(errdefs.ErrInvalid, err))
}

// where returns the file, and the line in which a key stands, if it can be told.
func (b *builder) where(name string) string {
	if n := line(b.at, name); n > 0 {
		return fmt.Sprintf("%s:%d", b.at, n)
	}
	return b.at
}

// leftover warns of variables that look like keys and are none.
func (b *builder) leftover() error {
	for _, name := range slices.Sorted(maps.Keys(b.env)) {
		own := name == "REMORA_CONFIG" || name == "REMORA_DEBUG" || strings.HasPrefix(name, "REMORA_TEST_") || strings.HasPrefix(name, "REMORA_SOAK")
		if own || slices.Contains(b.used, name) {
			continue
		}
		var known []string
		for _, k := range Keys() {
			known = append(known, k.Name)
		}
		meant := ""
		if key := catalog.Nearest(strings.ToLower(strings.TrimPrefix(name, "REMORA_")), known); key != "" {
			meant = fmt.Sprintf(", did you mean %q?", envName(key))
		}
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "environment: unknown variable %q%s", name, meant),
			"\"remora config print\" shows the keys; log.level is REMORA_LOG_LEVEL, and so on")
	}
	return nil
}
