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
	"syscall"

	"github.com/pelletier/go-toml/v2"

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
	// Env are "KEY=VALUE" pairs, as from os.Environ. An empty value counts as none: a
	// managed plugin has every variable that it can be given, most of them empty.
	Env []string
	// Flags are values for keys, by their names, from the command line.
	Flags map[string]string
	// Drivers are the drivers there are, by name.
	Drivers map[string]Driver
	// Group says what is wrong with the name or number of a group of this host; nil checks none.
	Group func(name string) error
}

// DefaultPool is the pool that there is where none is configured.
const DefaultPool = "remora"

// DefaultDriver is the driver of a pool that names none.
const DefaultDriver = "dir"

// Load reads and checks a configuration. Its errors are ErrInvalid, one line, and say the
// file, line and column where there are such, and the right key where one is near. They
// show no secret.
func Load(s Source) (*Config, error) {
	b := newBuilder(s)
	table, err := b.read()
	if err != nil {
		return nil, err
	}
	if err := b.version(table); err != nil {
		return nil, err
	}
	if err := b.keys(flatten(table)); err != nil {
		return nil, err
	}
	if err := b.groups(); err != nil {
		return nil, err
	}
	if err := b.metrics(); err != nil {
		return nil, err
	}
	if err := b.pools(table["pool"]); err != nil {
		return nil, err
	}
	if err := b.repositories(table["repository"]); err != nil {
		return nil, err
	}
	if err := b.schedules(table["schedule"]); err != nil {
		return nil, err
	}
	if err := b.hooks(table["hook"]); err != nil {
		return nil, err
	}
	if err := b.verifies(table["verify"]); err != nil {
		return nil, err
	}
	if err := b.leftover(); err != nil {
		return nil, err
	}
	b.warn()
	return b.config, nil
}

// groups refuses groups that the host does not have, with which the daemon would not start.
func (b *builder) groups() error {
	for _, v := range b.config.values {
		if v.Key != "socket.group" && v.Key != "control.group" || v.Value == "" || b.source.Group == nil {
			continue
		}
		if err := b.source.Group(v.Value); err != nil {
			return b.wrong(v.Key, v.Source, err)
		}
	}
	return nil
}

// FindControlSocket returns the control socket of the daemon that a configuration is
// for. Nothing else in it is looked at, so that a daemon can be asked while its file is
// wrong. The path is one to try even with an error, which says why it may be another.
func FindControlSocket(s Source) (string, error) {
	b := newBuilder(s)
	table, readErr := b.read()
	for _, k := range Keys() {
		if k.Name != "run_dir" {
			continue
		}
		v, err := b.resolve(k, flatten(table))
		if err == nil {
			err = k.set(b.config, v.Value)
		}
		if err != nil {
			b.config.RunDir = k.Default
			return b.config.ControlSocket(), b.wrong(k.Name, v.Source, err)
		}
	}
	return b.config.ControlSocket(), readErr
}

// builder fills a Config from the tables it is given.
type builder struct {
	source    Source
	config    *Config
	env       map[string]string
	used      map[string]string // variables that stood for a key, with the key
	at        string            // the file, in errors
	mode      fs.FileMode       // of the file
	owner     int               // of the file
	positions positions
	secrets   bool // the file holds some
}

func newBuilder(s Source) *builder {
	b := &builder{source: s, config: &Config{}, env: map[string]string{}, used: map[string]string{}}
	for _, pair := range s.Env {
		if key, value, ok := strings.Cut(pair, "="); ok && value != "" && strings.HasPrefix(key, "REMORA_") {
			b.env[key] = value
		}
	}
	return b
}

// read reads the file into a table, and says what is wrong with its form. Without a
// file the table is empty.
func (b *builder) read() (map[string]any, error) {
	name := cmp.Or(b.source.File, DefaultFile)
	data, mode, owner, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) && b.source.File == "" {
		return map[string]any{}, nil
	}
	if err != nil {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "configuration: %w", err), "name another file with --config, or make this one")
	}
	b.config.File, b.at, b.mode, b.owner = name, name, mode, owner
	table, err := decode(name, data)
	if err != nil {
		return nil, err
	}
	b.positions = locate(data)
	return table, nil
}

func readFile(name string) (data []byte, mode fs.FileMode, owner int, err error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, 0, 0, err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		owner = int(st.Uid)
	}
	data, err = os.ReadFile(name)
	return data, fi.Mode().Perm(), owner, err
}

// decode reads the form of a file, without a look at its keys.
func decode(name string, data []byte) (map[string]any, error) {
	table := map[string]any{}
	err := toml.Unmarshal(data, &table)
	if d, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := d.Position()
		text := strings.TrimPrefix(d.Error(), "toml: ")
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s:%d:%d: %s", name, line, column, text)
	}
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", name, err)
	}
	return table, nil
}

func (b *builder) version(table map[string]any) error {
	v, ok := table["version"]
	delete(table, "version")
	if n, isInt := v.(int64); ok && (!isInt || n != Version) {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: version: is %v, and this program reads version %d", b.where("version"), v, Version)
	}
	return nil
}

