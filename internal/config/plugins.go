package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Plugins says how managed plugins are run.
type Plugins struct {
	// Directory is where they lie; empty is plugins below the state directory.
	Directory string
	// EngineAPI answers the engine's API, for the docker command.
	EngineAPI bool
	// Insecure are the registries that may be spoken to without TLS, or with a certificate that nobody has signed.
	Insecure []string
}

func pluginKeys() []Key {
	return []Key{
		{
			Name: "plugins.directory", Type: typePath, Restart: true,
			Help: "where managed plugins lie, with what they keep; empty is `plugins` below `state_dir`",
			set:  optionalPath(func(c *Config) *string { return &c.Plugins.Directory }),
		},
		{
			Name: "plugins.engine_api", Type: "on|off", Default: "on", Restart: true,
			Help: "whether `engine.sock` below `run_dir` answers the engine's API for plugins and volumes, for `docker -H`; who may use the control socket may use it",
			set: func(c *Config, s string) error {
				var word string
				err := oneOf(func(*Config) *string { return &word }, "on", "off")(c, s)
				c.Plugins.EngineAPI = word == "on"
				return err
			},
		},
		{
			Name: "plugins.insecure_registries", Type: typeList, Restart: true,
			Help: "registries, such as `registry.lan:5000` or `10.0.0.0/8`, that may be spoken to without TLS; those on loopback always may",
			set:  insecure,
		},
	}
}

// insecure takes hosts with or without a port.
func insecure(c *Config, s string) error {
	for _, host := range words(s) {
		if _, err := netip.ParsePrefix(host); err == nil {
			c.Plugins.Insecure = append(c.Plugins.Insecure, host)
			continue
		}
		name := host
		if h, port, err := net.SplitHostPort(host); err == nil {
			name = h
			if _, err := strconv.ParseUint(port, 10, 16); err != nil && !strings.Contains(host, "/") {
				return errdefs.Errorf(errdefs.ErrInvalid, "%q: port %q is not a number", host, port)
			}
		}
		if name == "" || strings.ContainsAny(host, "/@?#") {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a registry such as registry.lan:5000", host)
		}
		c.Plugins.Insecure = append(c.Plugins.Insecure, host)
	}
	return nil
}
