package control

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/plugin"
)

// The methods about managed plugins.
const (
	MethodPluginList       = "Plugin.List"
	MethodPluginInspect    = "Plugin.Inspect"
	MethodPluginPrivileges = "Plugin.Privileges"
	MethodPluginCreate     = "Plugin.Create"
	MethodPluginInstall    = "Plugin.Install"
	MethodPluginUpgrade    = "Plugin.Upgrade"
	MethodPluginPush       = "Plugin.Push"
	MethodPluginEnable     = "Plugin.Enable"
	MethodPluginDisable    = "Plugin.Disable"
	MethodPluginSet        = "Plugin.Set"
	MethodPluginRemove     = "Plugin.Remove"
	MethodPluginTop        = "Plugin.Top"
	MethodPluginLogs       = "Plugin.Logs"
	MethodPluginExec       = "Plugin.Exec"
)

// Plugins does what the methods Plugin.* ask for. A name is that of a plugin with ":latest" left out, its ID, or the
// begin of one.
type Plugins interface {
	PluginsKept
	PluginsRemote
	PluginsRun
}

// PluginsKept has the methods about what is on disk.
type PluginsKept interface {
	// List returns all plugins, sorted by name.
	List(ctx context.Context) (PluginList, error)
	Inspect(ctx context.Context, req PluginRequest) (Plugin, error)
	// Create makes a plugin of a tar with config.json and rootfs.
	Create(ctx context.Context, name string, tar io.Reader) (Plugin, error)
	Set(ctx context.Context, req PluginSetRequest) error
	Remove(ctx context.Context, req PluginForceRequest) error
}

// PluginsRemote has the methods about registries.
type PluginsRemote interface {
	// Privileges returns what a plugin in a registry asks for.
	Privileges(ctx context.Context, req PluginSource) (PluginPrivileges, error)
	// Install takes a plugin from a registry, sets it and, if asked to, enables it.
	Install(ctx context.Context, req PluginInstallRequest, progress func(Progress)) (Plugin, error)
	Upgrade(ctx context.Context, req PluginUpgradeRequest, progress func(Progress)) (Plugin, error)
	Push(ctx context.Context, req PluginPushRequest, progress func(Progress)) (PluginPushed, error)
}

// PluginsRun has the methods about plugins that run, or are to.
type PluginsRun interface {
	Enable(ctx context.Context, req PluginEnableRequest) error
	Disable(ctx context.Context, req PluginForceRequest) error
	Top(ctx context.Context, req PluginRequest) (PluginTop, error)
	// Logs sends what a plugin has printed, and with Follow what it prints until ctx ends.
	Logs(ctx context.Context, req PluginLogsRequest, send func(PluginLine)) error
	// Exec runs a command in a plugin.
	Exec(ctx context.Context, req PluginExecRequest, stdin io.Reader, send func(PluginOutput)) (PluginExit, error)
}

// Plugin is a managed plugin: what the engine's API says of it, and what it does not.
type Plugin struct {
	plugin.Plugin
	// State is "running", "restarting", "stopped", or "failed".
	State string `json:"State"`
	PID   int    `json:"Pid,omitempty"`
	// Since is when the state began.
	Since time.Time `json:"Since,omitzero"`
	// Error is why a plugin that is to run does not.
	Error string `json:"Error,omitempty"`
	// Socket is where it listens, on the host.
	Socket string `json:"Socket,omitempty"`
	// Pinned is the digest that it was installed by.
	Pinned string `json:"Pinned,omitempty"`
	// Secrets are the variables whose values are in files, with these; answered to Inspect alone.
	Secrets map[string]string `json:"Secrets,omitempty"`
	// Volumes are those known to be the plugin's; answered to Inspect alone.
	Volumes []string `json:"Volumes,omitempty"`
}

// PluginList answers [MethodPluginList].
type PluginList struct {
	// Plugins is never null.
	Plugins []Plugin `json:"Plugins"`
}

// PluginRequest names a plugin.
type PluginRequest struct {
	Name string `json:"Name"`
}

// PluginForceRequest names a plugin that may be in use.
type PluginForceRequest struct {
	Name  string `json:"Name"`
	Force bool   `json:"Force,omitempty"`
}

// PluginSource names a plugin in a registry.
type PluginSource struct {
	Reference string `json:"Reference"`
	// Auth is what the header X-Registry-Auth holds; empty is nobody.
	Auth string `json:"Auth,omitempty"`
	// Pin is the digest that it must have; empty is any.
	Pin string `json:"Pin,omitempty"`
}

// PluginPrivileges answers [MethodPluginPrivileges].
type PluginPrivileges struct {
	// Privileges is never null.
	Privileges plugin.Privileges `json:"Privileges"`
}

// PluginInstallRequest asks for a plugin of a registry. Granted has to be all that it asks for.
type PluginInstallRequest struct {
	PluginSource
	Alias   string            `json:"Alias,omitempty"`
	Granted plugin.Privileges `json:"Granted,omitempty"`
	// Settings are as in [PluginSetRequest].
	Settings []string          `json:"Settings,omitempty"`
	Secrets  map[string]string `json:"Secrets,omitempty"`
	// Disabled leaves it disabled.
	Disabled bool `json:"Disabled,omitempty"`
	Timeout  int  `json:"Timeout,omitempty"`
}

// PluginUpgradeRequest asks for a plugin to become another; an empty Reference is where it came from.
type PluginUpgradeRequest struct {
	PluginSource
	Name    string            `json:"Name"`
	Granted plugin.Privileges `json:"Granted,omitempty"`
}

// PluginPushRequest names a plugin to be put into the registry of its name.
type PluginPushRequest struct {
	Name string `json:"Name"`
	Auth string `json:"Auth,omitempty"`
}

// PluginPushed answers [MethodPluginPush].
type PluginPushed struct {
	Name   string `json:"Name"`
	Digest string `json:"Digest,omitempty"`
}

// PluginEnableRequest names a plugin to run. Timeout is how many seconds a call to it may take; 0 is no limit.
type PluginEnableRequest struct {
	Name    string `json:"Name"`
	Timeout int    `json:"Timeout,omitempty"`
}

// PluginSetRequest changes settings: NAME[.FIELD]=VALUE. Secrets has for a variable the file with its value; an empty
// one takes it back.
type PluginSetRequest struct {
	Name     string            `json:"Name"`
	Settings []string          `json:"Settings,omitempty"`
	Secrets  map[string]string `json:"Secrets,omitempty"`
}

// PluginTop answers [MethodPluginTop]: a table of processes, as ps(1) has it.
type PluginTop struct {
	Titles []string `json:"Titles"`
	// Processes is never null.
	Processes [][]string `json:"Processes"`
}

// PluginLogsRequest asks for the last lines that a plugin has printed; Tail below 0 is all there are.
type PluginLogsRequest struct {
	Name   string `json:"Name"`
	Tail   int    `json:"Tail"`
	Follow bool   `json:"Follow,omitempty"`
}

// PluginLine is a line that a plugin has printed.
type PluginLine struct {
	Time   time.Time `json:"Time,omitzero"`
	Stream string    `json:"Stream"`
	Text   string    `json:"Text"`
}

// PluginExecRequest asks for a command to be run in a plugin.
type PluginExecRequest struct {
	Name    string   `json:"Name"`
	Command []string `json:"Command"`
}

// PluginOutput is what a command has printed.
type PluginOutput struct {
	Stdout []byte `json:"Stdout,omitempty"`
	Stderr []byte `json:"Stderr,omitempty"`
}

// PluginExit says how a command ended.
type PluginExit struct {
	Status int `json:"Status"`
}
