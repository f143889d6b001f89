package config

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Key describes one key of the file outside the pools, or one that every pool has.
type Key struct {
	// Name is the dotted name, such as "log.level".
	Name string
	// Env is the variable that stands for it.
	Env string
	// Type is "path", "duration", "percent", "mode", "address", "text", or the allowed words with a
	// bar between them.
	Type string
	// Default is its value where nothing is given.
	Default string
	Help    string
	// Restart: a running daemon does not take a change over.
	Restart bool

	set func(c *Config, text string) error
}

// The types of keys beside lists of words.
const (
	typePath     = "path"
	typeDuration = "duration"
	typePercent  = "percent"
	typeMode     = "mode"
	typeAddress  = "address"
	typeText     = "text"
)

// Keys returns the keys of the file outside the pools.
func Keys() []Key {
	keys := []Key{
		{
			Name: "plugin_dir", Type: typePath, Default: "/run/docker/plugins", Restart: true,
			Help: "where the sockets of the pools are made; engines look in the default alone",
			set:  path(func(c *Config) *string { return &c.PluginDir }),
		},
		{
			Name: "run_dir", Type: typePath, Default: "/run/remora", Restart: true,
			Help: "control socket, mountpoints and the ledgers of mounts; must not survive a reboot",
			set:  path(func(c *Config) *string { return &c.RunDir }),
		},
		{
			Name: "state_dir", Type: typePath, Default: "/var/lib/remora", Restart: true,
			Help: "the default place of pools, and what is remembered of them",
			set:  path(func(c *Config) *string { return &c.StateDir }),
		},
		{
			Name: "shutdown_timeout", Type: typeDuration, Default: "9s", Restart: true,
			Help: "how long a stop waits for calls in flight",
			set:  duration(func(c *Config) *time.Duration { return &c.ShutdownTimeout }),
		},
		{
			Name: "log.level", Type: "debug|info|warn|error", Default: "info", Restart: true,
			Help: "the least that is logged",
			set:  oneOf(func(c *Config) *string { return &c.Log.Level }, "debug", "info", "warn", "error"),
		},
		{
			Name: "log.format", Type: "auto|text|json|engine", Default: "auto", Restart: true,
			Help: "auto is text on a terminal, else a JSON object per line; engine is for the log of an engine that runs this as a managed plugin: no time, and warnings and errors alone on standard error",
			set:  oneOf(func(c *Config) *string { return &c.Log.Format }, "auto", "text", "json", "engine"),
		},
		{
			Name: "socket.group", Type: typeText, Restart: true,
			Help: "group of the plugin sockets, a name or a number; empty leaves the daemon's",
			set:  text(func(c *Config) *string { return &c.Socket.Group }),
		},
		{
			Name: "socket.mode", Type: typeMode, Default: "0600", Restart: true,
			Help: "mode of the plugin sockets; who can write to one commands the volumes",
			set:  mode(func(c *Config) *fs.FileMode { return &c.Socket.Mode }),
		},
		{
			Name: "control.group", Type: typeText, Restart: true,
			Help: "group that may use the command line besides root",
			set:  text(func(c *Config) *string { return &c.Control.Group }),
		},
		{
			Name: "metrics.listen", Type: typeAddress, Restart: true,
			Help: "where `/metrics`, `/healthz` and `/readyz` are served beside the control socket; empty is nowhere, and any but loopback wants TLS",
			set:  address(func(c *Config) *string { return &c.Metrics.Listen }),
		},
		{
			Name: "metrics.tls_ca", Type: typePath, Restart: true,
			Help: "certificates, in PEM, of those who sign the certificates of readers; with it TLS is spoken, and a reader needs one",
			set:  optionalPath(func(c *Config) *string { return &c.Metrics.TLSCA }),
		},
		{
			Name: "metrics.tls_cert", Type: typePath, Restart: true,
			Help: "the daemon's own certificate there, in PEM",
			set:  optionalPath(func(c *Config) *string { return &c.Metrics.TLSCert }),
		},
		{
			Name: "metrics.tls_key", Type: typePath, Restart: true,
			Help: "the key of that certificate, in PEM",
			set:  optionalPath(func(c *Config) *string { return &c.Metrics.TLSKey }),
		},
	}
	keys = append(keys, Key{
		Name: "backup.parallel", Type: typeNumber, Default: "2", Restart: true,
		Help: "how many backups schedules, and `remora backup create --project`, make at a time",
		set:  number(1, func(c *Config) *int { return &c.Backup.Parallel }),
	})
	keys = append(keys, Key{
		Name: "engine.sockets", Type: typeList, Restart: true,
		Help: "sockets of the engines that are asked for labels of volumes, for the volumes of a Compose project, which containers use a volume, and to run hooks and the checks of a proof of restore in containers; empty is those of Docker and Podman, as far as they are there, and `none` is nobody",
		set:  engineSockets,
	})
	keys = append(keys, pluginKeys()...)
	keys = append(keys, networkKeys()...)
	for _, k := range poolKeys() {
		k.Name = k.common
		set := k.setPool
		keys = append(keys, Key{
			Name: k.Name, Type: k.Type, Default: k.Default, Help: k.Help,
			set: func(c *Config, text string) error { return set(&c.Volume, text) },
		})
	}
	for i := range keys {
		keys[i].Env = envName(keys[i].Name)
	}
	return keys
}

