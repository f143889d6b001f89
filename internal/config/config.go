// Package config reads the daemon's configuration: defaults, a strict TOML file, the
// environment, and flags, each over the one before.
//
// Every key can be given by the environment too, since a managed plugin is set only by
// KEY=VALUE: "log.level" is REMORA_LOG_LEVEL, and the key "path" of the pool "fast" is
// REMORA_POOL_FAST_PATH. Hooks alone, which are commands that the daemon runs, are in the file or nowhere. The package knows the keys of the daemon and those that every
// pool has; the keys of a driver are checked by a function that the caller gives, so that
// no driver is imported here.
package config

import (
	"cmp"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/schedule"
)

// Version is the version of the file format that this package reads.
const Version = 1

// DefaultFile is read where no other file is named, if it is there.
const DefaultFile = "/etc/remora/remora.toml"

// Config is a configuration that has been checked. It is not changed afterwards.
type Config struct {
	// File is the file that was read; empty without one.
	File string
	// Warnings are about the file, such as its permissions.
	Warnings []string

	PluginDir       string
	RunDir          string
	StateDir        string
	ShutdownTimeout time.Duration
	Log             Log
	Socket          Socket
	Control         Control
	Metrics         Metrics
	Volume          Volume
	Backup          Backup
	Engine          Engine
	Plugins         Plugins
	Network         Network
	// Pools are sorted by name; there is one at least.
	Pools []Pool
	// Repositories are where backups lie, sorted by name.
	Repositories []Repository
	// Schedules are sorted by name.
	Schedules []schedule.Schedule
	// Hooks are sorted by name.
	Hooks []hook.Hook
	// Verifies are sorted by name.
	Verifies []Verify

	values []Value
}

// Log says what is logged.
type Log struct {
	Level  string
	Format string
}

// Socket is whose the plugin sockets are.
type Socket struct {
	Group string
	Mode  fs.FileMode
}

// Control is whose the control socket is.
type Control struct {
	Group string
}

// Volume holds what is common to the volumes of all pools, unless a pool has its own.
type Volume struct {
	Linger     time.Duration
	MountGrace time.Duration
	Refresh    time.Duration
	// TrashKeep is how long what was removed can be brought back; 0 keeps nothing.
	TrashKeep time.Duration
	// TrashMinFree is how much of its storage, in percent, has to be free for the trash to be
	// kept that long.
	TrashMinFree float64
}

// Backup holds what is common to backups to all repositories.
type Backup struct {
	// Parallel is how many are made at a time without a person who waits for each.
	Parallel int
}

// Engine says which engines the daemon asks.
type Engine struct {
	// Sockets are where they listen; without any, Docker and Podman are asked where they are.
	Sockets []string
	// None has nobody asked.
	None bool
}

// Network says as what engines know the network across hosts.
type Network struct {
	// Driver is the name; empty is not at all.
	Driver string
	// Scope is "local" or "global".
	Scope string
	// FastPath has plain packets between neighbours pass this host without its firewall.
	FastPath bool
}

// Pool is one configured driver.
type Pool struct {
	Name   string
	Driver string
	Volume
	// Options are the driver's own keys, as TOML or the environment has them.
	Options map[string]any
}

// Value is one key with its value and where it comes from, for "remora config print".
type Value struct {
	Key    string `json:"Key"`
	Value  string `json:"Value"`
	Source string `json:"Source"`
}

// redacted stands for the value of a secret.
const redacted = "REDACTED"

// Values returns every key, in the order of the reference, with the values that are in
// force. Secrets are REDACTED.
func (c *Config) Values() []Value { return c.values }

// EngineSocket is the path of the socket on which the engine's API is answered.
func (c *Config) EngineSocket() string { return filepath.Join(c.RunDir, "engine.sock") }

// PluginsDir is where managed plugins lie.
func (c *Config) PluginsDir() string {
	return cmp.Or(c.Plugins.Directory, filepath.Join(c.StateDir, "plugins"))
}

// ControlSocket is the path of the control socket.
func (c *Config) ControlSocket() string { return filepath.Join(c.RunDir, "control.sock") }
