package config

import (
	"fmt"
	"strconv"
)

func networkKeys() []Key {
	return []Key{{
		Name: "network.driver", Type: typeText, Default: "remora", Restart: true,
		Help: "the name under which engines find the network across hosts, on the socket of the pool of that name if there is one; `none` turns it off",
		set: func(c *Config, s string) error {
			c.Network.Driver = s
			if s == "none" {
				c.Network.Driver = ""
			}
			return nil
		},
	}, {
		Name: "network.scope", Type: "local|global", Default: "local", Restart: true,
		Help: "whose networks engines are given: `local` is each engine's own, and one on all hosts; `global` those of a Swarm, of which engines take none but from a managed plugin",
		set: func(c *Config, s string) error {
			if s != "local" && s != "global" {
				return fmt.Errorf("want local or global, not %q", s)
			}
			c.Network.Scope = s
			return nil
		},
	}, {
		Name: "network.fast_path", Type: typeBool, Default: "false", Restart: true,
		Help: "have packets between containers of hosts on one link, where they are not encrypted, pass this host without its firewall: faster than routes, and seen neither by `DOCKER-USER` nor by any other rule for what is forwarded",
		set: func(c *Config, s string) (err error) {
			if c.Network.FastPath, err = strconv.ParseBool(s); err != nil {
				return fmt.Errorf("want true or false, not %q", s)
			}
			return nil
		},
	}}
}
