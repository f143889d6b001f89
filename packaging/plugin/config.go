package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
)

const (
	// kept is the one directory that survives disabling and an upgrade, and whose mounts the
	// host sees. Whatever is to be remembered lies below it.
	kept = "/var/lib/remora"
	// hostRun is where the plugin sees the host's /run, for the sockets of engines. It is not
	// mounted at its own place: there the engine puts the plugin's socket.
	hostRun = "/host/run"
	// table is the name of the one repository, schedule and verification that can be set up
	// by variables. More of them want a file.
	table = "main"
)

// kind is one of the two plugins that the rootfs is for. Swarm takes networks from a managed plugin alone, and rights
// that only they need are not asked of whoever wants volumes.
type kind struct {
	socket      string // the name of the daemon's that the engine is to find
	capability  string
	description string
	page        string            // of the guide
	fixed       map[string]string // values of variables, beside those of both
}

var volumes = kind{
	socket: config.DefaultPool, capability: "volumedriver", page: "managed-plugin.md",
	description: "Remora: volumes with snapshots, backups, and disks that follow their containers",
	// The plugin is one of volumes alone, and has not the rights that networks take.
	fixed: map[string]string{"REMORA_NETWORK_DRIVER": "none"},
}

var networks = kind{
	socket: networkName, capability: "networkdriver", page: "network.md",
	description: "Remora: networks of a Swarm, encrypted by WireGuard",
	fixed:       map[string]string{"REMORA_NETWORK_DRIVER": networkName, "REMORA_NETWORK_SCOPE": "global"},
}

const networkName = "remora-network"

// fixed are the values of variables that are no business of the user: elsewhere nothing would
// survive, or be seen.
var fixed = map[string]string{
	"REMORA_PLUGIN_DIR": "/run/docker/plugins",
	"REMORA_RUN_DIR":    kept + "/run",
	"REMORA_STATE_DIR":  kept,
}

// preset are defaults of the plugin that are not those of the daemon.
var preset = map[string]string{
	"REMORA_LOG_FORMAT":     "engine",
	"REMORA_ENGINE_SOCKETS": hostRun + "/docker.sock",
	// The engine kills after ten seconds.
	"REMORA_SHUTDOWN_TIMEOUT": "7s",
}

// config returns what config.json has of both.
func (k kind) config() plugin.Config {
	return plugin.Config{
		Description:   k.description,
		Documentation: "https://github.com/remora-plugins/remora/blob/main/docs/guide/" + k.page,
		Interface: plugin.Interface{
			Socket: k.socket + ".sock",
			Types:  []plugin.CapabilityID{{Prefix: "docker", Capability: k.capability, Version: "1.0"}},
		},
		Entrypoint:      []string{"/usr/bin/remora", "daemon"},
		WorkDir:         "/",
		Network:         plugin.NetworkConfig{Type: "host"}, // servers, clouds, their metadata and other hosts are reached as the host reaches them
		PropagatedMount: kept,
		Args:            plugin.Args{Settable: []string{}, Value: []string{}},
	}
}

// pluginConfig returns config.json of the plugin of volumes.
func pluginConfig(drivers []catalog.Volume) plugin.Config {
	c := volumes.config()
	c.PidHost = true // which containers hold a volume is seen in their mount tables
	c.Mounts = []plugin.Mount{
		mount("dev", "/dev", "/dev", "the host's devices, for disks and images", "rbind"),
		mount("run", "/run", hostRun, "the host's /run with the engine's socket, to ask who uses a volume, and for labels, hooks and Compose projects", "bind", "ro"),
	}
	c.Linux = plugin.LinuxConfig{
		AllowAllDevices: true,
		Capabilities: []string{
			"CAP_SYS_ADMIN",       // to mount
			"CAP_SYS_PTRACE",      // to read the mount tables of others
			"CAP_DAC_READ_SEARCH", // to back up what root alone cannot read
			"CAP_LINUX_IMMUTABLE", // nothing is written to a mountpoint on which nothing is mounted
		},
		Devices: []plugin.Device{},
	}
	c.Env = volumes.environment(drivers)
	return c
}

