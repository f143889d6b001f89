package network

import (
	"strconv"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/cluster/record"
)

// chosen puts what was chosen into a network.
func chosen(n *record.Network, c catalog.Choices) {
	if c.Encrypted != nil {
		n.Plain = !*c.Encrypted
	}
	if c.Multicast != nil {
		n.Multicast = *c.Multicast
	}
	if c.Internal != nil {
		n.Internal = *c.Internal
	}
	if c.MTU != nil {
		n.MTU = *c.MTU
	}
}

// optionsOf are the options with which an engine makes a network as it is; what it has of itself, such as that it is
// internal, is not among them.
func optionsOf(n record.Network) map[string]string {
	options := map[string]string{}
	if n.Plain {
		options["encrypted"] = "false"
	}
	if n.Multicast {
		options["multicast"] = "true"
	}
	if n.MTU != 0 {
		options["mtu"] = strconv.Itoa(n.MTU)
	}
	return options
}
