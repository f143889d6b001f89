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

// fixed are the values of variables that are no business of the user: elsewhere nothing would
// survive, or be seen.
var fixed = map[string]string{
	"REMORA_PLUGIN_DIR": "/run/docker/plugins",
	"REMORA_RUN_DIR":    kept + "/run",
	"REMORA_STATE_DIR":  kept,
	// The plugin is one of volumes alone, and has not the rights that networks take.
	"REMORA_NETWORK_DRIVER": "none",
}

// preset are defaults of the plugin that are not those of the daemon.
var preset = map[string]string{
	"REMORA_LOG_FORMAT":     "engine",
	"REMORA_ENGINE_SOCKETS": hostRun + "/docker.sock",
	// The engine kills after ten seconds.
	"REMORA_SHUTDOWN_TIMEOUT": "7s",
}

// pluginConfig returns config.json.
func pluginConfig(drivers []catalog.Volume) plugin.Config {
	return plugin.Config{
		Description:   "Remora: volumes with snapshots, backups, and disks that follow their containers",
		Documentation: "https://github.com/remora-plugins/remora/blob/main/docs/guide/managed-plugin.md",
		Interface: plugin.Interface{
			Socket: config.DefaultPool + ".sock",
			Types:  []plugin.CapabilityID{{Prefix: "docker", Capability: "volumedriver", Version: "1.0"}},
		},
		Entrypoint:      []string{"/usr/bin/remora", "daemon"},
		WorkDir:         "/",
		Network:         plugin.NetworkConfig{Type: "host"}, // servers, clouds and their metadata are reached as the host reaches them
		PidHost:         true,                               // which containers hold a volume is seen in their mount tables
		PropagatedMount: kept,
		Mounts: []plugin.Mount{
			mount("dev", "/dev", "/dev", "the host's devices, for disks and images", "rbind"),
			mount("run", "/run", hostRun, "the host's /run with the engine's socket, to ask who uses a volume, and for labels, hooks and Compose projects", "bind", "ro"),
		},
		Linux: plugin.LinuxConfig{
			AllowAllDevices: true,
			Capabilities: []string{
				"CAP_SYS_ADMIN",       // to mount
				"CAP_SYS_PTRACE",      // to read the mount tables of others
				"CAP_DAC_READ_SEARCH", // to back up what root alone cannot read
				"CAP_LINUX_IMMUTABLE", // nothing is written to a mountpoint on which nothing is mounted
			},
			Devices: []plugin.Device{},
		},
		Args: plugin.Args{Settable: []string{}, Value: []string{}},
		Env:  environment(drivers),
	}
}

func mount(name, source, destination, what string, options ...string) plugin.Mount {
	return plugin.Mount{
		Name: name, Description: what, Source: &source, Destination: destination,
		Type: "bind", Options: options, Settable: []string{"source"},
	}
}

// environment has a variable for every setting there is: in a managed plugin nothing else can
// be set.
func environment(drivers []catalog.Volume) []plugin.Env {
	var all envs
	all.add("REMORA_CONFIG", "configuration file, such as "+kept+"/remora.toml; see the guide")
	for _, k := range config.Keys() {
		all.add(k.Env, k.Help+or(k.Default))
	}
	for _, t := range config.Tables() {
		if t.Kind == "pool" { // there is one, as there is one socket
			for _, k := range t.Keys {
				all.add(t.Variable(config.DefaultPool, k.Name), k.Help+or(k.Default))
			}
			continue
		}
		all.add(t.Names, fmt.Sprintf("set it to %q for the variables of that %s to count", table, t.Kind))
		for _, k := range t.Keys {
			all.add(t.Variable(table, k.Name), k.Help+or(k.Default))
		}
	}
	pool := config.Tables()[0]
	for _, d := range drivers {
		for _, k := range d.Keys() {
			all.add(pool.Variable(config.DefaultPool, k.Name), d.Name()+": "+k.Help+or(k.Default))
		}
	}
	for _, d := range drivers {
		for _, v := range d.Variables() {
			all.add(v.Name, d.Name()+": "+v.Help)
		}
	}
	all.add("BACKUP_PASSWORD", "password of the repository, with "+config.Tables()[1].Variable(table, "password_env")+"=BACKUP_PASSWORD; better in a file")
	all.add("AWS_ACCESS_KEY_ID", "access key of a repository in S3")
	all.add("AWS_SECRET_ACCESS_KEY", "its secret")
	all.add("TZ", "time zone of schedules, such as Europe/Berlin (UTC)")
	all.add("HTTPS_PROXY", "proxy by which clouds and repositories are reached")
	all.add("NO_PROXY", "what is reached without it")
	return all
}

type envs []plugin.Env

// add adds a variable, or what is said of it to one that is there.
func (e *envs) add(name, what string) {
	if i := slices.IndexFunc(*e, func(v plugin.Env) bool { return v.Name == name }); i >= 0 {
		if at := &(*e)[i]; !strings.Contains(at.Description, what) {
			at.Description += "; " + what
		}
		return
	}
	v := plugin.Env{Name: name, Description: what, Settable: []string{"value"}}
	if value, ok := fixed[name]; ok {
		v.Value, v.Settable = &value, []string{}
		v.Description += "; cannot be changed here"
	} else if value, ok := preset[name]; ok {
		v.Value = &value
	}
	*e = append(*e, v)
}

// or tells of a default.
func or(value string) string {
	if value == "" {
		return ""
	}
	return " (" + value + ")"
}
