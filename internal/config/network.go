package config

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
	}}
}