// flatten gives the keys of a table their dotted names; those of pools, repositories, schedules, hooks
// and verifications are left out. An empty
// table of ours has no keys; any other stands for itself, as a key that is wrong.
func flatten(table map[string]any) map[string]any {
	flat := map[string]any{}
	for key, v := range table {
		sub, isTable := v.(map[string]any)
		ours := slices.ContainsFunc(Keys(), func(k Key) bool { return strings.HasPrefix(k.Name, key+".") })
		switch {
		case key == "pool", key == "repository", key == "schedule", key == "hook", key == "verify":
		case isTable && (ours || len(sub) > 0):
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
	names := make([]string, 0, len(known)+3)
	for _, k := range known {
		names = append(names, k.Name)
		if k.Type == typeList && file[k.Name] != nil {
			file[k.Name] = joinList(file[k.Name])
		}
		v, err := b.resolve(k, file)
		if err == nil {
			err = k.set(b.config, v.Value)
		}
		if err != nil {
			return b.wrong(k.Name, v.Source, err)
		}
		b.config.values = append(b.config.values, v)
		delete(file, k.Name)
	}
	for _, name := range b.inOrder(file) {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: unknown key %q%s", b.where(name), name, near(name, append(names, "version", "pool.NAME", "repository.NAME", "schedule.NAME", "hook.NAME", "verify.NAME")))
	}
	for _, name := range slices.Sorted(maps.Keys(b.source.Flags)) {
		if !slices.Contains(names, name) && !strings.HasPrefix(name, "pool.") && !strings.HasPrefix(name, "repository.") && !strings.HasPrefix(name, "schedule.") && !strings.HasPrefix(name, "verify.") {
			return errdefs.Errorf(errdefs.ErrInvalid, "flag: unknown key %q%s", name, near(name, append(names, "pool.NAME.KEY", "repository.NAME.KEY", "schedule.NAME.KEY", "verify.NAME.KEY")))
		}
	}
	return nil
}

// inOrder returns the keys of a table in the order of the file.
func (b *builder) inOrder(table map[string]any) []string {
	return slices.SortedFunc(maps.Keys(table), func(x, y string) int {
		return cmp.Or(cmp.Compare(b.positions[x].Offset, b.positions[y].Offset), strings.Compare(x, y))
	})
}

// resolve finds the value of a key: flag, environment, file, default.
func (b *builder) resolve(k Key, file map[string]any) (Value, error) {
	v := Value{Key: k.Name, Value: k.Default, Source: "default"}
	raw, source, ok, err := b.given(k.Name, k.Env, file)
	if ok {
		v.Source = source
		if err == nil {
			v.Value, err = scalar(raw, k)
		}
	}
	return v, err
}

// given returns what the last source that has a key says of it, and which that is.
func (b *builder) given(name, env string, file map[string]any) (raw any, source string, ok bool, err error) {
	if raw, ok = file[name]; ok {
		source = b.line(name)
	}
	if s, has := b.env[env]; has {
		raw, source, ok = s, env, true
		if other, taken := b.used[env]; taken && other != name {
			err = errdefs.Errorf(errdefs.ErrInvalid, "the variable could stand for %q as well", other)
		}
		b.used[env] = name
	}
	if s, has := b.source.Flags[name]; has {
		raw, source, ok, err = s, "flag", true, nil
	}
	return raw, source, ok, err
}

// wrong says what is wrong with the value of a key that comes from source.
func (b *builder) wrong(name, source string, err error) error {
	if source == b.line(name) {
		source = b.where(name)
	}
	return fmt.Errorf("%s: %s: %w", source, name, errdefs.As(errdefs.ErrInvalid, err))
}

// foreign are variables that begin as ours do and are no keys: those of the command
// line, and of the tests of this project.
var foreign = [...]string{"REMORA_CONFIG", "REMORA_TEST", "REMORA_SOAK"}

// leftover refuses variables that look like keys and are none.
func (b *builder) leftover() error {
	for _, name := range slices.Sorted(maps.Keys(b.env)) {
		_, used := b.used[name]
		if used || slices.ContainsFunc(foreign[:], func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			continue
		}
		if strings.HasPrefix(name, "REMORA_POOL_") {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "environment: %q is no key of a pool there is", name),
				"pools are made by tables in the file, or by their names in "+poolsEnv+"; \"remora driver show\" lists the keys of a driver")
		}
		if strings.HasPrefix(name, "REMORA_REPOSITORY_") {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "environment: %q is no key of a repository there is", name),
				"repositories are made by tables in the file, or by their names in "+repositoriesEnv)
		}
		if strings.HasPrefix(name, "REMORA_SCHEDULE_") {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "environment: %q is no key of a schedule there is", name),
				"schedules are made by tables in the file, or by their names in "+schedulesEnv)
		}
		if strings.HasPrefix(name, "REMORA_VERIFY_") {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "environment: %q is no key of a verification there is", name),
				"verifications are made by tables in the file, or by their names in "+verifiesEnv)
		}
		known := []string{poolsEnv, repositoriesEnv, schedulesEnv, verifiesEnv}
		for _, k := range Keys() {
			known = append(known, k.Env)
		}
		return errdefs.Errorf(errdefs.ErrInvalid, "environment: unknown variable %q%s", name, near(name, known))
	}
	return nil
}

// warn looks at the permissions of the file.
func (b *builder) warn() {
	switch {
	case b.mode&0o022 != 0:
		b.config.Warnings = append(b.config.Warnings,
			fmt.Sprintf("%s: others than its owner may write it (mode %04o); chmod go-w %s", b.at, b.mode, b.at))
	case b.secrets && b.mode&0o004 != 0:
		b.config.Warnings = append(b.config.Warnings,
			fmt.Sprintf("%s: holds secrets, and everybody may read it (mode %04o); chmod o-r %s", b.at, b.mode, b.at))
	}
}