// poolKey is a key that is common to all pools, and can be set for one.
type poolKey struct {
	Key
	// common is the name of the key that holds for all pools without one of their own.
	common  string
	setPool func(v *Volume, text string) error
}

func poolKeys() []poolKey {
	return []poolKey{
		{
			Key{Name: "linger", Type: typeDuration, Default: "0s", Help: "how long a volume stays mounted after its last unmount"},
			"volume.linger",
			poolDuration(0, func(v *Volume) *time.Duration { return &v.Linger }),
		},
		{
			Key{Name: "mount_grace", Type: typeDuration, Default: "2m0s", Help: "how long a mount from before a restart counts that no container holds"},
			"volume.mount_grace",
			poolDuration(1, func(v *Volume) *time.Duration { return &v.MountGrace }),
		},
		{
			Key{Name: "refresh", Type: typeDuration, Default: "1m0s", Help: "how often the volumes in memory are compared with the storage"},
			"volume.refresh",
			poolDuration(1, func(v *Volume) *time.Duration { return &v.Refresh }),
		},
		{
			Key{Name: "trash_keep", Type: typeDuration, Default: "72h0m0s", Help: "how long a volume that was removed can be brought back by `remora undo`, where the driver has a trash; 0s destroys at once"},
			"trash.keep",
			poolDuration(0, func(v *Volume) *time.Duration { return &v.TrashKeep }),
		},
		{
			Key{Name: "trash_min_free", Type: typePercent, Default: "5%", Help: "how much of the pool's storage has to be free for the trash to be kept; with less, the oldest in it goes first"},
			"trash.min_free",
			poolPercent(func(v *Volume) *float64 { return &v.TrashMinFree }),
		},
	}
}

// PoolKeys returns the keys that a pool of any driver has, beside "driver".
func PoolKeys() []Key {
	var keys []Key
	for _, k := range poolKeys() {
		k.Default = "that of " + k.common
		keys = append(keys, k.Key)
	}
	return keys
}

// envName returns the variable that stands for a key.
func envName(key string) string {
	return "REMORA_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

func text(at func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		*at(c) = s
		return nil
	}
}

func path(at func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if !filepath.IsAbs(s) {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not an absolute path", s)
		}
		*at(c) = filepath.Clean(s)
		return nil
	}
}

// optionalPath is path for a key that may be empty.
func optionalPath(at func(*Config) *string) func(*Config, string) error {
	set := path(at)
	return func(c *Config, s string) error {
		if s == "" {
			return nil
		}
		return set(c, s)
	}
}

func oneOf(at func(*Config) *string, words ...string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if !slices.Contains(words, s) {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is none of %s", s, strings.Join(words, ", "))
		}
		*at(c) = s
		return nil
	}
}

func mode(at func(*Config) *fs.FileMode) func(*Config, string) error {
	return func(c *Config, s string) error {
		n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 9)
		if err != nil || n == 0 {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not an octal mode such as 0660", s)
		}
		*at(c) = fs.FileMode(n)
		return nil
	}
}

// engineSockets takes absolute paths, with or without unix:// before them.
func engineSockets(c *Config, s string) error {
	for _, socket := range words(s) {
		socket = strings.TrimPrefix(socket, "unix://")
		switch {
		case socket == "none" && s == socket:
			c.Engine.None = true
			return nil
		case !filepath.IsAbs(socket):
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not the absolute path of a socket, nor \"none\" alone", socket)
		}
		c.Engine.Sockets = append(c.Engine.Sockets, filepath.Clean(socket))
	}
	return nil
}

func number(least int, at func(*Config) *int) func(*Config, string) error {
	return func(c *Config, s string) error {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || int(n) < least {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a number of %d at least", s, least)
		}
		*at(c) = int(n)
		return nil
	}
}

func duration(at func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, s string) (err error) {
		*at(c), err = parseDuration(s, 0)
		return err
	}
}

func poolDuration(least time.Duration, at func(*Volume) *time.Duration) func(*Volume, string) error {
	return func(v *Volume, s string) (err error) {
		*at(v), err = parseDuration(s, least)
		return err
	}
}

func poolPercent(at func(*Volume) *float64) func(*Volume, string) error {
	return func(v *Volume, s string) error {
		n, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
		if err != nil || !(n >= 0 && n < 100) {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a percentage such as 5%%, below 100%%", s)
		}
		*at(v) = n
		return nil
	}
}

func parseDuration(s string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "%q is not a duration such as 90s or 5m", s)
	}
	if d < least {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "%q: want more than nothing", s)
	}
	return d, nil
}

// scalar returns the text of the TOML value of a key.
func scalar(v any, k Key) (string, error) {
	if _, text := v.(string); !text && k.Type == typeMode {
		return "", errdefs.Errorf(errdefs.ErrInvalid, `want an octal mode in quotes, such as "0660"`)
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case bool, int64, float64:
		return fmt.Sprint(v), nil
	}
	return "", errdefs.Errorf(errdefs.ErrInvalid, "want a text, a number, true or false")
}