// networkConfig returns config.json of the plugin of networks.
func networkConfig() plugin.Config {
	c := networks.config()
	// The engine mounts what the host's networking is set by read-only.
	c.Entrypoint = []string{"/bin/sh", "-c", "mount -o remount,rw,bind /proc/sys && exec /usr/bin/remora daemon"}
	c.Mounts = []plugin.Mount{
		mount("run", "/run", hostRun, "the host's /run with the engine's socket, to ask what tasks are called", "bind", "ro"),
	}
	tun := "/dev/net/tun"
	c.Linux = plugin.LinuxConfig{
		Capabilities: []string{
			"CAP_NET_ADMIN", // links, routes, rules
			"CAP_SYS_ADMIN", // to set what the kernel forwards, for which /proc/sys is mounted again
		},
		Devices: []plugin.Device{{
			Name: "tun", Description: "where the kernel has no WireGuard, packets go through it", Path: &tun, Settable: []string{"path"},
		}},
	}
	c.Env = networks.environment(nil)
	return c
}

func mount(name, source, destination, what string, options ...string) plugin.Mount {
	return plugin.Mount{
		Name: name, Description: what, Source: &source, Destination: destination,
		Type: "bind", Options: options, Settable: []string{"source"},
	}
}

// environment has a variable for every setting there is: in a managed plugin nothing else can
// be set.
func (k kind) environment(drivers []catalog.Volume) []plugin.Env {
	all := envs{kind: k}
	all.add("REMORA_CONFIG", "configuration file, such as "+kept+"/remora.toml; see the guide")
	for _, k := range config.Keys() {
		all.add(k.Env, k.Help+or(k.Default))
	}
	if len(drivers) > 0 {
		all.pools(drivers)
	}
	all.add("TZ", "time zone of schedules, such as Europe/Berlin (UTC)")
	all.add("HTTPS_PROXY", "proxy by which clouds and repositories are reached")
	all.add("NO_PROXY", "what is reached without it")
	return all.list
}

// pools adds what is set for pools, their drivers and their backups.
func (e *envs) pools(drivers []catalog.Volume) {
	for _, t := range config.Tables() {
		if t.Kind == "pool" { // there is one, as there is one socket
			for _, k := range t.Keys {
				e.add(t.Variable(config.DefaultPool, k.Name), k.Help+or(k.Default))
			}
			continue
		}
		e.add(t.Names, fmt.Sprintf("set it to %q for the variables of that %s to count", table, t.Kind))
		for _, k := range t.Keys {
			e.add(t.Variable(table, k.Name), k.Help+or(k.Default))
		}
	}
	pool := config.Tables()[0]
	for _, d := range drivers {
		for _, k := range d.Keys() {
			e.add(pool.Variable(config.DefaultPool, k.Name), d.Name()+": "+k.Help+or(k.Default))
		}
	}
	for _, d := range drivers {
		for _, v := range d.Variables() {
			e.add(v.Name, d.Name()+": "+v.Help)
		}
	}
	e.add("BACKUP_PASSWORD", "password of the repository, with "+config.Tables()[1].Variable(table, "password_env")+"=BACKUP_PASSWORD; better in a file")
	e.add("AWS_ACCESS_KEY_ID", "access key of a repository in S3")
	e.add("AWS_SECRET_ACCESS_KEY", "its secret")
}

type envs struct {
	kind
	list []plugin.Env
}

// add adds a variable, or what is said of it to one that is there.
func (e *envs) add(name, what string) {
	if i := slices.IndexFunc(e.list, func(v plugin.Env) bool { return v.Name == name }); i >= 0 {
		if at := &e.list[i]; !strings.Contains(at.Description, what) {
			at.Description += "; " + what
		}
		return
	}
	v := plugin.Env{Name: name, Description: what, Settable: []string{"value"}}
	value, ok := fixed[name]
	if own, is := e.fixed[name]; is {
		value, ok = own, true
	}
	if ok {
		v.Value, v.Settable = &value, []string{}
		v.Description += "; cannot be changed here"
	} else if value, ok := preset[name]; ok {
		v.Value = &value
	}
	e.list = append(e.list, v)
}

// or tells of a default.
func or(value string) string {
	if value == "" {
		return ""
	}
	return " (" + value + ")"
}
